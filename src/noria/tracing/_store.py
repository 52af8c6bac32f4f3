"""Traces out: lists, trees, sums, deletion. What the server's routes, the console and datasets read.

Reads run in threads on connections that cannot write; deletions go through the writer's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from noria.errors import InvalidRequest, NotFound
from noria.store import explain_failure
from noria.tracing import _query, _stats
from noria.tracing._deletion import delete_traces, give_back_pages
from noria.tracing._metrics import Metrics
from noria.tracing._query import MAX_LIMIT, Order, TraceFilter
from noria.tracing._records import DEFAULT_PROJECT
from noria.tracing._schema import open_engine, spans, traces
from noria.tracing._stats import GroupBy, StatsRow
from noria.tracing._summary import ERROR
from noria.tracing._tree import SpanNode, build_tree, load_spans
from noria.tracing._writer import SpanWriter

_Result = TypeVar("_Result")
_LONGEST_NS = 2 * 3600 * 10**9


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """A line of a list of traces."""

    trace_id: str
    project: str
    start_ns: int
    end_ns: int
    duration_ns: int
    name: str
    status: Literal["ok", "error"]
    error_type: str | None
    model: str | None
    service: str | None
    key_id: str | None
    session_id: str | None
    user_id: str | None
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cost_usd: float
    ttft_s: float | None
    span_count: int
    error_count: int
    input_preview: str | None
    output_preview: str | None


@dataclass(frozen=True, slots=True)
class TracePage:
    """Some traces; `after` of the next page, None at the end.

    `text_capped`: so many spans of the project and time hold the words that only the newest of them were looked at.
    """

    traces: tuple[TraceSummary, ...]
    next_cursor: str | None
    text_capped: bool = False


@dataclass(frozen=True, slots=True)
class TraceTree:
    """One trace; `roots` are the spans whose parents are not (yet) here, in order of time."""

    summary: TraceSummary
    roots: tuple[SpanNode, ...]


class TraceStore:
    """The reading side of the trace store."""

    def __init__(self, url: str, writer: SpanWriter, metrics: Metrics, *, readers: int) -> None:
        self._engine = open_engine(url, writer=False, pool_size=readers)
        self._threads = ThreadPoolExecutor(readers, thread_name_prefix="noria-traces")
        self._writer, self._metrics = writer, metrics

    async def list(self, wanted: TraceFilter, *, order: Order = "newest", after: str | None = None, limit: int = 50) -> TracePage:
        """One page of the traces that match. Traces that arrive meanwhile do not shift later pages."""
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidRequest(f"limit must be between 1 and {MAX_LIMIT}, not {limit}.", param="limit")

        def read(connection: Connection) -> TracePage:
            matched = _query.matching(connection, wanted)
            if matched.nothing:
                return TracePage((), None)
            rows = connection.execute(_query.page(matched, connection, order, after, limit)).all()
            cursor = _query.encode_cursor(order, rows[limit - 1]) if len(rows) > limit else None
            return TracePage(tuple(map(_summary, rows[:limit])), cursor, matched.older_than is not None)

        return await self._read(read)

    async def get(self, trace_id: str, *, project: str = DEFAULT_PROJECT) -> TraceTree:
        """A trace with all its spans, nested, with what went in and out of each. Raises NotFound."""

        def read(connection: Connection) -> TraceTree:
            row = _find(connection, project, trace_id)
            return TraceTree(_summary(row), build_tree(load_spans(connection, {row.id: row.trace_id})[row.trace_id]))

        return await self._read(read)

    async def span(self, trace_id: str, span_id: str, *, project: str = DEFAULT_PROJECT) -> SpanNode:
        """One span without its children. Raises NotFound."""

        def read(connection: Connection) -> SpanNode:
            row = _find(connection, project, trace_id)
            found = load_spans(connection, {row.id: row.trace_id}, span_id.lower())[row.trace_id]
            if not found:
                raise NotFound(f"There is no span {span_id!r} in trace {trace_id!r}.", param="span_id")
            return found[0]

        return await self._read(read)

    async def spans_of(self, trace_ids: Sequence[str], *, project: str = DEFAULT_PROJECT) -> dict[str, list[SpanNode]]:
        """The spans of several traces in order of time, without nesting; traces that are not there are left out."""

        def read(connection: Connection) -> dict[str, list[SpanNode]]:
            here = (traces.c.project == project) & traces.c.trace_id.in_([trace_id.lower() for trace_id in trace_ids])
            found = connection.execute(select(traces.c.id, traces.c.trace_id).where(here)).all()
            return load_spans(connection, {row.id: row.trace_id for row in found})

        return await self._read(read)

    async def trace_with_span(self, span_id: str, near_ns: int, *, project: str = DEFAULT_PROJECT) -> str | None:
        """The trace that holds a span of this id and began within two hours before `near_ns`; None if there is none."""

        def read(connection: Connection) -> str | None:
            began = traces.c.start_ns.between(near_ns - _LONGEST_NS, near_ns + 10**9)
            query = select(traces.c.trace_id).join(spans, spans.c.trace == traces.c.id)
            query = query.where(traces.c.project == project, began, spans.c.span_id == span_id)
            return connection.execute(query.order_by(traces.c.start_ns.desc()).limit(1)).scalar_one_or_none()

        return await self._read(read)

    async def count(self, wanted: TraceFilter) -> int:
        """How many traces match."""
        return await self._read(partial(_count, wanted=wanted))

    async def stats(self, wanted: TraceFilter, *, group_by: GroupBy = "none") -> list[StatsRow]:
        """Requests, errors, latency percentiles, tokens and cost of the matching traces, by group.

        By `model` or `provider` it counts model calls (spans), by anything else whole traces.
        """

        def read(connection: Connection) -> list[StatsRow]:
            matched = _query.matching(connection, wanted)
            return [] if matched.nothing else _stats.grouped(connection, matched.where(), group_by)

        return await self._read(read)

    async def ids(self, wanted: TraceFilter, limit: int) -> AsyncIterator[list[str]]:
        """All traces that match, some at a time and in no order; those given must be deleted before the next are asked for."""
        before: int | None = None
        while True:
            found, before = await self._read(partial(_some_ids, wanted=wanted, limit=limit, before=before))
            if not found:
                return
            yield found

    async def delete_all(self, trace_ids: Sequence[str], *, project: str = DEFAULT_PROJECT) -> int:
        """Remove these traces, as far as they are there; how many there were."""

        def read(connection: Connection) -> list[int]:
            here = (traces.c.project == project) & traces.c.trace_id.in_([trace_id.lower() for trace_id in trace_ids])
            return list(connection.execute(select(traces.c.id).where(here)).scalars())

        ids = await self._read(read)
        return await self._delete(ids) if ids else 0

    async def _delete(self, ids: list[int]) -> int:
        def run(engine: Any) -> int:
            deleted = delete_traces(engine, ids)
            give_back_pages(engine)
            return deleted

        try:
            deleted = await asyncio.wrap_future(self._writer.submit(run))
        except SQLAlchemyError as error:
            raise explain_failure(error) or error from error
        self._metrics.traces_deleted.labels("request").inc(deleted)
        return deleted

    async def _read(self, query: Callable[[Connection], _Result]) -> _Result:
        def run() -> _Result:
            try:
                with self._engine.connect() as connection:
                    return query(connection)
            except SQLAlchemyError as error:
                raise explain_failure(error) or error from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def close(self) -> None:
        """Close the reading connections."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._engine.dispose()


