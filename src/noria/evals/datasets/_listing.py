"""A page of a version's rows, by split, metadata and words in their texts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Text, cast, select

from noria.messages import text_of
from noria.store import Cursor, Database, DatasetRow, Page, has_entries

from ._versions import ROW_COLUMNS, Row, alive, read_rows

__all__ = ["RowFilter", "list_rows"]

_SCANNED = 500


@dataclass(frozen=True, slots=True)
class RowFilter:
    """`text` occurs in a message or an answer, whatever its case; `metadata` pairs must be equal."""

    split: str | None = None
    text: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


async def list_rows(database: Database, dataset_id: str, version: int, wanted: RowFilter, cursor: Cursor) -> Page[Row]:
    """Oldest first when the cursor's order is `asc`. Its `after` is a row's id."""
    falling = cursor.order == "desc"
    query = select(*ROW_COLUMNS).where(DatasetRow.dataset_id == dataset_id, alive(version))
    if wanted.split is not None:
        query = query.where(DatasetRow.split == wanted.split)
    query = query.where(*has_entries(DatasetRow.content["metadata"], wanted.metadata))
    if wanted.text:
        query = query.where(_may_hold(database, wanted.text))
    query = query.order_by(DatasetRow.ordinal.desc() if falling else DatasetRow.ordinal)
    last: int | None = None
    found: list[Row] = []
    async with database.read() as session:
        if cursor.after is not None:
            here = (DatasetRow.dataset_id == dataset_id, DatasetRow.row_id == cursor.after, alive(version))
            last = await session.scalar(select(DatasetRow.ordinal).where(*here))
        while len(found) <= cursor.limit:
            step = query if last is None else query.where(DatasetRow.ordinal < last if falling else DatasetRow.ordinal > last)
            rows = (await session.execute(step.limit(_SCANNED if wanted.text else cursor.limit + 1))).all()
            read = await asyncio.to_thread(read_rows, rows)
            found += [row for row in read if not wanted.text or _holds(row, wanted.text)]
            if len(rows) < (_SCANNED if wanted.text else cursor.limit + 1):
                break
            last = rows[-1][0]
    return Page(found[: cursor.limit], len(found) > cursor.limit)


def _may_hold(database: Database, text: str) -> Any:
    """A first look inside the stored JSON, where SQLite has other than ASCII escaped; `_holds` decides."""
    plain = text.isascii()
    packed = json.dumps(text, ensure_ascii=database.is_sqlite)[1:-1]
    pattern = "%" + packed.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    stored = cast(DatasetRow.content, Text)
    # Only ASCII is matched without regard to case in the database; for the rest `text` must be written as it stands.
    return stored.ilike(pattern, escape="\\") if plain or not database.is_sqlite else stored.like(pattern, escape="\\")


def _holds(row: Row, text: str) -> bool:
    answers = [row.content[name] for name in ("expected", "chosen", "rejected") if name in row.content]
    wanted = text.casefold()
    return any(wanted in text_of(message.get("content")).casefold() for message in [*row.content["messages"], *answers])
