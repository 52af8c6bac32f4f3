"""POST /v1/chat/completions, /v1/completions and /v1/embeddings: resolve, ask, splice, store.

Source: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from fastapi import Request
from fastapi.responses import Response
from opentelemetry import trace
from pydantic import TypeAdapter

from noria.access import Principal
from noria.errors import InvalidRequest, UpstreamError
from noria.fields import HINTS, hints
from noria.messages import ChatMessage
from noria.models import (
    Call,
    ModelCard,
    Observed,
    Operation,
    Reply,
    WholeEvents,
    call_model,
    error_in,
    is_stream_error,
    sticky_key,
    stream_error,
)
from noria.prompts import PromptReference, RenderedPrompt
from noria.responses import mark_trace
from noria.store import new_id
from noria.tracing import attach_payload, semconv

from ._chat_bodies import ChatBody, CompletionBody, EmbeddingBody
from ._completions_store import StoredCall
from ._deps import Inference, NoriaDep
from ._routers import new_router
from ._streams import EventStream, mark_failed, while_connected
from ._wiring import Noria

__all__ = ["router"]

router = new_router("Inference")

# What Noria acts on or records itself; a model never sees these, but for the hints.
_OWN = {"store", "metadata", "user", "safety_identifier", "modalities"}
_OWN_IN_CHAT = {*_OWN, "prompt", *HINTS}
_MESSAGES: TypeAdapter[list[ChatMessage]] = TypeAdapter(list[ChatMessage])
_PREFIX: dict[Operation, str] = {"chat": "chatcmpl-", "completion": "cmpl-", "embedding": ""}


@router.post("/v1/chat/completions", summary="Create a chat completion")
async def create_chat_completion(body: ChatBody, request: Request, caller: Inference, noria: NoriaDep) -> Response:
    headers: dict[str, str] = {}
    if body.prompt is not None:
        rendered = await noria.prompts.render(caller.project_id, body.prompt)
        body = _prompted(body, body.prompt, rendered)
        headers["x-noria-prompt"] = rendered.header
    if not body.messages:
        raise InvalidRequest("messages is missing.", param="messages", code="missing_required_parameter")
    forward = body.model_dump(exclude_unset=True, by_alias=True, exclude=_OWN_IN_CHAT)
    stored = None
    if body.store:
        stored = StoredCall(
            noria.database, caller.project_id, body.model_dump(exclude_unset=True, by_alias=True), body.metadata or {}
        )
    recorded = body.model_dump(exclude_unset=True, include=_OWN_IN_CHAT)
    sticky = sticky_key(body.safety_identifier, body.user, body.metadata)
    user = body.safety_identifier or body.user
    ask = _Ask("chat", body.model, forward, recorded, user, sticky, stored, headers, hints(body))
    return await _answer(ask, request, caller, noria)


def _prompted(body: ChatBody, reference: PromptReference, rendered: RenderedPrompt) -> ChatBody:
    """The body with the prompt's messages before its own, and the version that this is."""
    mark_trace(rendered)
    reference = reference.model_copy(update={"id": rendered.prompt_id, "version": str(rendered.version)})
    said = _MESSAGES.validate_python(rendered.messages)
    return body.model_copy(update={"messages": [*said, *body.messages], "prompt": reference})


@router.post("/v1/completions", summary="Create a completion")
async def create_completion(body: CompletionBody, request: Request, caller: Inference, noria: NoriaDep) -> Response:
    forward = body.model_dump(exclude_unset=True, by_alias=True, exclude=_OWN)
    return await _answer(_Ask("completion", body.model, forward, {}, body.user, body.user), request, caller, noria)


@router.post("/v1/embeddings", summary="Create embeddings")
async def create_embedding(body: EmbeddingBody, request: Request, caller: Inference, noria: NoriaDep) -> Response:
    forward = body.model_dump(exclude_unset=True, by_alias=True, exclude=_OWN)
    return await _answer(_Ask("embedding", body.model, forward, {}, body.user, body.user), request, caller, noria)


@dataclass(frozen=True, slots=True)
class _Ask:
    operation: Operation
    model: str
    body: dict[str, Any]
    recorded: dict[str, Any]
    user: str | None = None
    sticky: str | None = None
    stored: StoredCall | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    hints: dict[str, Any] = field(default_factory=dict[str, Any])


async def _answer(ask: _Ask, request: Request, caller: Principal, noria: Noria) -> Response:
    span = trace.get_current_span()
    if span.is_recording():
        attach_payload(span, input={**ask.body, **ask.recorded})
        if ask.user is not None:
            span.set_attribute(semconv.USER_ID, ask.user)
    resolved = await noria.hub.resolve(ask.model, caller.project_id)
    call = Call(
        ask.operation,
        ask.body,
        hints=ask.hints,
        timeout_s=noria.settings.request_timeout_s,
        sticky=ask.sticky,
        project_id=caller.project_id,
    )
    slot = noria.admission.enter()
    try:
        async with while_connected(request):
            reply, observed = await call_model(resolved, call)
            raw = b"" if call.stream else await reply.read()
    except BaseException:
        slot.leave()
        raise
    headers = {"x-noria-model": reply.card.id, **ask.headers}
    request.scope["noria.model"], request.scope["noria.observed"] = reply.card.id, observed
    if call.stream:
        wants_usage = bool((ask.body.get("stream_options") or {}).get("include_usage"))
        relay = _Relay(ask, reply, observed, request.scope, wants_usage=wants_usage)

        async def close() -> None:
            slot.leave()
            await reply.close()

        return EventStream(relay.pieces(), close, headers)
    slot.leave()
    raw = _own_names(raw, ask, reply.card)
    if ask.stored is not None:
        await ask.stored.save(orjson.loads(raw), reply.card.id)
    return Response(raw, headers=headers, media_type="application/json")


