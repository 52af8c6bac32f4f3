"""The embedder's HTTP face: raw ASGI, for the engine's work must not wait for a framework's.

Routes: `POST /v1/embeddings`, `GET /v1/models`, `GET /health`. A client that goes away takes its waiting inputs with it.
Answers carry `server-timing` (milliseconds spent tokenising, and waiting and computing), and spans of this worker's own where
the request has a `traceparent` (`noria.engines._spans`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import orjson

from noria.engines._spans import Stage, spans_wanted
from noria.engines.embedding._batcher import Batcher
from noria.engines.embedding._model_folder import EmbeddingCard
from noria.engines.embedding._request import Tokens, parse_request, write_answer
from noria.errors import InvalidRequest, NoriaError, NotFound, PayloadTooLarge

__all__ = ["EmbeddingApp"]

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")

MAX_BODY_BYTES = 32 * 1024 * 1024
INLINE_BYTES = 2048
"""Bodies up to this are tokenised on the event loop: a thread's hand-over costs more than the work."""

log = logging.getLogger(__name__)


class _ClientGone(Exception):
    pass


class EmbeddingApp:
    """An ASGI 3 application serving one embedder under `name`."""

    def __init__(self, name: str, card: EmbeddingCard, tokens: Tokens, batcher: Batcher) -> None:
        self._name = name
        self._card = card
        self._tokens = tokens
        self._batcher = batcher

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            await self._route(scope, receive, send)
        except _ClientGone:
            return
        except NoriaError as error:
            await _send_error(send, error)
        except Exception:
            log.exception("an embedding request failed")
            await _send_error(send, NoriaError("The embedder failed; its log says why.", code="engine_error"))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._batcher.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _route(self, scope: Message, receive: Receive, send: Send) -> None:
        match scope["method"], scope["path"]:
            case "POST", "/v1/embeddings":
                await self._embeddings(scope, receive, send)
            case "GET", "/v1/models":
                await _send_json(send, 200, orjson.dumps({"object": "list", "data": [self._model()]}))
            case "GET", "/health":
                state = {"status": "ok", "waiting_tokens": self._batcher.waiting_tokens}
                await _send_json(send, 200, orjson.dumps(state))
            case method, path:
                raise NotFound(f"No route {method} {path}.", code="unknown_route")

    def _model(self) -> dict[str, Any]:
        card = self._card
        return {
            "id": self._name,
            "object": "model",
            "created": 0,
            "owned_by": "noria",
            "dimensions": card.dimensions,
            "max_tokens": card.max_tokens,
        }

    async def _embeddings(self, scope: Message, receive: Receive, send: Send) -> None:
        body = await _read_body(receive)
        begun = time.monotonic()
        request = parse_request(body, self._name, self._card)
        if len(body) <= INLINE_BYTES:
            rows = self._tokens.of(request)
        else:
            rows = await asyncio.to_thread(self._tokens.of, request)
        tokenised = time.monotonic()
        vectors = await _unless_gone(self._batcher.encode(rows), receive)
        done = time.monotonic()
        num_tokens = sum(map(len, rows))
        if len(rows) > 32:
            answer = await asyncio.to_thread(write_answer, request, vectors, num_tokens)
        else:
            answer = write_answer(request, vectors, num_tokens)
        timing = f"tokenise;dur={1e3 * (tokenised - begun):.2f}, encode;dur={1e3 * (done - tokenised):.2f}"
        headers = [(b"server-timing", timing.encode())]
        if spans := spans_wanted(scope["headers"], "noria-embedding"):
            whole = Stage(f"engine {self._name}", begun, time.monotonic())
            counts = {"noria.engine.inputs": len(rows), "noria.engine.prompt_tokens": num_tokens}
            parts = [Stage("tokenise", begun, tokenised), Stage("encode", tokenised, done, counts)]
            headers.append(spans.header(whole, parts))
        await _send_json(send, 200, answer, headers)


async def _read_body(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise PayloadTooLarge(f"The body is over {MAX_BODY_BYTES // 2**20} MiB.", hint="Send the inputs in several requests.")
        chunks.append(chunk)
        if not message.get("more_body", False):
            break
    if not size:
        raise InvalidRequest("The body is empty.")
    return b"".join(chunks)


async def _unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """The work's result, unless the client disconnects first: then the work is cancelled."""
    task = asyncio.create_task(work)
    gone = asyncio.ensure_future(receive())  # the body has been read: what comes next is the disconnect
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _send_error(send: Send, error: NoriaError) -> None:
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
    await _send_json(send, error.status, orjson.dumps({"error": error.to_dict()}), headers)


async def _send_json(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *(headers or [])]})
    await send({"type": "http.response.body", "body": body})
