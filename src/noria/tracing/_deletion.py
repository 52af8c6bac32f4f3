"""Takes traces out: rows, words and the bodies that nobody uses any more.

Also retention: what is too old, or too much, goes in small batches, oldest first, between two groups of spans.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, bindparam, delete, func, select, text, update

from noria.tracing._batch import body_data, load_tree, remove_words
from noria.tracing._content import body_ids, search_text
from noria.tracing._schema import LOCK, bodies, labels, spans, traces

_CHUNK = 400
STEP_TRACES = 100
_FREE_PAGES = 2000  # given back to the file system in one step
_MERGE_PAGES = 500
_PASS_TRACES = 2000  # deleted on PostgreSQL before its size is estimated again
_SAMPLE_BYTES = 16 * 2**20  # of each table's pages, read for an estimate
_ROW_BYTES = 28  # a row's header and its place in the page
_POSTGRES_COLUMNS = {table.name: list(table.columns.keys()) for table in (traces, spans, bodies, labels)} | {
    "trace_search": ["id", "words"]
}


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """What may be kept; None is no limit. `max_bytes` is of the content in the database, not of free pages in its file."""

    max_age_s: float | None = None
    max_bytes: int | None = None


def delete_traces(engine: Engine, ids: list[int]) -> int:
    """Delete these traces (by row id) in one transaction; how many there were."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
        used: Counter[int] = Counter()
        for place in range(0, len(ids), _CHUNK):
            used += _take_out_spans(connection, ids[place : place + _CHUNK])
        _release(connection, used)
        deleted = 0
        for place in range(0, len(ids), _CHUNK):
            chunk = ids[place : place + _CHUNK]
            connection.execute(delete(labels).where(labels.c.trace.in_(chunk)))
            connection.execute(delete(spans).where(spans.c.trace.in_(chunk)))
            deleted += connection.execute(delete(traces).where(traces.c.id.in_(chunk))).rowcount
    return deleted


def _take_out_spans(connection: Connection, ids: list[int]) -> Counter[int]:
    """Remove the spans' words; how often they use which body."""
    used: Counter[int] = Counter()
    trees = {
        row.id: load_tree(row.rest) for row in connection.execute(select(spans.c.id, spans.c.rest).where(spans.c.trace.in_(ids)))
    }
    for tree in trees.values():
        used.update(body_ids(tree))
    if connection.dialect.name == "postgresql":
        remove_words(connection, [(span, "") for span in trees])
        return used
    data = read_bodies(connection, list(used))
    found = ((span, search_text(tree, data.__getitem__)) for span, tree in trees.items())
    remove_words(connection, [(span, words) for span, words in found if words])
    return used


def read_bodies(connection: Connection, ids: list[int]) -> dict[int, bytes]:
    """The content of these bodies by id."""
    data: dict[int, bytes] = {}
    for place in range(0, len(ids), _CHUNK):
        query = select(bodies.c.id, bodies.c.codec, bodies.c.data).where(bodies.c.id.in_(ids[place : place + _CHUNK]))
        data |= {row.id: body_data(row.codec, row.data) for row in connection.execute(query)}
    return data


def _release(connection: Connection, used: Counter[int]) -> None:
    if not used:
        return
    statement = update(bodies).where(bodies.c.id == bindparam("body"))
    connection.execute(
        statement.values(uses=bodies.c.uses - bindparam("less")),
        [{"body": body, "less": uses} for body, uses in used.items()],
    )
    gone = delete(bodies).where(bodies.c.id == bindparam("body"), bodies.c.uses <= 0)
    connection.execute(gone, [{"body": body} for body in used])


