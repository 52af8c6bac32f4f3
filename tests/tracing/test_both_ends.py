"""Spans of whoever answered: those that came with an answer, and usage that both ends of a call report."""

from __future__ import annotations

import itertools
import os
from typing import Any

import orjson
import pytest
from opentelemetry.trace import SpanKind

from noria.tracing import TraceFilter, Tracing, attach_payload, semconv, trace_id_of
from noria.tracing._records import SpanRecord

USAGE = {semconv.REQUEST_MODEL: "m", semconv.INPUT_TOKENS: 10, semconv.OUTPUT_TOKENS: 4, semconv.COST_USD: 0.5}
T0 = 1_790_000_000_000_000_000


def otlp(trace_id: str, parent_id: str, count: int = 1) -> bytes:
    spans = [
        {"traceId": trace_id, "spanId": os.urandom(8).hex(), "parentSpanId": parent_id, "name": f"part {i}", "kind": 2,
         "startTimeUnixNano": T0, "endTimeUnixNano": T0 + 5}
        for i in range(count)
    ]  # fmt: skip
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "an-engine"}}]}
    return orjson.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]})


async def test_spans_that_came_with_an_answer_stand_under_the_call(tracing: Tracing) -> None:
    span = tracing.provider.get_tracer("noria.test").start_span("chat", attributes={semconv.PROJECT: "p1"})
    trace_id = trace_id_of(span) or ""
    attach_payload(span, spans=otlp(trace_id, f"{span.get_span_context().span_id:016x}", count=2))
    attach_payload(span, output=b"{}")
    span.end()
    tracing.flush()
    (root,) = (await tracing.store.get(trace_id, project="p1")).roots
    assert [(child.name, child.service) for child in root.children] == [("part 0", "an-engine"), ("part 1", "an-engine")]


@pytest.mark.parametrize("spans", [b"{", b"[]", b'{"resourceSpans": 3}', otlp("ab" * 16, "cd" * 8)])
async def test_garbage_and_other_traces_are_left_out(tracing: Tracing, spans: bytes) -> None:
    span = tracing.provider.get_tracer("noria.test").start_span("chat")
    attach_payload(span, spans=spans)
    span.end()
    tracing.flush()
    assert (await tracing.store.list(TraceFilter())).traces[0].span_count == 1


def both_ends(trace_id: str) -> list[SpanRecord]:
    """A request, the model call in it, the engine's end of that call, and a call of the engine's own to another model."""
    facts: dict[str, Any] = {"project": "p", "trace_id": trace_id, "name": "s", "start_ns": T0, "end_ns": T0 + 9}
    return [
        SpanRecord(**facts, span_id="a" * 16, parent_id=None, kind=SpanKind.SERVER.value + 1),
        SpanRecord(**facts, span_id="b" * 16, parent_id="a" * 16, kind=SpanKind.CLIENT.value + 1, attributes=dict(USAGE)),
        SpanRecord(**facts, span_id="c" * 16, parent_id="b" * 16, kind=SpanKind.SERVER.value + 1, attributes=dict(USAGE)),
        SpanRecord(**facts, span_id="d" * 16, parent_id="c" * 16, kind=SpanKind.CLIENT.value + 1, attributes=dict(USAGE)),
    ]


@pytest.mark.parametrize("apart", [False, True])
async def test_usage_that_both_ends_report_counts_once(tracing: Tracing, apart: bool) -> None:
    orders = list(itertools.permutations(range(4)))
    for number, order in enumerate(orders):
        spans = both_ends(f"{number + 1:032x}")
        for place in order:
            tracing._writer.put(spans[place])
            if apart:
                tracing.flush()
    tracing.flush()
    for number, order in enumerate(orders):
        summary = (await tracing.store.get(f"{number + 1:032x}", project="p")).summary
        assert (summary.input_tokens, summary.output_tokens, summary.cost_usd) == (20, 8, 1.0), order
    (row,) = await tracing.store.stats(TraceFilter(project="p"), group_by="model")
    assert row.input_tokens == 20 * len(orders)


async def test_an_engine_that_reports_alone_is_counted(tracing: Tracing) -> None:
    tracing._writer.put(both_ends("f" * 32)[2])
    tracing.flush()
    assert (await tracing.store.get("f" * 32, project="p")).summary.input_tokens == 10
