"""Writes a batch of spans in one transaction: bodies, traces, spans, words.

Ids are given out inside the transaction, which holds the database's write lock, so that several processes may write to
one store. Knows nothing about queues and threads.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Table, bindparam, func, select, text, update

from noria.tracing import _normalise, _payload, _words
from noria.tracing import _semconv as sc
from noria.tracing._both_ends import count_once
from noria.tracing._content import Body, Packer, Ref, dump, search_text, without_content
from noria.tracing._normalise import Facts
from noria.tracing._records import SpanRecord, clean_text
from noria.tracing._schema import LOCK, bodies, labels, spans, traces
from noria.tracing._summary import COLUMNS, TraceRow, new_row

RAW, ZLIB = 0, 1
COMPRESS_BYTES = 1024
_CHUNK = 400  # bound values of one statement


@dataclass(slots=True, eq=False)
class _Ready:
    """A span with everything computed that needs no database."""

    record: SpanRecord
    facts: Facts
    tree: dict[str, Any]
    refs: list[Ref]
    previews: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Written:
    """What came of a batch: how many spans were stored, how many were there already, and those that cannot be stored."""

    stored: int
    repeated: int
    malformed: list[SpanRecord]


def write(engine: Engine, records: Sequence[SpanRecord], *, capture: bool) -> Written:
    """Store these spans durably; a span that is already there is left as it is."""
    packer = Packer()
    ready: dict[tuple[str, str, str], _Ready] = {}
    malformed: list[SpanRecord] = []
    for record in records:
        try:
            item = _prepare(record, packer, capture=capture)
        except (TypeError, ValueError, AttributeError, KeyError, RecursionError):
            # One span that cannot be read must not cost the batch; it is counted and reported by the caller.
            malformed.append(record)
            continue
        ready.setdefault((record.project, record.trace_id, record.span_id), item)
    stored = 0
    if ready:
        with engine.begin() as connection:
            stored = _Transaction(connection).run(list(ready.values()))
    return Written(stored, len(records) - len(malformed) - stored, malformed)


def _prepare(record: SpanRecord, packer: Packer, *, capture: bool) -> _Ready:
    attributes = record.attributes
    if record.payload is not None:
        for key, value in _payload.parsed(record.payload).items():
            attributes.setdefault(key, value)
        record.payload = None
    if attributes.pop(sc.CAPTURE, True) is False or not capture:
        without_content(record)
    record.name = clean_text(record.name)[:500]
    record.project = clean_text(record.project)[:200]
    previews = _normalise.preview(record.attributes, record.events)
    tree, refs = packer.pack(record)
    return _Ready(record, _normalise.facts(record.attributes, record.events), tree, refs, previews)


class _Transaction:
    """The steps of one batch, in the order in which they need each other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._postgres = connection.dialect.name == "postgresql"
        if self._postgres:
            connection.execute(select(func.pg_advisory_xact_lock(LOCK)))

    def run(self, items: list[_Ready]) -> int:
        rows = self._known_traces(items)
        fresh = self._without_repeats(items, rows)
        if not fresh:
            return 0
        count_once(self._connection, ((item.record, item.facts) for item in fresh), rows)
        self._store_bodies(fresh)
        known = {row.id for row in rows.values()}
        next_trace = self._next_id(traces.c.id)
        for item in fresh:
            record = item.record
            row = rows.get((record.project, record.trace_id))
            if row is None:
                row = rows[record.project, record.trace_id] = new_row(next_trace, record)
                next_trace += 1
            row.add(record, item.facts, item.previews)
        touched = {(item.record.project, item.record.trace_id) for item in fresh}
        self._store_traces([rows[key] for key in touched], known)
        self._store_spans(fresh, rows)
        self._store_labels(fresh, rows)
        return len(fresh)

    def _known_traces(self, items: list[_Ready]) -> dict[tuple[str, str], TraceRow]:
        wanted = {(item.record.project, item.record.trace_id) for item in items}
        found: dict[tuple[str, str], TraceRow] = {}
        columns = [traces.c[name] for name in COLUMNS]
        for project in {project for project, _ in wanted}:
            for ids in _chunks(trace_id for owner, trace_id in wanted if owner == project):
                query = select(*columns).where(traces.c.project == project, traces.c.trace_id.in_(ids))
                for row in self._connection.execute(query):
                    found[row.project, row.trace_id] = TraceRow(*row)
        return found

    def _without_repeats(self, items: list[_Ready], rows: dict[tuple[str, str], TraceRow]) -> list[_Ready]:
        """The spans that are not stored yet: an exporter that got no answer sends its spans again."""
        stored: set[tuple[int, str]] = set()
        for keys in _chunks(
            (row.id, item.record.span_id) for item in items if (row := rows.get((item.record.project, item.record.trace_id)))
        ):
            query = select(spans.c.trace, spans.c.span_id).where(
                spans.c.trace.in_({trace for trace, _ in keys}), spans.c.span_id.in_({span for _, span in keys})
            )
            stored |= {(row.trace, row.span_id) for row in self._connection.execute(query)}
        if not stored:
            return items
        return [
            item
            for item in items
            if (row := rows.get((item.record.project, item.record.trace_id))) is None
            or (row.id, item.record.span_id) not in stored
        ]

    def _store_bodies(self, items: list[_Ready]) -> None:
        used: dict[bytes, Body] = {}
        for item in items:
            for ref in item.refs:
                body = ref.body
                if body.hash not in used:
                    used[body.hash] = body
                    body.uses, body.owner = 0, item.record
                body.uses += 1
        for hashes in _chunks(used):
            for row in self._connection.execute(select(bodies.c.id, bodies.c.hash).where(bodies.c.hash.in_(hashes))):
                body = used[bytes(row.hash)]
                body.id, body.owner = row.id, None
        old = [{"body": body.id, "more": body.uses} for body in used.values() if body.owner is None]
        new = [body for body in used.values() if body.owner is not None]
        if old:
            statement = update(bodies).where(bodies.c.id == bindparam("body"))
            self._connection.execute(statement.values(uses=bodies.c.uses + bindparam("more")), old)
        if new:
            first = self._next_id(bodies.c.id)
            for place, body in enumerate(new):
                body.id = first + place
            self._insert(bodies, [_body_row(body) for body in new])

    def _store_traces(self, rows: list[TraceRow], known: set[int]) -> None:
        new = [row.values() for row in rows if row.id not in known]
        old = [{"row": row.id, **dict(zip(COLUMNS, row.values(), strict=True))} for row in rows if row.id in known]
        if new:
            self._insert(traces, new)
        if old:
            names = [name for name in COLUMNS if name not in ("id", "project", "trace_id")]
            statement = update(traces).where(traces.c.id == bindparam("row"))
            self._connection.execute(statement.values({name: bindparam(name) for name in names}), old)

    def _store_spans(self, items: list[_Ready], rows: dict[tuple[str, str], TraceRow]) -> None:
        first = self._next_id(spans.c.id)
        found: list[tuple[int, str]] = []
        values: list[tuple[Any, ...]] = []
        for span_id, item in enumerate(items, first):
            row = rows[item.record.project, item.record.trace_id]
            values.append(_span_row(span_id, row.id, item))
            if words := search_text(item.tree):
                found.append((span_id, words))
        self._insert(spans, values)
        add_words(self._connection, found)

    def _store_labels(self, items: list[_Ready], rows: dict[tuple[str, str], TraceRow]) -> None:
        wanted: dict[tuple[int, str], str] = {}
        for item in items:
            row = rows[item.record.project, item.record.trace_id]
            for key, value in item.facts.metadata.items():
                wanted.setdefault((row.id, key), value)
        if not wanted:
            return
        there: set[tuple[int, str]] = set()
        for ids in _chunks({trace for trace, _ in wanted}):
            query = select(labels.c.trace, labels.c.key).where(labels.c.trace.in_(ids))
            there |= {(row.trace, row.key) for row in self._connection.execute(query)}
        new = [(trace, key, value) for (trace, key), value in wanted.items() if (trace, key) not in there]
        if new:
            self._insert(labels, new)

    def _insert(self, table: Table, rows: list[tuple[Any, ...]]) -> None:
        """Insert rows that give every column in the table's order; skips the ORM's handling of each row (30 us a span)."""
        places = ", ".join(["%s" if self._postgres else "?"] * len(table.columns))
        self._connection.exec_driver_sql(f"INSERT INTO {table.name} VALUES ({places})", rows)  # noqa: S608

    def _next_id(self, column: Any) -> int:
        return (self._connection.execute(select(func.max(column))).scalar_one() or 0) + 1