class Retention:
    """Deletes what is too old or too much, a little at each step; the writer takes turns between it and spans."""

    def __init__(self, policy: RetentionPolicy) -> None:
        self._policy = policy
        self._surplus = 0  # traces that may still go before the size is measured again
        self._unmerged = 0  # traces deleted whose words still take room in the text index
        self._merging = False
        self.deleted = 0

    @property
    def unlimited(self) -> bool:
        return self._policy.max_age_s is None and self._policy.max_bytes is None

    def step(self, engine: Engine) -> bool:
        """Do one small piece of work; True if there is more to do at once."""
        if self._merging:
            self._merging = _merge_words(engine, _MERGE_PAGES)
            give_back_pages(engine)
            return True
        with engine.connect() as connection:
            left = connection.execute(select(func.count()).select_from(traces)).scalar_one() if self._unmerged else 0
            # SQLite's text index notes deletions and frees their room when it next merges. Without merging now,
            # a limit by size would see no effect and delete on and on.
            merge = self._unmerged > max(STEP_TRACES, left // 10) or (self._unmerged > 0 and left == 0)
            ids = [] if merge else self._wanted(connection)
        if merge:
            self._unmerged, self._merging = 0, _merge_words(engine, -_MERGE_PAGES)
            return True
        if not ids:
            return False
        deleted = delete_traces(engine, ids)
        self.deleted += deleted
        if engine.dialect.name == "sqlite":
            self._unmerged += deleted
        give_back_pages(engine)
        return True

    def _wanted(self, connection: Connection) -> list[int]:
        """The traces to delete next."""
        oldest_first = select(traces.c.id).order_by(traces.c.start_ns).limit(STEP_TRACES)
        ids: list[int] = []
        if self._policy.max_age_s is not None:
            oldest_ns = time.time_ns() - int(self._policy.max_age_s * 1e9)
            ids = list(connection.execute(oldest_first.where(traces.c.start_ns < oldest_ns)).scalars())
        if not ids and self._policy.max_bytes is not None:
            self._surplus = self._surplus or surplus(connection, self._policy.max_bytes)
            ids = list(connection.execute(oldest_first.limit(min(STEP_TRACES, self._surplus))).scalars())
            self._surplus -= len(ids)
        return ids


def surplus(connection: Connection, max_bytes: int) -> int:
    """How many traces of average size hold what is beyond this, at most as many as should go before measuring again."""
    used = used_bytes(connection, max_bytes)
    if used <= max_bytes:
        return 0
    count = connection.execute(select(func.count()).select_from(traces)).scalar_one()
    return min(math.ceil(count * (1 - max_bytes / used)), STEP_TRACES if connection.dialect.name == "sqlite" else _PASS_TRACES)


def _merge_words(engine: Engine, pages: int) -> bool:
    """Merge some pages of the text index (negative: begin anew); False when it is all one piece."""
    with engine.begin() as connection:
        before = connection.exec_driver_sql("SELECT total_changes()").scalar_one()
        connection.execute(text("INSERT INTO trace_search (trace_search, rank) VALUES ('merge', :n)"), {"n": pages})
        # https://www.sqlite.org/fts5.html#the_merge_command: fewer than two changes mean that nothing was left to do.
        return connection.exec_driver_sql("SELECT total_changes()").scalar_one() - before >= 2


def used_bytes(connection: Connection, enough: int = 0) -> int:
    """The size of what the database holds; where that is laborious, any number up to `enough` means that it is no more."""
    if connection.dialect.name == "postgresql":
        return _postgres_bytes(connection, enough)
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    return (pages - free) * size


def _postgres_bytes(connection: Connection, enough: int) -> int:
    """PostgreSQL's tables keep their size when rows are deleted, also after its vacuum: so rows are weighed, not files.

    Of a large table some pages only are looked at. Its indexes are taken to be as full as the table itself.
    """
    sizes = "SELECT pg_relation_size(:table), pg_table_size(:table), pg_total_relation_size(:table)"
    found = {name: connection.execute(text(sizes), {"table": name}).one() for name in _POSTGRES_COLUMNS}
    files = sum(total for _, _, total in found.values())
    if files <= enough:
        return files
    used = 0.0
    for name, (heap, table, total) in found.items():
        percent = min(100.0, 100 * _SAMPLE_BYTES / max(1, heap))
        row = " + ".join(f"coalesce(pg_column_size({column}), 0)" for column in _POSTGRES_COLUMNS[name])
        query = f"SELECT coalesce(sum({_ROW_BYTES} + {row}), 0) FROM {name} TABLESAMPLE SYSTEM ({percent})"  # noqa: S608
        live = int(connection.execute(text(query)).scalar_one()) * 100 / percent
        used += total * min(1.0, live / max(1, table))
    return int(used)


def give_back_pages(engine: Engine) -> None:
    """Let SQLite's file shrink by some of its free pages; a full VACUUM would stop the writer for minutes."""
    if engine.dialect.name != "sqlite":
        return
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        # Each page is a step of the statement, and sqlite3's `execute` takes only one where no columns come back.
        cursor.executescript(f"PRAGMA incremental_vacuum({_FREE_PAGES})")
        cursor.close()
    finally:
        raw.close()
