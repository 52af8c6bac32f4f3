"""What goes in with OpenTelemetry's API comes out of the store: trees, lists, filters, sums, deletion."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from sqlalchemy import func, select, text

from noria.errors import InvalidRequest, NotFound
from noria.tracing import TraceFilter, Tracing, _query, attach_payload, extract, inject, semconv, trace_id_of
from noria.tracing._schema import bodies, labels, spans, traces

MS = 1_000_000
T0 = 1_790_000_000_000_000_000


def make(tracing: Tracing, start_ms: int = 0, duration_ms: int = 10, name: str = "chat m", **attributes: Any) -> str:
    """One finished trace of one span; its trace id."""
    span = tracing.provider.get_tracer("noria.test").start_span(
        name, start_time=T0 + start_ms * MS, attributes={key.replace("__", "."): v for key, v in attributes.items()}
    )
    trace_id = trace_id_of(span)
    span.end(T0 + (start_ms + duration_ms) * MS)
    assert trace_id
    return trace_id


def rows(tracing: Tracing) -> dict[str, int]:
    tables = {"traces": traces, "spans": spans, "bodies": bodies, "labels": labels}
    with tracing.store._engine.connect() as connection:
        return {name: connection.execute(select(func.count()).select_from(table)).scalar_one() for name, table in tables.items()}


async def test_nested_spans_come_back_as_a_tree(tracing: Tracing) -> None:
    tracer = tracing.provider.get_tracer("noria.test")
    with tracer.start_as_current_span(
        "POST /v1/chat/completions", kind=SpanKind.SERVER, attributes={semconv.PROJECT: "p1", semconv.KEY_ID: "key_1"}
    ) as root:
        with tracer.start_as_current_span("retrieve", attributes={semconv.PROJECT: "p1"}) as child:
            child.set_attribute(semconv.INPUT, "what is a noria?")
            child.add_event("cache", {"hit": False})
        with tracer.start_as_current_span("chat m", attributes={semconv.PROJECT: "p1"}) as call:
            call.set_attributes({semconv.OPERATION: "chat", semconv.REQUEST_MODEL: "m", semconv.INPUT_TOKENS: 7})
            call.set_attributes({semconv.OUTPUT_TOKENS: 5, semconv.COST_USD: 0.25})
            call.set_status(Status(StatusCode.ERROR, "cut"))
    assert tracing.flush()
    trace_id = trace_id_of(root)
    assert trace_id
    tree = await tracing.store.get(trace_id, project="p1")
    assert [node.name for node in tree.roots] == ["POST /v1/chat/completions"]
    assert [node.name for node in tree.roots[0].children] == ["retrieve", "chat m"]
    assert tree.roots[0].children[0].input == "what is a noria?"
    assert tree.roots[0].children[0].events[0]["attributes"] == {"hit": False}
    assert tree.roots[0].children[1].status_message == "cut"
    assert tree.roots[0].resource["service.name"] == "test"
    summary = tree.summary
    assert (summary.name, summary.model, summary.key_id, summary.span_count) == (root.name, "m", "key_1", 3)  # type: ignore[attr-defined]
    assert (summary.input_tokens, summary.output_tokens, summary.cost_usd) == (7, 5, 0.25)
    assert (summary.status, summary.error_count) == ("ok", 1)
    with pytest.raises(NotFound):
        await tracing.store.get(trace_id, project="p2")
    one = await tracing.store.span(trace_id, f"{root.get_span_context().span_id:016x}", project="p1")
    assert one.name == tree.roots[0].name
    assert not one.children


async def test_late_and_orphan_spans_find_their_place(tracing: Tracing) -> None:
    tracer = tracing.provider.get_tracer("noria.test")
    root = tracer.start_span("root")
    middle = tracer.start_span("middle", context=set_span_in_context(root))
    leaf = tracer.start_span("leaf", context=set_span_in_context(middle))
    leaf.end()
    tracing.flush()
    trace_id = trace_id_of(root)
    assert trace_id
    tree = await tracing.store.get(trace_id)
    assert [node.name for node in tree.roots] == ["leaf"]
    root.end()
    tracing.flush()
    tree = await tracing.store.get(trace_id)
    assert {node.name for node in tree.roots} == {"leaf", "root"}
    assert tree.summary.name == "root"
    middle.end()
    tracing.flush()
    tree = await tracing.store.get(trace_id)
    assert tree.roots[0].children[0].children[0].name == "leaf"
    assert tree.summary.span_count == 3


async def test_filters(tracing: Tracing) -> None:
    wanted = make(
        tracing, 1000, 500, "chat a", **{
            semconv.REQUEST_MODEL: "a", semconv.KEY_ID: "k1", semconv.COST_USD: 0.5, semconv.CONVERSATION_ID: "s1",
            semconv.INPUT_TOKENS: 100, semconv.METADATA_PREFIX + "team": "blue", semconv.USER_ID: "u1",
            semconv.INPUT: "the quick brown fox", semconv.OUTPUT: "水车把河水提上来",
        },
    )  # fmt: skip
    other = make(tracing, 2000, 5, "chat b", **{semconv.REQUEST_MODEL: "b", semconv.INPUT: "nothing of interest"})
    tracing.flush()
    for given in (
        {"model": "a"}, {"key_id": "k1"}, {"name": "chat a"}, {"session_id": "s1"}, {"user_id": "u1"},
        {"min_latency_s": 0.4}, {"min_cost_usd": 0.1}, {"min_tokens": 50}, {"metadata": {"team": "blue"}},
        {"to_ns": T0 + 1500 * MS}, {"text": "quick fox"}, {"text": "QUI"}, {"text": "河水"}, {"text": "水车"}, {"text": "来"},
        {"model": "a", "key_id": "k1", "text": "brown", "metadata": {"team": "blue"}, "min_latency_s": 0.1},
    ):  # fmt: skip
        found = await tracing.store.list(TraceFilter(**given))  # type: ignore[arg-type]
        assert [trace.trace_id for trace in found.traces] == [wanted], given
        assert await tracing.store.count(TraceFilter(**given)) == 1, given  # type: ignore[arg-type]
    for given in (
        {"from_ns": T0 + 1500 * MS}, {"max_latency_s": 0.1}, {"max_cost_usd": 0.1}, {"max_tokens": 50}, {"model": "b"},
    ):  # fmt: skip
        found = await tracing.store.list(TraceFilter(**given))  # type: ignore[arg-type]
        assert [trace.trace_id for trace in found.traces] == [other], given
    for given in ({"text": "车河水提来"}, {"text": "fox nothing"}, {"service": "x"}, {"status": "error"}, {"project": "q"}):
        assert not (await tracing.store.list(TraceFilter(**given))).traces, given  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        await tracing.store.list(TraceFilter(text="!?"))


async def test_orders_and_cursors(tracing: Tracing) -> None:
    ids = [make(tracing, i // 2, 10 + i * 7 % 5, **{semconv.REQUEST_MODEL: "m"}) for i in range(23)]
    tracing.flush()
    for order in ("newest", "oldest", "slowest", "costliest", "most_tokens"):
        seen: list[str] = []
        after = None
        while True:
            page = await tracing.store.list(TraceFilter(), order=order, after=after, limit=5)  # type: ignore[arg-type]
            seen += [trace.trace_id for trace in page.traces]
            make(tracing, 10_000 + len(seen))
            tracing.flush()
            after = page.next_cursor
            if after is None or len(seen) > 60:
                break
        assert len(seen) == len(set(seen))
        assert set(ids) <= set(seen)
    with pytest.raises(InvalidRequest):
        await tracing.store.list(TraceFilter(), after="nonsense")
    page = await tracing.store.list(TraceFilter(), limit=1)
    with pytest.raises(InvalidRequest):
        await tracing.store.list(TraceFilter(), order="oldest", after=page.next_cursor)


async def test_a_conversation_is_stored_once(tracing: Tracing) -> None:
    history: list[dict[str, str]] = []
    for turn in range(20):
        history.append({"role": "user", "content": f"question {turn} " + "lorem ipsum " * 40})
        span = tracing.provider.get_tracer("noria.test").start_span("chat m")
        answer = {"role": "assistant", "content": f"answer {turn} " + "dolor sit " * 40}
        attach_payload(
            span,
            input=json.dumps({"model": "m", "messages": history, "temperature": 0.5}).encode(),
            output=json.dumps({"id": "c", "choices": [{"message": answer, "finish_reason": None}]}).encode(),
        )
        span.end()
        history.append(answer)
    tracing.flush()
    assert rows(tracing)["bodies"] <= 20 + 2 * 20 + 2
    found = await tracing.store.list(TraceFilter(text="question 3"))
    # Found where it was said, not in each of the sixteen turns that carried it along.
    assert len(found.traces) == 1
    last = await tracing.store.list(TraceFilter(), limit=1)
    tree = await tracing.store.get(last.traces[0].trace_id)
    assert tree.roots[0].input == history[:-1]
    assert tree.roots[0].attributes[semconv.REQUEST] == {"model": "m", "temperature": 0.5}


async def delete_where(tracing: Tracing, wanted: TraceFilter) -> list[str]:
    """Takes away what matches, one by one."""
    gone: list[str] = []
    async for ids in tracing.store.ids(wanted, 1):
        gone += ids
        await tracing.store.delete_all(ids, project=wanted.project)
    return gone


async def test_text_is_found_behind_newer_spans_of_other_projects_and_times(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_query, "TEXT_SPANS", 4)
    old = [make(tracing, i, **{semconv.INPUT: f"alice {i}"}) for i in range(10)]
    for i in range(9):
        make(tracing, 60_000 + i, **{semconv.INPUT: "alice", semconv.PROJECT: "another"})
        make(tracing, 60_000 + i, **{semconv.INPUT: "alice and bob", semconv.REQUEST_MODEL: "m"})
    make(tracing, 50, **{semconv.INPUT: "carol"})
    tracing.flush()
    mine = TraceFilter(text="alice", to_ns=T0 + 30_000 * MS)
    page = await tracing.store.list(mine)
    assert ([trace.trace_id for trace in page.traces], page.text_capped) == (old[:5:-1], True)
    assert await tracing.store.count(mine) == 10
    assert await tracing.store.count(TraceFilter(text="alice")) == 19
    assert await tracing.store.count(TraceFilter(text="alice", project="another")) == 9
    assert await tracing.store.count(TraceFilter(text="alice", from_ns=T0 + 30_000 * MS)) == 9
    exact = await tracing.store.list(TraceFilter(text="alice", from_ns=T0 + 6 * MS, to_ns=T0 + 10 * MS))
    assert ([trace.trace_id for trace in exact.traces], exact.text_capped) == (old[:5:-1], False)
    # Deletion goes on until there is none, behind spans that another condition excludes too.
    assert len(await delete_where(tracing, TraceFilter(text="alice", model="m"))) == 9
    make(tracing, 70_000, **{semconv.INPUT: "alice", semconv.REQUEST_MODEL: "m"})
    tracing.flush()
    assert sorted(await delete_where(tracing, mine)) == sorted(old)
    assert await tracing.store.count(TraceFilter()) == 2
    assert await tracing.store.count(TraceFilter(project="another")) == 9


async def test_delete_leaves_nothing_behind(tracing: Tracing) -> None:
    shared = "shared text " * 60
    one = make(tracing, 0, **{semconv.INPUT: shared, semconv.OUTPUT: "unmistakable", semconv.METADATA_PREFIX + "a": "1"})
    two = make(tracing, 1, **{semconv.INPUT: shared})
    tracing.flush()
    assert await tracing.store.delete_all([one.upper(), "0" * 32]) == 1
    with pytest.raises(NotFound):
        await tracing.store.get(one)
    assert await tracing.store.delete_all([one]) == 0
    assert not (await tracing.store.list(TraceFilter(text="unmistakable"))).traces
    assert (await tracing.store.get(two)).roots[0].input == shared
    assert await delete_where(tracing, TraceFilter()) == [two]
    assert rows(tracing) == {"traces": 0, "spans": 0, "bodies": 0, "labels": 0}
    if tracing._write_engine.dialect.name == "sqlite":
        with tracing.store._engine.connect() as connection:
            terms = connection.execute(text("SELECT count(*) FROM trace_search WHERE trace_search MATCH 'shared'"))
            assert terms.scalar_one() == 0


async def test_stats(tracing: Tracing) -> None:
    for i in range(100):
        make(tracing, i, i + 1, **{
            semconv.OPERATION: "chat", semconv.REQUEST_MODEL: "ab"[i % 2], semconv.KEY_ID: "k", semconv.INPUT_TOKENS: 2,
            semconv.OUTPUT_TOKENS: 3, semconv.COST_USD: 0.5,
        })  # fmt: skip
    tracing.flush()
    (row,) = await tracing.store.stats(TraceFilter())
    assert (row.requests, row.errors, row.input_tokens, row.output_tokens, row.cost_usd) == (100, 0, 200, 300, 50.0)
    assert (row.latency_p50_s, row.latency_p95_s, row.latency_p99_s) == pytest.approx((0.050, 0.095, 0.099))
    by_model = await tracing.store.stats(TraceFilter(), group_by="model")
    assert [(row.group, row.requests) for row in by_model] == [("a", 50), ("b", 50)]
    (day,) = await tracing.store.stats(TraceFilter(key_id="k"), group_by="day")
    assert day.group == "2026-09-21"
    for group in ("key", "name", "service", "status", "provider"):
        assert await tracing.store.stats(TraceFilter(), group_by=group)  # type: ignore[arg-type]


async def test_propagation_joins_two_processes(tracing: Tracing) -> None:
    tracer = tracing.provider.get_tracer("noria.test")
    headers: dict[str, str] = {}
    with tracer.start_as_current_span("client") as client:
        inject(headers)
    with tracer.start_as_current_span("server", context=extract(headers)) as server:
        pass
    assert trace_id_of(server) == trace_id_of(client)
    assert extract({}) is None
    assert extract({"traceparent": "00-xyz"}) is not None
    tracing.flush()
    tree = await tracing.store.get(trace_id_of(client) or "")
    assert tree.roots[0].children[0].name == "server"


async def test_the_event_loop_goes_on_while_reading(tracing: Tracing) -> None:
    make(tracing)
    tracing.flush()
    pages = await asyncio.gather(*(tracing.store.list(TraceFilter()) for _ in range(20)))
    assert all(len(page.traces) == 1 for page in pages)


async def test_what_few_traces_have_is_found_without_walking_all(tracing: Tracing) -> None:
    """SQLite's planner, left alone, walks every trace in the page's order and asks of each if it is among the chosen."""
    if not str(tracing.store._engine.url).startswith("sqlite"):
        pytest.skip("the hint is SQLite's")
    make(tracing, **{semconv.METADATA_PREFIX + "ticket": "77", semconv.INPUT: "an unmistakable word"})
    tracing.flush()
    for wanted in (TraceFilter(metadata={"ticket": "77"}), TraceFilter(text="unmistakable")):
        with tracing.store._engine.connect() as connection:
            matched = _query.matching(connection, wanted)
            query = _query.page(matched, connection, "newest", None, 50)
            written = query.compile(connection, compile_kwargs={"literal_binds": True})
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {written}").all()
        assert "PRIMARY KEY" in plan[0].detail, plan