def add_words(connection: Connection, found: list[tuple[int, str]]) -> None:
    """Put spans into the text index."""
    if not found:
        return
    if connection.dialect.name == "postgresql":
        statement = text("INSERT INTO trace_search (id, words) VALUES (:id, array_to_tsvector(:words))")
        rows: list[dict[str, Any]] = [{"id": span, "words": _words.lexemes(clean_text(words))} for span, words in found]
    else:
        statement = text("INSERT INTO trace_search (rowid, text) VALUES (:id, :words)")
        rows = [{"id": span, "words": _words.indexed(clean_text(words))} for span, words in found]
    connection.execute(statement, rows)


def remove_words(connection: Connection, found: list[tuple[int, str]]) -> None:
    """Take spans out of the text index; the words must be those that were put in."""
    if not found:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(text("DELETE FROM trace_search WHERE id = :id"), [{"id": span} for span, _ in found])
    else:
        statement = text("INSERT INTO trace_search (trace_search, rowid, text) VALUES ('delete', :id, :words)")
        connection.execute(statement, [{"id": span, "words": _words.indexed(clean_text(words))} for span, words in found])


def body_data(codec: int, data: bytes) -> bytes:
    """A stored body's content."""
    return zlib.decompress(data) if codec == ZLIB else bytes(data)


def _body_row(body: Body) -> tuple[Any, ...]:
    data, codec = body.data, RAW
    if len(data) >= COMPRESS_BYTES:
        # A window no larger than the text: setting up a 32 KB one takes as long as packing 2 KB.
        packed = zlib.compress(data, 1, wbits=12 if len(data) <= 4096 else 15)
        if len(packed) < len(data):
            data, codec = packed, ZLIB
    return (body.id, body.hash, body.uses, codec, data)


def _span_row(span_id: int, trace: int, item: _Ready) -> tuple[Any, ...]:
    """The columns of `spans`, in its order."""
    record, found = item.record, item.facts
    return (
        span_id,
        trace,
        record.span_id,
        record.parent_id,
        record.project,
        record.name,
        record.kind,
        found.operation,
        record.start_ns,
        record.end_ns - record.start_ns,
        record.status,
        found.error_type,
        found.model,
        found.provider,
        clean_text(str(record.resource.get("service.name") or "")[:200]) or None,
        found.key_id,
        found.input_tokens,
        found.output_tokens,
        found.cost_usd,
        found.ttft_s,
        int(found.counted),
        dump(item.tree),
    )


def _chunks(values: Iterable[Any]) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for value in values:
        chunk.append(value)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def load_tree(rest: bytes) -> dict[str, Any]:
    """A stored span's tree."""
    return orjson.loads(rest)
