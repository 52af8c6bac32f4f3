"""Filters, orders and cursors of trace lists, as SQL.

A page is cut by the last row's sort value and id, so that traces arriving meanwhile move nothing. On SQLite, which
keeps no statistics here, the index to start from is chosen by counting how much each condition leaves, up to a limit.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, exists, func, or_, select, text

from noria.errors import InvalidRequest
from noria.tracing import _words
from noria.tracing._records import DEFAULT_PROJECT
from noria.tracing._schema import labels, traces
from noria.tracing._semconv import PROMPT_ID, PROMPT_NAME, PROMPT_VERSION
from noria.tracing._summary import ERROR, OK

Order = Literal["newest", "oldest", "slowest", "costliest", "most_tokens"]

_t = traces.c
_ORDERS: dict[str, tuple[ColumnElement[Any], bool]] = {
    "newest": (_t.start_ns, True),
    "oldest": (_t.start_ns, False),
    "slowest": (_t.duration_ns, True),
    "costliest": (_t.cost_usd, True),
    "most_tokens": (_t.total_tokens, True),
}
# Below this many rows, collecting and sorting them beats walking the traces in order until a page is full.
_FEW = 8_000
# How far the rows of a common condition are counted, to walk along the rarest of several.
_MANY = 30_000
# Spans of a project and time that a text search looks at, newest first.
TEXT_SPANS = 5_000
_ON_SQLITE = {"join": "CROSS JOIN", "hit": "trace_search.rowid", "match": "trace_search MATCH :query"}
_ON_POSTGRES = {"join": "JOIN", "hit": "trace_search.id", "match": "words @@ CAST(:query AS tsquery)"}
MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """Which traces; every condition given must hold. Times are Unix nanoseconds, `from_ns` included, `to_ns` not.

    `text` is words that must all occur in one span's messages, inputs or outputs; `metadata` pairs must all be equal.
    `prompt` is the id or name of a stored prompt, `prompt_version` one of its versions.
    """

    project: str = DEFAULT_PROJECT
    from_ns: int | None = None
    to_ns: int | None = None
    model: str | None = None
    key_id: str | None = None
    status: Literal["ok", "error"] | None = None
    name: str | None = None
    service: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    min_latency_s: float | None = None
    max_latency_s: float | None = None
    min_cost_usd: float | None = None
    max_cost_usd: float | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    text: str | None = None
    prompt: str | None = None
    prompt_version: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a filter, with the index that answers it (None: none does)."""

    clause: ColumnElement[bool]
    index: str | None = None
    ordered: bool = False  # within the index, rows lie by time
    chosen: bool = False  # it names the few rows there can be


@dataclass(frozen=True, slots=True)
class Matching:
    """The conditions of a filter. `older_than`: the words also occur in spans older than this one, not looked at."""

    conditions: list[Condition]
    older_than: int | None = None
    nothing: bool = False

    def where(self) -> ColumnElement[bool]:
        return and_(*(condition.clause for condition in self.conditions))


def matching(connection: Connection, wanted: TraceFilter, before: int | None = None) -> Matching:
    """The SQL conditions of a filter; with `before` (see `Matching.older_than`) of a text search's next spans."""
    project = _t.project == wanted.project
    found = [Condition(project)]
    status = {None: None, "ok": OK, "error": ERROR}[wanted.status]
    for column, value in (
        (_t.status, status),
        (_t.model, wanted.model),
        (_t.name, wanted.name),
        (_t.service, wanted.service),
        (_t.key_id, wanted.key_id),
        (_t.session_id, wanted.session_id),
        (_t.user_id, wanted.user_id),
    ):
        if value is not None:
            found.append(Condition(column == value, f"traces_by_{column.name}", ordered=True))
    for column, low, high in (
        (_t.duration_ns, _ns(wanted.min_latency_s), _ns(wanted.max_latency_s)),
        (_t.cost_usd, wanted.min_cost_usd, wanted.max_cost_usd),
        (_t.total_tokens, wanted.min_tokens, wanted.max_tokens),
    ):
        bounds = [column >= low] if low is not None else []
        bounds += [column <= high] if high is not None else []
        if bounds:
            found.append(Condition(and_(*bounds), f"traces_by_{column.name}"))
    times = [_t.start_ns >= wanted.from_ns] if wanted.from_ns is not None else []
    times += [_t.start_ns < wanted.to_ns] if wanted.to_ns is not None else []
    if times:
        found.append(Condition(and_(*times), "traces_by_time", ordered=True))
    found += [_label(connection, key[:200], value[:1000]) for key, value in _labels(wanted)]
    if wanted.text is None or not wanted.text.strip():
        return Matching(found)
    return _with_text(connection, wanted, found, before)


def page(matched: Matching, connection: Connection, order: Order, after: str | None, limit: int) -> Select[Any]:
    """The query for one page, with one row more than asked for if there is a next page."""
    column, descending = _ORDERS[order]
    query = select(traces).where(matched.where())
    if after is not None:
        value, row_id = decode_cursor(after, order)
        beyond = column < value if descending else column > value
        tied = _t.id < row_id if descending else _t.id > row_id
        query = query.where(or_(beyond, and_(column == value, tied)))
        # Said twice for SQLite, which cannot start an index walk from the or.
        query = query.where(column <= value if descending else column >= value)
    if connection.dialect.name == "sqlite":
        index = _index(connection, matched, f"traces_by_{'time' if column is _t.start_ns else column.name}")
        # Without a hint the planner would walk the whole index of the page's order, asking of each row if it is chosen.
        query = query.with_hint(traces, f"INDEXED BY {index}" if index is not None else "NOT INDEXED", "sqlite")
    keys = (column.desc(), _t.id.desc()) if descending else (column, _t.id)
    return query.order_by(*keys).limit(limit + 1)


