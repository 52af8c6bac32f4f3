"""A call to a model as a span: who was asked, what came back, tokens, cost, time to the first piece.

Wraps any `Model`. The bytes pass through untouched; only the piece that carries `usage` is parsed, and the content is handed to
tracing as it is, to be read outside the event loop.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from noria.engines import SPANS_COMMENT, SPANS_HEADER
from noria.errors import NoriaError, UpstreamError
from noria.tracing import attach_payload, inject, semconv

from ._cards import Usage
from ._hub import Resolved
from ._prices import read_usage
from ._protocol import Call, Operation, Reply
from ._sse import stream_error
from ._stream_facts import Facts, facts_of_body, facts_of_stream

__all__ = ["Observed", "call_model"]

_tracer = trace.get_tracer("noria.models")
_MOST_SPANS_BYTES = 64 * 1024
_NAMES: dict[Operation, str] = {
    "chat": semconv.CHAT,
    "completion": semconv.TEXT_COMPLETION,
    "embedding": semconv.EMBEDDINGS,
}


@dataclass(slots=True)
class Observed:
    """What is known of a call once its reply has been read to the end."""

    usage: Usage
    ttft_s: float | None = None
    finished: bool = False


async def call_model(resolved: Resolved, call: Call) -> tuple[Reply, Observed]:
    """Opens a reply inside a span of its own, which ends with the reply. Raises as `Model.open` does."""
    span = _tracer.start_span(f"{_NAMES[call.operation]} {resolved.card.id}", kind=SpanKind.CLIENT)
    recording = span.is_recording()
    if recording:
        _describe(span, resolved, call)
        headers = dict(call.headers)
        inject(headers, span)
        call = replace(call, headers=headers)
    begun = time.perf_counter()
    try:
        reply = await resolved.model.open(call)
    except BaseException as error:
        if recording and isinstance(error, NoriaError) and error.variant is not None:
            span.set_attributes({semconv.ROUTE: resolved.card.id, semconv.ROUTE_VARIANT: error.variant})
        _fail(span, error)
        span.end()
        raise
    observed = Observed(Usage())
    if recording:
        span.set_attribute(semconv.RESPONSE_MODEL, reply.card.id)
        if reply.variant is not None:
            span.set_attributes({semconv.ROUTE: resolved.card.id, semconv.ROUTE_VARIANT: reply.variant})
        if reply.attempts > 1:
            span.set_attribute("noria.attempts", reply.attempts)
    watcher = _Watcher(span, reply, call, observed, begun)
    return Reply(reply.card, watcher.pieces(), watcher.close, reply.headers, reply.variant, reply.attempts), observed


def _describe(span: Span, resolved: Resolved, call: Call) -> None:
    card = resolved.card
    span.set_attributes(
        {
            semconv.OPERATION: _NAMES[call.operation],
            semconv.PROVIDER: card.provider or "noria",
            semconv.REQUEST_MODEL: card.id,
        }
    )
    if resolved.alias is not None:
        span.set_attribute(semconv.ALIAS, resolved.alias)
    attach_payload(span, input=call.body)


def _fail(span: Span, error: BaseException) -> None:
    kind = (error.code or type(error).__name__) if isinstance(error, NoriaError) else type(error).__name__
    if span.is_recording():
        span.set_attribute(semconv.ERROR_TYPE, kind)
        span.set_status(Status(StatusCode.ERROR, str(error)))


class _Watcher:
    """Counts and keeps what passes. Ends the span exactly once, whether the reply is exhausted, broken off or closed."""

    def __init__(self, span: Span, reply: Reply, call: Call, observed: Observed, begun: float) -> None:
        self._span, self._reply, self._call, self._observed, self._begun = span, reply, call, observed, begun
        self._kept: list[bytes] = []
        self._ended = self._failed = False

    async def pieces(self) -> AsyncIterator[bytes]:
        keep = self._kept.append
        try:
            async for piece in self._reply.pieces:
                if self._observed.ttft_s is None:
                    self._observed.ttft_s = time.perf_counter() - self._begun
                keep(piece)
                yield piece
            self._observed.finished = True
        except NoriaError as error:
            self._failed = True
            _fail(self._span, error)
            raise
        finally:
            self._end()

    async def close(self) -> None:
        try:
            await self._reply.close()
        finally:
            self._end()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        raw = b"".join(self._kept)
        stream = self._call.stream
        facts = facts_of_stream(raw) if stream else facts_of_body(raw)
        self._observed.usage = read_usage(self._reply.card, facts.usage)
        span = self._span
        if not self._failed and (failure := self._failure(facts)) is not None:
            self._failed = True
            _fail(span, failure)
        if span.is_recording():
            usage = self._observed.usage
            span.set_attributes(
                {
                    semconv.INPUT_TOKENS: usage.input_tokens,
                    semconv.OUTPUT_TOKENS: usage.output_tokens,
                    semconv.CACHED_TOKENS: usage.cached_tokens,
                }
            )
            if usage.cost_usd is not None:
                span.set_attribute(semconv.COST_USD, usage.cost_usd)
            if self._observed.ttft_s is not None:
                span.set_attribute(semconv.TTFT_S, self._observed.ttft_s)
            if not (self._observed.finished or self._failed or facts.done):
                span.set_attribute("noria.cancelled", True)
            dialect: Any = {"chat": "chat", "completion": "completion"}.get(self._call.operation) if stream else None
            # What an engine says of its own work. A remote model is not asked, and could say anything.
            spans = _engine_spans(self._reply, raw) if self._reply.card.is_local else None
            attach_payload(span, output=raw, output_is_sse=dialect, spans=spans)
        span.end()

    def _failure(self, facts: Facts) -> NoriaError | None:
        """What went wrong although the connection ended well."""
        if facts.error is not None:
            return stream_error(facts.error)
        if self._call.stream and self._observed.finished and not facts.done:
            return UpstreamError(f"{self._reply.card.id} stopped in the middle of its answer.", code="stream_cut")
        return None


def _engine_spans(reply: Reply, raw: bytes) -> bytes | None:
    """The spans that came with an answer: in a header, or in a comment behind a stream's last event."""
    if (header := reply.headers.get(SPANS_HEADER)) is not None:
        return header.encode()
    _, comment, spans = raw[-_MOST_SPANS_BYTES:].rpartition(SPANS_COMMENT)
    return spans.strip() if comment else None
