"""Answers on their way out: JSON bytes or server-sent events, closed properly however the client leaves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Literal, Self

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from noria.errors import NoriaError, UpstreamError

from ._errors import error_bytes

__all__ = ["EventStream", "mark_failed", "sse", "sse_error", "while_connected"]

_log = logging.getLogger("noria.server")
_SILENCE_S = 10.0
_COMMENT: Message = {"type": "http.response.body", "body": b":\n\n", "more_body": True}


def sse(data: bytes, event: str | None = None) -> bytes:
    """One server-sent event."""
    return (f"event: {event}\n".encode() if event else b"") + b"data: " + data + b"\n\n"


def sse_error(error: NoriaError) -> bytes:
    """What ends a stream that failed after it began."""
    return sse(error_bytes(error))


def mark_failed(scope: MutableMapping[str, Any], error: NoriaError) -> None:
    """For an answer that failed after its 200: the root span, the counters and Idempotency-Keys take it for what it is."""
    scope["noria.error"] = error.code or type(error).__name__
    scope["noria.failed_status"] = error.status


class EventStream(Response):
    """An ASGI response: sends pieces (whole events) as they come, and comments while none comes; stops when the client is gone,
    always calls `close`.

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
        try:
            async with _cancelled_when_gone(receive) as client:
                await send({"type": "http.response.start", "status": 200, "headers": self._sent_headers})
                try:
                    with _Heartbeat(send) as heart:
                        async for piece in self._pieces:
                            await send({"type": "http.response.body", "body": piece, "more_body": True})
                            heart.beat()
                except NoriaError as error:
                    await self._fail(error, scope, send)
                except Exception:
                    _log.exception("A bug, in the middle of a stream")
                    await self._fail(UpstreamError("Noria failed in the middle of this answer; its log says more."), scope, send)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            if client.gone:
                scope["noria.error"], scope["noria.failed_status"] = "client_gone", 499
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(self._close())

    @staticmethod
    async def _fail(error: NoriaError, scope: Scope, send: Send) -> None:
        mark_failed(scope, error)
        await send({"type": "http.response.body", "body": sse_error(error), "more_body": True})


class _Heartbeat:
    """A comment whenever nothing has been sent for a while: who waits, and who stands between, sees that the stream lives.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes
    """

    __slots__ = ("_last", "_loop", "_send", "_task", "_timer")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        self.beat()
        self._timer = self._loop.call_later(_SILENCE_S, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def beat(self) -> None:
        """Something was sent."""
        self._last = self._loop.time()

    def _look(self) -> None:
        left = self._last + _SILENCE_S - self._loop.time()
        if left <= 0:
            if self._task is None or self._task.done():  # else the client does not read
                self._task = asyncio.ensure_future(self._send(_COMMENT))
            self.beat()
            left = _SILENCE_S
        self._timer = self._loop.call_later(left, self._look)


class _cancelled_when_gone:  # as a generator it would cost three times as much a request
    """Ends the block early, silently, when the client leaves; the request's body must have been read."""

    __slots__ = ("_receive", "_task", "_watcher", "gone")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.gone = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._watcher = asyncio.ensure_future(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._watcher.cancel()
        return isinstance(error, asyncio.CancelledError) and self.gone and self._task.uncancel() == 0

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._task.cancel()


class while_connected(_cancelled_when_gone):
    """Stops the work in the block when its client has left: nobody would read the answer."""

    __slots__ = ()

    def __init__(self, request: Request) -> None:
        super().__init__(request.receive)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:  # nothing is swallowed: who reads on has all that the block made
        quiet = await super().__aexit__(kind, error, traceback)
        if self.gone and (error is None or quiet):
            raise HTTPException(499, "The client closed the connection.")
        return False
