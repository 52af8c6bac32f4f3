"""POST /v1/chat/completions, /v1/completions and /v1/embeddings: resolve, ask, splice, store.

Source: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request
from fastapi.responses import Response
from opentelemetry import trace

from noria.access import Principal
from noria.models import Call, ModelCard, Observed, Operation, Reply, call_model
from noria.store import new_id
from noria.tracing import attach_payload, semconv

from ._chat_bodies import ChatBody, CompletionBody, EmbeddingBody
from ._completions_store import StoredCall
from ._deps import Inference, NoriaDep
from ._routers import new_router
from ._streams import EventStream
from ._wiring import Noria

__all__ = ["router"]

router = new_router("Inference")

# What Noria acts on or records itself; a model never sees these.
_OWN = {
    "store",
    "metadata",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
    "modalities",
}
_PREFIX: dict[Operation, str] = {"chat": "chatcmpl-", "completion": "cmpl-", "embedding": ""}


@router.post("/v1/chat/completions", summary="Create a chat completion")
async def create_chat_completion(body: ChatBody, request: Request, caller: Inference, noria: NoriaDep) -> Response:
    forward = body.model_dump(exclude_unset=True, by_alias=True, exclude=_OWN)
    stored = None
    if body.store:
        stored = StoredCall(
            noria.database, caller.project_id, body.model_dump(exclude_unset=True, by_alias=True), body.metadata or {}
        )
    return await _answer(_Ask("chat", body.model, forward, body.safety_identifier or body.user, stored), caller, noria)


@router.post("/v1/completions", summary="Create a completion")
async def create_completion(body: CompletionBody, caller: Inference, noria: NoriaDep) -> Response:
    forward = body.model_dump(exclude_unset=True, by_alias=True, exclude=_OWN)
    return await _answer(_Ask("completion", body.model, forward, body.user), caller, noria)


@router.post("/v1/embeddings", summary="Create embeddings")
async def create_embedding(body: EmbeddingBody, caller: Inference, noria: NoriaDep) -> Response:
    forward = body.model_dump(exclude_unset=True, by_alias=True, exclude=_OWN)
    return await _answer(_Ask("embedding", body.model, forward, body.user), caller, noria)


@dataclass(frozen=True, slots=True)
class _Ask:
    operation: Operation
    model: str
    body: dict[str, Any]
    user: str | None = None
    stored: StoredCall | None = None


async def _answer(ask: _Ask, caller: Principal, noria: Noria) -> Response:
    span = trace.get_current_span()
    if span.is_recording():
        attach_payload(span, input={**ask.body, **({"metadata": ask.stored.metadata} if ask.stored else {})})
        if ask.user is not None:
            span.set_attribute(semconv.USER_ID, ask.user)
    resolved = await noria.hub.resolve(ask.model, caller.project_id)
    call = Call(
        ask.operation, ask.body, timeout_s=noria.settings.request_timeout_s, sticky=ask.user, project_id=caller.project_id
    )
    slot = noria.admission.enter()
    try:
        reply, observed = await call_model(resolved, call)
    except BaseException:
        slot.leave()
        raise
    headers = {"x-noria-model": reply.card.id}
    if call.stream:
        relay = _Relay(ask, reply, observed, wants_usage=bool((ask.body.get("stream_options") or {}).get("include_usage")))

        async def close() -> None:
            slot.leave()
            await reply.close()

        return EventStream(relay.pieces(), close, headers)
    try:
        raw = await reply.read()
    finally:
        slot.leave()
    raw = _own_names(raw, ask, reply.card)
    if ask.stored is not None:
        await ask.stored.save(orjson.loads(raw), reply.card.id)
    return Response(raw, headers=headers, media_type="application/json")


def _own_names(raw: bytes, ask: _Ask, card: ModelCard) -> bytes:
    """The answer under our id and the card's name; nothing else of it is touched."""
    body: dict[str, Any] = orjson.loads(raw)
    body["model"] = card.id
    if ask.operation != "embedding":
        body["id"] = new_id(_PREFIX[ask.operation])
        body.setdefault("created", int(time.time()))
    if ask.stored is not None:
        body["metadata"] = ask.stored.metadata
    return orjson.dumps(body)


_NAME = re.compile(rb'"(id|model)"\s*:\s*("(?:[^"\\]|\\.)*")')


class _Relay:
    """A stream on its way through: our id and model in every chunk, the usage chunk only if asked for.

    With `store`, the last event is held back until the completion is durable.
    """

    def __init__(self, ask: _Ask, reply: Reply, observed: Observed, *, wants_usage: bool) -> None:
        self._ask, self._reply, self._observed, self._wants_usage = ask, reply, observed, wants_usage
        self._id = new_id(_PREFIX[ask.operation])
        self._kept: list[bytes] = []
        self._swaps: list[tuple[bytes, bytes]] = []

    async def pieces(self) -> AsyncIterator[bytes]:
        rest = done = b""
        async for given in self._reply.pieces:
            events, rest = _whole_events(rest + given if rest else given)
            if not events:
                continue
            events = self._rename(events)
            if not self._wants_usage and b'"usage":{' in events:
                events = _without_usage(events)
            if (at := events.rfind(b"data: [DONE]")) >= 0:
                events, done = events[:at], b"data: [DONE]\n\n"
            if events:
                if self._ask.stored is not None:
                    self._kept.append(events)
                yield events
        if self._ask.stored is not None and done:
            await self._ask.stored.save_stream(b"".join(self._kept), self._id, self._reply.card.id, self._observed.usage)
        if rest or done:
            yield rest + done

    def _rename(self, piece: bytes) -> bytes:
        if not self._swaps:
            own = {b"id": self._id, b"model": self._reply.card.id}
            for match in _NAME.finditer(piece, 0, 4096):
                if (name := own.pop(match[1], None)) is not None:  # the first of each: the chunk's own, not a tool call's
                    self._swaps.append((match[0], b'"' + match[1] + b'":' + orjson.dumps(name)))
        for old, new in self._swaps:
            piece = piece.replace(old, new)
        return piece


def _whole_events(piece: bytes) -> tuple[bytes, bytes]:
    """What is whole of a piece, and the rest: a name must not be cut in two, and a usage event is dropped whole."""
    end = piece.rfind(b"\n\n")
    if end < 0 and b"\r\n\r\n" in piece:
        piece = piece.replace(b"\r\n", b"\n")
        end = piece.rfind(b"\n\n")
    return (piece[: end + 2], piece[end + 2 :]) if end >= 0 else (b"", piece)


def _without_usage(piece: bytes) -> bytes:
    """Drops events that carry usage and no choices (the caller did not ask for them)."""
    events = piece.split(b"\n\n")
    return b"\n\n".join(event for event in events if not (b'"usage":{' in event and b'"choices":[]' in event))
