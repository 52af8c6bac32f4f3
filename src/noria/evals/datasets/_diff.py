"""What changed from one version to another: rows added, removed, and those whose input stayed while something else changed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import and_, not_, select

from noria.store import Database, DatasetRow

from ._content import conversation_key
from ._versions import ROW_COLUMNS, Row, alive, chunks, read_rows

__all__ = ["Change", "Diff", "diff_versions", "load_rows"]

_CHUNK = 400


@dataclass(frozen=True, slots=True)
class Change:
    """`before` is None for a row added, `after` for one removed; both are ids."""

    kind: Literal["added", "removed", "changed"]
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Diff:
    """Changes in the order in which the rows came: changed ones first, then removed, then added."""

    changes: Sequence[Change]

    def count(self, kind: str) -> int:
        return sum(change.kind == kind for change in self.changes)


async def diff_versions(database: Database, dataset_id: str, before: int, after: int) -> Diff:
    gone = await _only_in(database, dataset_id, before, after)
    came = await _only_in(database, dataset_id, after, before)
    both = {row_id for row_id, _ in gone} & {row_id for row_id, _ in came}  # taken out and put back
    came_by: defaultdict[str, list[str]] = defaultdict(list)
    for row_id, key in came:
        if row_id not in both:
            came_by[key].append(row_id)
    changed: list[Change] = []
    removed: list[Change] = []
    for row_id, key in gone:
        if row_id in both:
            continue
        if same := came_by.get(key):
            changed.append(Change("changed", row_id, same.pop(0)))
        else:
            removed.append(Change("removed", row_id, None))
    left = {row_id for ids in came_by.values() for row_id in ids}
    return Diff([*changed, *removed, *(Change("added", None, row_id) for row_id, _ in came if row_id in left)])


async def _only_in(database: Database, dataset_id: str, here: int, there: int) -> list[tuple[str, str]]:
    """Rows of one version that are not in another, each with what its input is known by."""
    found: list[tuple[str, str]] = []
    last = 0
    while True:
        query = select(*ROW_COLUMNS).where(
            DatasetRow.dataset_id == dataset_id, DatasetRow.ordinal > last, and_(alive(here), not_(alive(there)))
        )
        async with database.read() as session:
            rows = (await session.execute(query.order_by(DatasetRow.ordinal).limit(_CHUNK))).all()
        found += await asyncio.to_thread(
            lambda rows=rows: [(row.row_id, conversation_key(row.content)) for row in read_rows(rows)]
        )
        if len(rows) < _CHUNK:
            return found
        last = rows[-1][0]


async def load_rows(database: Database, dataset_id: str, row_ids: Iterable[str]) -> dict[str, Row]:
    """Rows by id, as they stood when they were last there; erased ones are left out."""
    found: dict[str, Row] = {}
    for chunk in chunks(sorted(set(row_ids)), _CHUNK):
        query = select(*ROW_COLUMNS).where(
            DatasetRow.dataset_id == dataset_id, DatasetRow.row_id.in_(chunk), DatasetRow.erased_at.is_(None),
            DatasetRow.staged.is_(None),
        )  # fmt: skip
        async with database.read() as session:
            rows = (await session.execute(query.order_by(DatasetRow.ordinal))).all()
        found |= {row.row_id: row for row in read_rows(rows)}
    return found