def _answer_id(operation: Operation) -> str:
    """An id that ends in the request's span, by which feedback finds the trace of an answer that was not stored."""
    context = trace.get_current_span().get_span_context()
    return new_id(_PREFIX[operation], tail=context.span_id if context.is_valid else None)


def _own_names(raw: bytes, ask: _Ask, card: ModelCard) -> bytes:
    """The answer under our id and the card's name; nothing else of it is touched."""
    try:
        body: Any = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise UpstreamError(f"{card.id} answered with something that is not a JSON object.")
    if is_stream_error(body):
        raise stream_error(body["error"])
    body["model"] = card.id
    if ask.operation != "embedding":
        body["id"] = _answer_id(ask.operation)
        body.setdefault("created", int(time.time()))
    if ask.stored is not None:
        body["metadata"] = ask.stored.metadata
    return orjson.dumps(body)


_NAME = re.compile(rb'"(id|model)"\s*:\s*"(?:[^"\\]|\\.)*"')
_DONE = re.compile(rb"^data: ?\[DONE\][^\n]*\n", re.MULTILINE)
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class _Relay:
    """A stream on its way through: our id and model in every chunk, the usage chunk only if asked for.

    With `store`, the last event is held back until the completion is durable. An event that tells of an error is the last, and
    the answer counts as failed (in `scope`) and is not stored. So does a stream that ends before its `[DONE]`, and says so.
    """

    def __init__(
        self, ask: _Ask, reply: Reply, observed: Observed, scope: MutableMapping[str, Any], *, wants_usage: bool
    ) -> None:
        self._ask, self._reply, self._observed, self._scope = ask, reply, observed, scope
        self._wants_usage = wants_usage
        self._own = {
            b"id": b'"id":' + orjson.dumps(_answer_id(ask.operation)),
            b"model": b'"model":' + orjson.dumps(reply.card.id),
        }
        self._kept: list[bytes] = []
        self._swaps: tuple[tuple[bytes, bytes], ...] = ()

    async def pieces(self) -> AsyncIterator[bytes]:
        whole = WholeEvents()
        done = False
        async for given in self._reply.pieces:
            events = whole.feed(given)
            if not events or done:
                continue
            if b"[DONE]" in events and (end := _DONE.search(events)) is not None:
                events, done = events[: end.start()], True
            if not self._wants_usage and b'"usage"' in events and _USAGE.search(events):
                events = _without_usage(events)
            if events:
                error = error_in(events)
                events = self._rename(events)
                if self._ask.stored is not None:
                    self._kept.append(events)
                yield events
                if error is not None:
                    mark_failed(self._scope, stream_error(error))
                    return
        if not done:
            raise UpstreamError(f"{self._reply.card.id} stopped in the middle of its answer.", code="stream_cut")
        if self._ask.stored is not None:
            identity = orjson.loads(self._own[b"id"].partition(b":")[2])
            await self._ask.stored.save_stream(b"".join(self._kept), identity, self._reply.card.id, self._observed.usage)
        yield b"data: [DONE]\n\n"

    def _rename(self, events: bytes) -> bytes:
        """Where every event has the names that the one before had, two replacements do; else each is looked at."""
        count = events.count(b"\n\n")
        if self._swaps and all(events.count(old) == count for old, _ in self._swaps):
            for old, new in self._swaps:
                events = events.replace(old, new)
            return events
        return b"\n\n".join([self._rename_one(event) if event else event for event in events.split(b"\n\n")])

    def _rename_one(self, event: bytes) -> bytes:
        at = event.find(b'"choices"')
        head = event[: at if at >= 0 else len(event)]  # ids after that are of tool calls
        found = {match[1]: match[0] for match in _NAME.finditer(head)}
        if len(found) == 2 and len(_NAME.findall(head)) == 2:
            self._swaps = tuple((old, self._own[name]) for name, old in found.items())
            return _NAME.sub(lambda match: self._own[match[1]], head) + event[len(head) :]
        return self._rename_slowly(event)

    def _rename_slowly(self, event: bytes) -> bytes:
        """For events whose names stand elsewhere, or are missing."""
        lines = event.split(b"\n")
        for place, line in enumerate(lines):
            try:
                body: Any = orjson.loads(line[5:]) if line.startswith(b"data:") else None
            except orjson.JSONDecodeError:
                continue
            if isinstance(body, dict) and "choices" in body:
                own = {name.decode(): orjson.loads(text.partition(b":")[2]) for name, text in self._own.items()}
                lines[place] = b"data: " + orjson.dumps({**body, **own})
        return b"\n".join(lines)


def _without_usage(events: bytes) -> bytes:
    """Drops events that carry usage and no choices (the caller did not ask for them)."""
    kept = [event for event in events.split(b"\n\n") if not (_NO_CHOICES.search(event) and _USAGE.search(event))]
    return b"\n\n".join(kept)
