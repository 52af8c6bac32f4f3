"""The worker's HTTP face: raw ASGI, for a step's tokens must not wait for a framework.

Routes: POST /v1/chat/completions, /v1/completions, /v1/noria/tokenize; GET /v1/models, /health; GET and POST
/v1/noria/adapters, DELETE /v1/noria/adapters/NAME. One write a step a stream.
A client that goes away frees its slots before the next step. To a request with a `traceparent` the answer brings spans of this
worker's own (`noria.engines._spans`).

The model loads in a thread while /health already answers 503 "loading".
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from noria.engines._spans import EngineSpans, spans_wanted
from noria.engines.openvino._adapter import Adapter
from noria.engines.openvino._answer import Choice, Piece
from noria.engines.openvino._engine import Engine, Event
from noria.engines.openvino._job import Job, JobMaker
from noria.engines.openvino._registry import AdapterRegistry
from noria.engines.openvino._spans import stages
from noria.engines.openvino._wire import AdapterRequest, ChatRequest, CompletionRequest, TokenizeRequest, parse_body
from noria.engines.openvino._writer import ChatWriter, CompletionWriter, usage
from noria.errors import InvalidRequest, NoriaError, NotFound, PayloadTooLarge, Unavailable

__all__ = ["Served", "WorkerApp"]

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 16 * 1024 * 1024
INLINE_BYTES = 16 * 1024
"""Larger bodies are parsed and tokenised in a thread, so that streams go on meanwhile."""

_log = logging.getLogger(__name__)


class _ClientGone(Exception):
    pass


@dataclass(frozen=True)
class Served:
    """A loaded model."""

    engine: Engine
    maker: JobMaker
    adapters: AdapterRegistry
    after: Callable[[], None]  # work that makes the model faster but that nobody should wait for
    card: dict[str, Any]  # what /v1/models says beyond OpenAI's fields


class _Mailbox:
    """Events of one request, from the engine's thread to its coroutine."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.gone = False
        self._ready = asyncio.Event()

    def put(self, event: Event) -> None:
        self.events.append(event)
        self._ready.set()

    def leave(self) -> None:
        self.gone = True
        self._ready.set()

    async def take(self) -> list[Event]:
        """All events that have come. Raises _ClientGone once the client has left."""
        await self._ready.wait()
        if self.gone:
            raise _ClientGone
        self._ready.clear()
        events, self.events = self.events, []
        return events


