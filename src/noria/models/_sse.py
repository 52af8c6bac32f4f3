"""Server-sent events as model APIs send them: bytes in pieces cut anywhere, `data:` payloads out.

The subset of https://html.spec.whatwg.org/multipage/server-sent-events.html that upstreams use: LF, CRLF or CR line
ends, comments, several `data:` lines of one event joined by LF.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson

from noria.errors import NoriaError, Unavailable, UpstreamError

__all__ = ["SSEDecoder", "chunks"]

_MAX_EVENT_BYTES = 16 * 1024 * 1024


class SSEDecoder:
    """Feed pieces, get the payloads of the events that they complete."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        self._rest += piece
        if len(self._rest) > _MAX_EVENT_BYTES:
            raise UpstreamError("An event of the stream is larger than 16 MiB.")
        events: list[bytes] = []
        while (line := self._line()) is not None:
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data.clear()
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        return events

    def _line(self) -> bytes | None:
        rest = self._rest
        end_lf, end_cr = rest.find(b"\n"), rest.find(b"\r")
        ends = [end for end in (end_lf, end_cr) if end >= 0]
        if not ends:
            return None
        end = min(ends)
        if rest[end] == 0x0D and end + 1 == len(rest):
            return None  # a CR at the edge may be the first half of CRLF
        width = 2 if rest.startswith(b"\r\n", end) else 1
        line = bytes(rest[:end])
        del rest[: end + width]
        return line


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
            if "error" in chunk:
                raise stream_error(chunk["error"])
            yield chunk
    raise UpstreamError("The stream ended before [DONE].", code="stream_cut")


def stream_error(error: Any) -> NoriaError:
    message = error.get("message") if isinstance(error, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    if code in {"engine_restarting", "unavailable"}:
        return Unavailable(str(message), code=str(code), retry_after_s=2)
    return UpstreamError(str(message or error), code=str(code) if code else None)
