"""A walk through the list of traces: any order and page size, ties and arrivals included."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.tracing import TraceFilter, Tracing
from noria.tracing._records import SpanRecord

T0 = 1_790_000_000_000_000_000
ORDERS: Any = st.sampled_from(["newest", "oldest", "slowest", "costliest", "most_tokens"])
# Start, duration, cost, tokens: few values, so that most are tied.
FIGURES = st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 2), st.integers(0, 2))
_numbers = iter(range(1, 10**9))


def put(tracing: Tracing, project: str, figures: tuple[int, int, int, int]) -> str:
    start, duration, cost, tokens = figures
    trace_id = f"{next(_numbers):032x}"
    attributes = {"gen_ai.operation.name": "chat", "noria.cost_usd": float(cost), "gen_ai.usage.input_tokens": tokens}
    tracing._writer.put(
        SpanRecord(
            project=project, trace_id=trace_id, span_id=trace_id[16:], parent_id=None, name="chat",
            start_ns=T0 + start, end_ns=T0 + start + duration, attributes=attributes,
        )
    )  # fmt: skip
    return trace_id


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FIGURES, max_size=12), ORDERS, st.integers(1, 5), st.lists(FIGURES, max_size=3))
def test_each_trace_is_seen_once(
    tracing: Tracing,
    first: list[tuple[int, int, int, int]],
    order: Any,
    limit: int,
    later: list[tuple[int, int, int, int]],
) -> None:
    project = f"p{next(_numbers)}"
    there = [put(tracing, project, figures) for figures in first]
    tracing.flush()
    seen: list[Any] = []
    after = None
    while True:
        page = asyncio.run(tracing.store.list(TraceFilter(project=project), order=order, after=after, limit=limit))
        assert len(page.traces) <= limit
        seen += page.traces
        after = page.next_cursor
        if after is None:
            break
        assert len(page.traces) == limit
        if later:
            put(tracing, project, later.pop())
            tracing.flush()
    ids = [trace.trace_id for trace in seen]
    assert len(ids) == len(set(ids))
    assert set(there) <= set(ids)
    value = {
        "newest": "start_ns",
        "oldest": "start_ns",
        "slowest": "duration_ns",
        "costliest": "cost_usd",
        "most_tokens": "total_tokens",
    }
    values = [getattr(trace, value[order]) for trace in seen]
    assert values == sorted(values, reverse=order != "oldest")