class WorkerApp:
    """An ASGI 3 application; `load` makes the served model and is called in a thread at startup.

    `load` is given the listener that its engine must call with each step's events.
    """

    def __init__(self, name: str, load: Callable[[Callable[[list[Event]], None]], Served]) -> None:
        self._name = name
        self._load = load
        self._served: Served | None = None
        self._failure: str | None = None
        self._boxes: dict[int, _Mailbox] = {}  # by the sequence's id
        self._loop: asyncio.AbstractEventLoop | None = None

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
        except Exception as error:
            _log.exception("a request failed")
            await _send_error(send, _shown(error))

    # Life -------------------------------------------------------------------------------------------------------

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        loading = threading.Thread(target=self._load_model, name="noria-load", daemon=True)
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._loop = asyncio.get_running_loop()
                loading.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await asyncio.to_thread(loading.join, 20)  # native code must not be at work when the process ends
                if self._served is not None:
                    await asyncio.to_thread(self._served.engine.stop)
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _load_model(self) -> None:
        try:
            served = self._load(self._on_step)
            served.engine.start()
            self._served = served
        except Exception as error:
            self._failure = str(error) if isinstance(error, NoriaError) else f"{type(error).__name__}: {error}"
            _log.exception("the model did not load")
            return
        try:
            served.after()
        except Exception:
            _log.exception("the model serves, but could not be made faster")

    def _on_step(self, events: list[Event]) -> None:
        """Called by the engine's thread after each step."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._deliver, events)
        except RuntimeError:
            _log.info("a step ended after the event loop was closed")

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            box = self._boxes.get(event.sequence.id)
            if box is not None:
                box.put(event)

    # Routes -----------------------------------------------------------------------------------------------------

    async def _route(self, scope: Message, receive: Receive, send: Send) -> None:
        match scope["method"], scope["path"]:
            case "POST", "/v1/chat/completions":
                await self._complete(scope, receive, send, chat=True)
            case "POST", "/v1/completions":
                await self._complete(scope, receive, send, chat=False)
            case "POST", "/v1/noria/tokenize":
                await self._tokenize(receive, send)
            case "GET", "/v1/models":
                await _send_json(send, 200, {"object": "list", "data": self._models()})
            case "GET", "/health":
                await self._health(send)
            case "GET", "/v1/noria/adapters":
                await _send_json(send, 200, {"object": "list", "data": self._ready().adapters.listing()})
            case "POST", "/v1/noria/adapters":
                await self._load_adapter(receive, send)
            case "DELETE", path if path.startswith("/v1/noria/adapters/"):
                await self._unload_adapter(path.removeprefix("/v1/noria/adapters/"), send)
            case method, path:
                raise NotFound(f"No route {method} {path}.", code="unknown_route")

    def _ready(self) -> Served:
        failure = self._failure or (self._served.engine.failure if self._served else None)
        if failure is not None:
            raise Unavailable(f"The engine has failed: {failure}", code="engine_failed", retry_after_s=5)
        if self._served is None:
            raise Unavailable(f"{self._name} is loading.", code="engine_loading", retry_after_s=2)
        return self._served

    def _models(self) -> list[dict[str, Any]]:
        """The model, then its adapters."""
        served = self._ready()
        model = {"id": self._name, "object": "model", "created": 0, "owned_by": "noria", **served.card}
        names = [entry["name"] for entry in served.adapters.listing()]
        return [model, *({**model, "id": name, "root": self._name} for name in names)]

    async def _load_adapter(self, receive: Receive, send: Send) -> None:
        adapters = self._ready().adapters
        request = parse_body(AdapterRequest, await _read_body(receive))
        await asyncio.to_thread(adapters.load, request.name, Path(request.folder))
        shown = next(entry for entry in adapters.listing() if entry["name"] == request.name)
        await _send_json(send, 200, shown)

    async def _unload_adapter(self, name: str, send: Send) -> None:
        if not await asyncio.to_thread(self._ready().adapters.unload, name):
            raise NotFound(f"There is no adapter {name!r} here.", param="name")
        await _send_json(send, 200, {"object": "noria.adapter.deleted", "name": name, "deleted": True})

    async def _health(self, send: Send) -> None:
        failure = self._failure or (self._served.engine.failure if self._served else None)
        state: dict[str, Any] = {"status": "failed" if failure else "ready" if self._served else "loading", "model": self._name}
        if failure:
            state["error"] = failure
        elif self._served:
            state |= asdict(self._served.engine.stats())
        await _send_json(send, 200 if state["status"] == "ready" else 503, state)

    async def _tokenize(self, receive: Receive, send: Send) -> None:
        maker, body = self._ready().maker, await _read_body(receive)
        tokens = _tokens(maker, body) if len(body) <= INLINE_BYTES else await asyncio.to_thread(_tokens, maker, body)
        await _send_json(send, 200, {"num_tokens": len(tokens), "tokens": tokens})

    async def _job(self, served: Served, body: bytes, *, chat: bool) -> Job:
        kind = ChatRequest if chat else CompletionRequest
        inline = len(body) <= INLINE_BYTES
        request = parse_body(kind, body) if inline else await asyncio.to_thread(parse_body, kind, body)
        adapter: Adapter | None = None
        if request.model != self._name:
            adapter = served.adapters.find(request.model)
            if adapter is None:  # it may have had to leave memory; unknown names are refused here
                adapter = await asyncio.to_thread(served.adapters.ensure, request.model)
        if inline:
            return _make_job(served.maker, request, adapter)
        return await asyncio.to_thread(_make_job, served.maker, request, adapter)

    async def _complete(self, scope: Message, receive: Receive, send: Send, *, chat: bool) -> None:
        served = self._ready()
        job = await self._job(served, await _read_body(receive), chat=chat)
        box = _Mailbox()
        sequences = list(job.sequences)
        for sequence in sequences:
            self._boxes[sequence.id] = box
        watcher = asyncio.ensure_future(_watch(receive, box))
        try:
            served.engine.submit(sequences)
            spans = spans_wanted(scope["headers"], "noria-openvino")
            await _Answering(job, served.maker, box, spans).run(send, served.engine)
        finally:
            watcher.cancel()
            for sequence in sequences:
                del self._boxes[sequence.id]
            left = [sequence for sequence in sequences if sequence.finish is None]
            if left:
                served.engine.cancel(left)


def _tokens(maker: JobMaker, body: bytes) -> list[int]:
    request = parse_body(TokenizeRequest, body)
    if (request.text is None) == (request.messages is None):
        raise InvalidRequest("Give one of text and messages.", param="text")
    if request.messages is not None:
        return maker.count_chat([message.to_turn() for message in request.messages], request.tools or ())
    return maker.tokenizer.encode(request.text or "")


def _make_job(maker: JobMaker, request: ChatRequest | CompletionRequest, adapter: Adapter | None) -> Job:
    return maker.chat(request, adapter) if isinstance(request, ChatRequest) else maker.completion(request, adapter)


class _Answering:
    """Writes one request's answer as its events come."""

    def __init__(self, job: Job, maker: JobMaker, box: _Mailbox, spans: EngineSpans | None) -> None:
        self._job = job
        self._box = box
        self._spans = spans
        self._writer = (ChatWriter if job.kind == "chat" else CompletionWriter)(job, maker.tokenizer)
        self._choices = [Choice(i, s, job, maker.tokenizer) for i, s in enumerate(job.sequences)]
        self._by_id = {choice.sequence.id: choice for choice in self._choices}

    async def run(self, send: Send, engine: Engine) -> None:
        await (self._stream(send, engine) if self._job.stream else self._whole(send, engine))

    async def _pieces(self, engine: Engine) -> list[tuple[Choice, Piece]]:
        pieces: list[tuple[Choice, Piece]] = []
        for event in await self._box.take():
            choice = self._by_id[event.sequence.id]
            piece = choice.take(event)
            if choice.failed and engine.failure is None:
                raise NoriaError("This answer failed; the engine's log says why.", code="engine_error")
            if choice.failed:
                raise Unavailable("The engine failed while answering.", code="engine_failed", retry_after_s=5)
            if piece.finish and event.finish is None:  # a stop string, which the engine does not know of
                engine.cancel([choice.sequence])
            if piece:
                pieces.append((choice, piece))
        return pieces

    def _finished(self) -> bool:
        return all(choice.finish is not None for choice in self._choices)

    async def _whole(self, send: Send, engine: Engine) -> None:
        answers: dict[int, list[Piece]] = {choice.index: [] for choice in self._choices}
        while not self._finished():
            for choice, piece in await self._pieces(engine):
                answers[choice.index].append(piece)
        body = self._writer.whole([(c, answers[c.index]) for c in self._choices], usage(self._job, self._choices))
        spans = [self._spans.header(*stages(self._job, self._choices, engine.work()))] if self._spans else []
        await _send_json(send, 200, body, spans)

    async def _stream(self, send: Send, engine: Engine) -> None:
        pieces = await self._pieces(engine)  # an engine that fails before the first token still answers with a status
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            await self._chunks(send, engine, pieces)
        except _ClientGone:
            raise
        except Exception as error:  # the status is sent: what comes now must be an event
            if not isinstance(error, NoriaError):
                _log.exception("a stream failed")
            data = bytearray()
            _append(data, {"error": _shown(error).to_dict()})
            await send({"type": "http.response.body", "body": bytes(data), "more_body": False})

    async def _chunks(self, send: Send, engine: Engine, pieces: list[tuple[Choice, Piece]]) -> None:
        data = bytearray()
        for choice in self._choices:
            _append(data, self._writer.first_chunk(choice.index))
        while True:
            for choice, piece in pieces:
                _append(data, self._writer.chunk(choice, piece))
            if self._finished():
                break
            if data:
                await send({"type": "http.response.body", "body": bytes(data), "more_body": True})
            data = bytearray()
            pieces = await self._pieces(engine)
        if self._job.include_usage:
            _append(data, self._writer.usage_chunk(usage(self._job, self._choices)))
        data += b"data: [DONE]\n\n"
        if self._spans is not None:
            data += self._spans.comment(*stages(self._job, self._choices, engine.work()))
        await send({"type": "http.response.body", "body": bytes(data), "more_body": False})


def _append(data: bytearray, chunk: dict[str, Any] | None) -> None:
    if chunk is not None:
        data += b"data: "
        data += orjson.dumps(chunk)
        data += b"\n\n"


async def _watch(receive: Receive, box: _Mailbox) -> None:
    """The body has been read: what comes next is the client's leaving."""
    while (await receive())["type"] != "http.disconnect":
        pass
    box.leave()


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
            raise PayloadTooLarge(f"The body is over {MAX_BODY_BYTES // 2**20} MiB.")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _shown(error: Exception) -> NoriaError:
    """What a client is told: a bug's words stay in the log."""
    return error if isinstance(error, NoriaError) else NoriaError("The engine failed; its log says why.", code="engine_error")


async def _send_error(send: Send, error: NoriaError) -> None:
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
    await _send_json(send, error.status, {"error": error.to_dict()}, headers)


async def _send_json(send: Send, status: int, value: Any, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    body = orjson.dumps(value)
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *(headers or [])]})
    await send({"type": "http.response.body", "body": body})
