"""Pages of rows: whatever the order, the limits and what is added or removed meanwhile, a walk sees each row that stays once."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from noria.store import Cursor, page


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "row"
    id: Mapped[str] = mapped_column(String(8), primary_key=True)


class Rows:
    """A table of ids in memory, read as the store reads: `page` asks its session for `scalars` and nothing else."""

    def __init__(self, ids: set[str]) -> None:
        self._engine = create_engine("sqlite://", poolclass=StaticPool)
        Base.metadata.create_all(self._engine)
        self.change(ids, set())

    def change(self, added: set[str], removed: set[str]) -> None:
        with Session(self._engine) as session:
            for name in added:
                session.merge(Row(id=name))
            session.flush()
            for name in removed:
                if (row := session.get(Row, name)) is not None:
                    session.delete(row)
            session.commit()

    def page(self, cursor: Cursor) -> tuple[list[str], bool]:
        with Session(self._engine) as session:
            found = asyncio.run(page(_Async(session), select(Row), Row.id, cursor))  # type: ignore[arg-type]
            return [row.id for row in found.data], found.has_more


class _Async:
    """The one method of an asynchronous session that is used, over a plain one."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def scalars(self, query: Any) -> Any:
        return self._session.scalars(query)


Order = Literal["asc", "desc"]
IDS = st.sets(st.integers(0, 60).map(lambda number: f"{number:03d}"), max_size=25)
ORDERS: Any = st.sampled_from(["asc", "desc"])


def walk(rows: Rows, order: Order, limits: list[int], changes: list[tuple[set[str], set[str]]]) -> list[str]:
    """All pages one after another; between two pages something may change."""
    seen: list[str] = []
    after, step = None, 0
    while True:
        found, more = rows.page(Cursor(limits[step % len(limits)], order, after))
        assert more is False or len(found) == limits[step % len(limits)]
        seen += found
        if not more:
            return seen
        after = found[-1]
        if step < len(changes):
            rows.change(*changes[step])
        step += 1
        assert step < 200


@settings(max_examples=30, deadline=None)
@given(IDS, ORDERS, st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_pages_one_after_another_are_the_list(ids: set[str], order: Order, limits: list[int]) -> None:
    assert walk(Rows(ids), order, limits, []) == sorted(ids, reverse=order == "desc")


@settings(max_examples=30, deadline=None)
@given(IDS, ORDERS, st.lists(st.integers(1, 7), min_size=1, max_size=4), st.lists(st.tuples(IDS, IDS), max_size=4))
def test_what_stays_is_seen_once_whatever_comes_and_goes(
    ids: set[str], order: Order, limits: list[int], changes: list[tuple[set[str], set[str]]]
) -> None:
    seen = walk(Rows(ids), order, limits, changes)
    assert seen == sorted(set(seen), reverse=order == "desc")
    removed = set().union(*(gone for _, gone in changes))
    assert ids - removed <= set(seen)
    assert set(seen) <= ids.union(*(added for added, _ in changes))


@settings(max_examples=30, deadline=None)
@given(IDS, ORDERS, st.integers(1, 7), st.integers(0, 60).map(lambda number: f"{number:03d}"))
def test_before_gives_the_rows_next_to_the_cursor(ids: set[str], order: Order, limit: int, before: str) -> None:
    found, more = Rows(ids).page(Cursor(limit, order, before=before))
    earlier = [name for name in sorted(ids, reverse=order == "desc") if (name > before if order == "desc" else name < before)]
    assert found == earlier[-limit:]
    assert more == (len(earlier) > limit)


@settings(max_examples=30, deadline=None)
@given(IDS, ORDERS, st.integers(1, 7), st.integers(0, 60), st.integers(0, 60))
def test_both_cursors_bound_the_page(ids: set[str], order: Order, limit: int, after: int, before: int) -> None:
    found, more = Rows(ids).page(Cursor(limit, order, f"{after:03d}", f"{before:03d}"))
    low, high = (f"{before:03d}", f"{after:03d}") if order == "desc" else (f"{after:03d}", f"{before:03d}")
    between = [name for name in sorted(ids, reverse=order == "desc") if low < name < high]
    assert (found, more) == (between[:limit], len(between) > limit)
