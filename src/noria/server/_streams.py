"""Answers on their way out: JSON bytes or server-sent events, closed properly however the client leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from noria.errors import NoriaError

from ._errors import error_bytes

__all__ = ["EventStream", "sse", "sse_error"]


def sse(data: bytes, event: str | None = None) -> bytes:
    """One server-sent event."""
    return (f"event: {event}\n".encode() if event else b"") + b"data: " + data + b"\n\n"


def sse_error(error: NoriaError) -> bytes:
    """What ends a stream that failed after it began."""
    return sse(error_bytes(error))


class EventStream(Response):
    """An ASGI response: sends pieces as they come, stops when the client is gone, always calls `close`.

    Lighter than Starlette's StreamingResponse, which runs a task group for each stream; here one task waits for the client to
    leave while this one sends.
    """

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        close: Callable[[], Awaitable[None]],
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._pieces, self._close = pieces, close
        self._sent_headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        self._sent_headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = asyncio.current_task()
        assert sender is not None
        gone = False

        async def watch() -> None:
            nonlocal gone
            while True:
                if (await receive())["type"] == "http.disconnect":
                    gone = True
                    sender.cancel()
                    return

        watcher = asyncio.ensure_future(watch())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._sent_headers})
            try:
                async for piece in self._pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except NoriaError as error:
                await send({"type": "http.response.body", "body": sse_error(error), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            if not gone:
                raise
            sender.uncancel()
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(self._close())
