"""Server-sent events as model APIs send them: bytes in pieces cut anywhere, `data:` payloads out.

The subset of https://html.spec.whatwg.org/multipage/server-sent-events.html that upstreams use: LF, CRLF or CR line
ends, comments, several `data:` lines of one event joined by LF.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from noria.errors import NoriaError, Unavailable, UpstreamError

__all__ = ["SSEDecoder", "WholeEvents", "chunks", "is_stream_error", "stream_error"]

_MAX_EVENT_BYTES = 16 * 1024 * 1024


class _LineFeeds:
    """Pieces with every line end as LF. A CR at the edge of a piece may be the first half of CRLF: its LF is then dropped."""

    def __init__(self) -> None:
        self._after_cr = False

    def convert(self, piece: bytes) -> bytes:
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_cr = False
        if not piece:
            return piece
        self._after_cr = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in piece else piece


class WholeEvents:
    """Feed pieces cut anywhere, get bytes that end where an event ends, with LF line ends; what is begun stays here."""

    def __init__(self) -> None:
        self._lines = _LineFeeds()
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> bytes:
        """What is whole now. Each byte is looked at once, however small the pieces are."""
        piece = self._lines.convert(piece)
        if not piece:
            return b""
        at = piece.rfind(b"\n\n")
        end = at + 2 if at >= 0 else 0
        if not end and piece.startswith(b"\n") and self._parts and self._parts[-1].endswith(b"\n"):
            end = 1
        if not end:
            self._keep(piece)
            return b""
        whole = b"".join([*self._parts, piece[:end]])
        self._parts, self._size = [], 0
        if end < len(piece):
            self._keep(piece[end:])
        return whole

    def rest(self) -> bytes:
        """What was begun and not ended."""
        return b"".join(self._parts)

    def _keep(self, piece: bytes) -> None:
        self._parts.append(piece)
        self._size += len(piece)
        if self._size > _MAX_EVENT_BYTES:
            raise UpstreamError("An event of the stream is larger than 16 MiB.")


class SSEDecoder:
    """Feed pieces, get the payloads of the events that they complete."""

    def __init__(self) -> None:
        self._events = WholeEvents()

    def feed(self, piece: bytes) -> list[bytes]:
        whole = self._events.feed(piece)
        return [data for event in whole.split(b"\n\n") if (data := _data(event)) is not None] if whole else []


def _data(event: bytes) -> bytes | None:
    lines = [line for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(line[6:] if line[5:6] == b" " else line[5:] for line in lines) if lines else None


async def chunks(pieces: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON chunks of a stream until `[DONE]`. An `error` event in it is raised; a stream cut short too."""
    decoder = SSEDecoder()
    async for piece in pieces:
        for event in decoder.feed(piece):
            if event == b"[DONE]":
                return
            try:
                chunk = orjson.loads(event)
            except orjson.JSONDecodeError:
                raise UpstreamError("The stream holds an event that is not JSON.") from None
            if not isinstance(chunk, dict):
                raise UpstreamError("The stream holds an event that is not a JSON object.")
            if is_stream_error(chunk):
                raise stream_error(chunk["error"])
            yield chunk
    raise UpstreamError("The stream ended before [DONE].", code="stream_cut")


def is_stream_error(body: Mapping[str, Any]) -> bool:
    """Whether an object that came with status 200 tells of a failure (some APIs put `"error": null` in every answer)."""
    return body.get("error") is not None


def stream_error(error: Any) -> NoriaError:
    message = error.get("message") if isinstance(error, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    if code in {"engine_restarting", "unavailable"}:
        return Unavailable(str(message), code=str(code), retry_after_s=2)
    return UpstreamError(str(message or error), code=str(code) if code else None)
