"""Cursor pagination as OpenAI's lists do it (`limit`, `order`, `after`, `before`), by range scans on the id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from noria.errors import InvalidRequest

__all__ = ["Cursor", "Page", "page"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cursor:
    """`limit` 1 to 10,000; `after` and `before` are ids, either or both None."""

    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    before: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= 10_000:
            raise InvalidRequest(f"limit = {self.limit} is outside 1 to 10000.", param="limit")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    data: Sequence[T]
    has_more: bool


async def page(session: AsyncSession, query: Select[T], key: InstrumentedAttribute[Any], cursor: Cursor) -> Page[T]:
    """One page of `query` ordered by `key`, which must be unique and rise with time.

    `before` alone gives the rows next to the cursor, as OpenAI does, in the order asked for.
    """
    descending = cursor.order == "desc"
    if cursor.after is not None:
        query = query.where(key < cursor.after if descending else key > cursor.after)
    if cursor.before is not None:
        query = query.where(key > cursor.before if descending else key < cursor.before)
    backwards = cursor.before is not None and cursor.after is None
    falling = descending != backwards
    query = query.order_by(key.desc() if falling else key.asc()).limit(cursor.limit + 1)
    rows = list((await session.scalars(query)).all())
    has_more = len(rows) > cursor.limit
    rows = rows[: cursor.limit]
    return Page(rows[::-1] if backwards else rows, has_more)
