"""Takes traces out: rows, words and the bodies that nobody uses any more.

Also retention: what is too old, or too much, goes in small batches, oldest first, between two groups of spans.
"""

from __future__ import annotations

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
            ids = [] if merge else self._surplus(connection)
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

    def _surplus(self, connection: Connection) -> list[int]:
        oldest_first = select(traces.c.id).order_by(traces.c.start_ns).limit(STEP_TRACES)
        ids: list[int] = []
        if self._policy.max_age_s is not None:
            oldest_ns = time.time_ns() - int(self._policy.max_age_s * 1e9)
            ids = list(connection.execute(oldest_first.where(traces.c.start_ns < oldest_ns)).scalars())
        if not ids and self._policy.max_bytes is not None and used_bytes(connection) > self._policy.max_bytes:
            ids = list(connection.execute(oldest_first).scalars())
        return ids


def _merge_words(engine: Engine, pages: int) -> bool:
    """Merge some pages of the text index (negative: begin anew); False when it is all one piece."""
    with engine.begin() as connection:
        before = connection.exec_driver_sql("SELECT total_changes()").scalar_one()
        connection.execute(text("INSERT INTO trace_search (trace_search, rank) VALUES ('merge', :n)"), {"n": pages})
        # https://www.sqlite.org/fts5.html#the_merge_command: fewer than two changes mean that nothing was left to do.
        return connection.exec_driver_sql("SELECT total_changes()").scalar_one() - before >= 2


def used_bytes(connection: Connection) -> int:
    """The size of what the database holds. On PostgreSQL dead rows count until its own vacuum has been there."""
    if connection.dialect.name == "postgresql":
        tables = ("traces", "trace_spans", "trace_bodies", "trace_labels", "trace_search")
        total = " + ".join(f"pg_total_relation_size('{table}')" for table in tables)
        return int(connection.execute(text(f"SELECT {total}")).scalar_one())
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    return (pages - free) * size


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