def encode_cursor(order: Order, row: Any) -> str:
    """Where the page after this row begins."""
    column, _ = _ORDERS[order]
    return base64.urlsafe_b64encode(orjson.dumps([order, row._mapping[column], row.id])).decode().rstrip("=")


def decode_cursor(cursor: str, order: Order) -> tuple[float, int]:
    """The sort value and row id in a cursor of this order."""
    try:
        made_for, value, row_id = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidRequest(f"{cursor!r} is not a cursor of a list of traces.", param="after") from error
    numbers = isinstance(value, int | float) and isinstance(row_id, int)
    if made_for != order or not numbers or abs(value) >= 2**63 or abs(row_id) >= 2**63:
        raise InvalidRequest(f"{cursor!r} is not a cursor of a list ordered by {order!r}.", param="after")
    return value, row_id


def _labels(wanted: TraceFilter) -> list[tuple[str, str]]:
    pairs = list(wanted.metadata.items())
    if wanted.prompt is not None:
        pairs.append((PROMPT_ID if wanted.prompt.startswith("pmpt_") else PROMPT_NAME, wanted.prompt))
    if wanted.prompt_version is not None:
        pairs.append((PROMPT_VERSION, str(wanted.prompt_version)))
    return pairs


def _label(connection: Connection, key: str, value: str) -> Condition:
    same = (labels.c.key == key) & (labels.c.value == value)
    some = select(labels.c.trace).where(same).limit(_FEW).subquery()
    if connection.execute(select(func.count()).select_from(some)).scalar_one() < _FEW:
        return Condition(_t.id.in_(select(labels.c.trace).where(same)), chosen=True)
    return Condition(exists().where(labels.c.trace == _t.id, same))


def _with_text(connection: Connection, wanted: TraceFilter, found: list[Condition], before: int | None) -> Matching:
    """Adds the traces of the newest spans that hold the words, of this project and time, older than span `before`."""
    postgres = connection.dialect.name == "postgresql"
    query = _words.tsquery(wanted.text or "") if postgres else _words.fts5_query(wanted.text or "")
    if query is None:
        raise InvalidRequest("There is no word to search for.", param="text")
    values = {"query": query, "project": wanted.project, "most": TEXT_SPANS + 1}
    conditions = ["s.project = :project"]
    for condition, value in (
        ("{hit} < :before", before),
        ("t.start_ns >= :from_ns", wanted.from_ns),
        ("t.start_ns < :to_ns", wanted.to_ns),
    ):
        if value is not None:
            values[condition.split(":")[1]] = value
            conditions.append(condition)
    timed = wanted.from_ns is not None or wanted.to_ns is not None
    # SQLite keeps this order of a cross join: from the words' spans, newest first, to their rows.
    statement = " ".join(
        (
            "SELECT s.id, s.trace FROM trace_search {join} trace_spans s ON s.id = {hit}",
            "{join} traces t ON t.id = s.trace" if timed else "",
            "WHERE {match} AND",
            " AND ".join(conditions),
            "ORDER BY {hit} DESC LIMIT :most",
        )
    ).format(**(_ON_POSTGRES if postgres else _ON_SQLITE))
    hits = connection.execute(text(statement), values).all()
    if not hits:
        return Matching(found, nothing=True)
    # One JSON value instead of thousands of bound ones.
    chosen = text("SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:hits AS json))" if postgres
                  else "SELECT value FROM json_each(:hits)")  # fmt: skip
    ids = list({hit.trace for hit in hits[:TEXT_SPANS]})
    packed = chosen.bindparams(bindparam("hits", orjson.dumps(ids).decode()))
    found.append(Condition(_t.id.in_(packed), chosen=True))  # pyright: ignore[reportArgumentType]
    return Matching(found, older_than=hits[TEXT_SPANS - 1].id if len(hits) > TEXT_SPANS else None)


def _index(connection: Connection, matched: Matching, order_index: str) -> str | None:
    """The index to start from: that of the condition that leaves fewest rows, else the one in the page's order."""
    conditions = matched.conditions
    if any(condition.chosen for condition in conditions):
        return None  # start from the ids
    by_time = order_index == "traces_by_time"
    indexed = [condition for condition in conditions if condition.index is not None]
    if by_time and len(indexed) == 1 and indexed[0].ordered:
        return indexed[0].index  # nothing to choose from
    few: list[tuple[int, str]] = []
    in_order: list[tuple[int, str]] = []
    for condition in indexed:
        most = _MANY if condition.ordered else _FEW
        rows = select(_t.id).with_hint(traces, f"INDEXED BY {condition.index}", "sqlite")
        rows = rows.where(conditions[0].clause, condition.clause).limit(most)
        count = connection.execute(select(func.count()).select_from(rows.subquery())).scalar_one()
        if count < _FEW:
            few.append((count, condition.index or order_index))
        elif condition.ordered:
            in_order.append((count, condition.index or order_index))
    if few:
        return min(few)[1]
    return min(in_order)[1] if in_order and by_time else order_index


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)