_SUMMARY = tuple(field.name for field in fields(TraceSummary))


def _summary(row: Any) -> TraceSummary:
    values = {name: getattr(row, name) for name in _SUMMARY}
    values["status"] = "error" if row.status == ERROR else "ok"
    return TraceSummary(**values)


def _find(connection: Connection, project: str, trace_id: str) -> Any:
    here = (traces.c.project == project) & (traces.c.trace_id == trace_id.lower())
    row = connection.execute(select(traces).where(here)).one_or_none()
    if row is None:
        raise NotFound(f"There is no trace {trace_id!r}.", param="trace_id")
    return row


def _some_ids(connection: Connection, wanted: TraceFilter, limit: int, before: int | None) -> tuple[list[str], int | None]:
    """Some that match, of a text search from the first spans that have any; and where those begin."""
    while True:
        matched = _query.matching(connection, wanted, before)
        if matched.nothing:
            return [], before
        found = list(connection.execute(select(traces.c.trace_id).where(matched.where()).limit(limit)).scalars())
        if found or matched.older_than is None:
            return found, before
        before = matched.older_than


def _count(connection: Connection, wanted: TraceFilter) -> int:
    """How many match, however many spans hold the words."""
    matched = _query.matching(connection, wanted)
    if matched.older_than is None:
        query = select(func.count()).select_from(traces).where(matched.where())
        return 0 if matched.nothing else connection.execute(query).scalar_one()
    found: set[int] = set()
    while not matched.nothing:
        found.update(connection.execute(select(traces.c.id).where(matched.where())).scalars())
        if matched.older_than is None:
            break
        matched = _query.matching(connection, wanted, matched.older_than)
    return len(found)
