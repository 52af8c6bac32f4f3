"""Versions of a dataset's rows: staged in small transactions, published in one, read page by page.

Versions are numbered from 1 and form a line. A row is there once or not at all in each: adding it again adds only what is new
about where it came from. Staging keeps the writer's lock short: a large import does not hold up stored completions.
A source that no longer stands for its row is withdrawn, not deleted: earlier versions hold the row, and a deletion must find it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from sqlalchemy import ColumnElement, Text, and_, cast, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from noria.errors import Conflict, NotFound
from noria.store import Database, Dataset, DatasetRow, DatasetVersion, RowSource, new_id

from ._content import NewRow, Split, row_id_of, split_of

__all__ = [
    "PLAIN",
    "ROW_COLUMNS",
    "Published",
    "Row",
    "Staging",
    "Versions",
    "alive",
    "chunks",
    "close_version",
    "count_rows",
    "held",
    "read_rows",
    "row_sum",
    "tag_of",
]

_UNPUBLISHED = 2**31 - 1
_STAGE_ROWS = 250
_CHUNK = 500
_SOURCE_COLUMNS = ("trace_id", "span_id", "feedback_id", "completion_id", "file_id")


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it stands in a version."""

    ordinal: int
    row_id: str
    split: Split
    content: dict[str, Any]
    added_in: int


@dataclass(frozen=True, slots=True)
class Published:
    """What an addition came to. `version` is the newest one, None where the dataset still has none."""

    version: DatasetVersion | None
    added: int = 0
    removed: int = 0
    duplicates: int = 0
    """Rows that were there already, or twice among the new ones."""


@dataclass(slots=True)
class Staging:
    """A version in preparation."""

    dataset: Dataset
    tag: str
    given: int = 0
    sums: dict[str, int] = field(default_factory=dict[str, int])
    """The digests of the staged rows, by id."""
    withdrawn: set[int] = field(default_factory=set[int])
    """Sources that stand for their rows no more; a row without any other goes."""


_T = TypeVar("_T")


def tag_of(job_id: str) -> str:
    """The name of a job's preparation; it sorts by time, as all do."""
    return f"stage_{job_id.removeprefix('job_')}"


def chunks(given: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Pieces of at most `size`; a statement takes only so many values."""
    return (given[start : start + size] for start in range(0, len(given), size))


def held(version: int) -> ColumnElement[bool]:
    """The rows that a version held when it was made, those that were erased since included."""
    return and_(DatasetRow.added_in <= version, or_(DatasetRow.removed_in.is_(None), DatasetRow.removed_in > version))


def alive(version: int) -> ColumnElement[bool]:
    """The rows that a version holds. Never NULL, so that it can be negated."""
    return and_(held(version), DatasetRow.erased_at.is_(None))


def row_sum(row_id: str) -> int:
    return int.from_bytes(hashlib.sha256(row_id.encode()).digest())


class Versions:
    """Writes and reads versions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, dataset: Dataset, tag: str | None = None) -> Staging:
        """`tag` names the preparation, so that a job that starts over can `discard` what it had staged: `tag_of` its id."""
        return Staging(dataset, tag or new_id("stage_"))

    async def stage(self, staging: Staging, rows: Sequence[NewRow]) -> None:
        """Writes rows where no version sees them yet."""
        for batch in chunks(rows, _STAGE_ROWS):
            made = await asyncio.to_thread(_prepare, staging, batch)
            async with self._database.write() as session:
                if made.rows:
                    await session.execute(insert(DatasetRow), made.rows)
                if made.sources:
                    await session.execute(insert(RowSource), made.sources)

    async def discard(self, tag: str) -> None:
        """Takes back what was staged under a name."""
        async with self._database.write() as session:
            await session.execute(delete(DatasetRow).where(DatasetRow.staged == tag))
            await session.execute(delete(RowSource).where(RowSource.staged == tag))

    async def publish(
        self,
        staging: Staging,
        origin: Mapping[str, Any],
        *,
        note: str = "",
        remove: Collection[str] = (),
        replace: str | None = None,
    ) -> Published:
        """Makes the next version of the head, the staged rows and without `remove`, in one transaction.

        Where that changes nothing there is no new version. `replace` goes too; raises Conflict where the head does not hold it,
        or where the rows were split by other shares than the dataset has.
        """
        async with self._database.write() as session:
            dataset = await _locked(session, staging.dataset.id)
            _check_shares(staging, dataset)
            number = dataset.head + 1
            unsaid = await self._withdraw(session, dataset, staging)
            gone = await self._remove(session, dataset, number, {*remove, *unsaid, *([replace] if replace else ())})
            if replace is not None and replace not in gone:
                raise Conflict(
                    f"The row {replace} is in {dataset.name} no more.",
                    param="row_id",
                    hint="It was changed or removed meanwhile: look at the newest version.",
                )
            known = await self._drop_known(session, dataset, staging)
            added = [value for row_id, value in staging.sums.items() if row_id not in known]
            await _settle(session, staging, number)
            if not added and not gone:
                version = await session.get(DatasetVersion, (dataset.id, dataset.head))
                return Published(version, duplicates=staging.given)
            version = await close_version(session, dataset, origin, note=note, change=sum(added) - sum(map(row_sum, gone)))
        return Published(version, len(added), len(gone), staging.given - len(added))

    async def _remove(self, session: AsyncSession, dataset: Dataset, number: int, ids: Collection[str]) -> list[str]:
        gone: list[str] = []
        for chunk in chunks(sorted(set(ids)), _CHUNK):
            here = and_(DatasetRow.dataset_id == dataset.id, DatasetRow.row_id.in_(chunk), alive(dataset.head))
            gone += list(await session.scalars(select(DatasetRow.row_id).where(here)))
            await session.execute(update(DatasetRow).where(here).values(removed_in=number).execution_options(**PLAIN))
        return gone

    async def _withdraw(self, session: AsyncSession, dataset: Dataset, staging: Staging) -> set[str]:
        """Withdraws the sources that the staging names; the rows that have no others."""
        touched: set[str] = set()
        for chunk in chunks(sorted(staging.withdrawn), _CHUNK):
            here = and_(RowSource.id.in_(chunk), RowSource.dataset_id == dataset.id)
            touched |= set(await session.scalars(select(RowSource.row_id).where(here)))
            await session.execute(update(RowSource).where(here).values(withdrawn=True).execution_options(**PLAIN))
        for chunk in chunks(sorted(touched), _CHUNK):
            mine = or_(RowSource.staged.is_(None), RowSource.staged == staging.tag)
            here = and_(RowSource.dataset_id == dataset.id, RowSource.row_id.in_(chunk), RowSource.withdrawn.is_(False), mine)
            touched -= set(await session.scalars(select(RowSource.row_id).where(here)))
        return touched

    async def _drop_known(self, session: AsyncSession, dataset: Dataset, staging: Staging) -> set[str]:
        """Staged rows that are in the head already go; their sources stay."""
        if not staging.sums:
            return set()
        staged = select(DatasetRow.row_id).where(DatasetRow.staged == staging.tag)
        # Whatever was removed a moment ago, in this very version, is no longer in the way.
        left = and_(alive(dataset.head), DatasetRow.removed_in.is_(None))
        query = select(DatasetRow.row_id).where(DatasetRow.dataset_id == dataset.id, left, DatasetRow.row_id.in_(staged))
        known = set(await session.scalars(query))
        for chunk in chunks(sorted(known), _CHUNK):
            here = and_(DatasetRow.staged == staging.tag, DatasetRow.row_id.in_(chunk))
            await session.execute(delete(DatasetRow).where(here).execution_options(**PLAIN))
        return known

    async def get(self, dataset: Dataset, number: int | None = None) -> DatasetVersion:
        """A version, the newest by default. Raises NotFound."""
        wanted = dataset.head if number is None else number
        version = None
        if 0 < wanted <= dataset.head:  # any larger number might not even fit the column
            async with self._database.read() as session:
                version = await session.get(DatasetVersion, (dataset.id, wanted))
        if version is None:
            said = f"The dataset {dataset.name} has no version {wanted}." if wanted else f"The dataset {dataset.name} is empty."
            raise NotFound(said, param="version", hint="Add rows first." if not dataset.head else f"It has 1 to {dataset.head}.")
        return version

    async def batches(self, dataset_id: str, version: int, split: str | None = None) -> AsyncGenerator[list[Row], None]:
        """The rows of a version in the order in which they came, some hundred at a time."""
        last = 0
        while True:
            query = select(*ROW_COLUMNS).where(DatasetRow.dataset_id == dataset_id, DatasetRow.ordinal > last, alive(version))
            if split is not None:
                query = query.where(DatasetRow.split == split)
            async with self._database.read() as session:
                found = (await session.execute(query.order_by(DatasetRow.ordinal).limit(_CHUNK))).all()
            if not found:
                return
            yield await asyncio.to_thread(read_rows, found)
            last = found[-1][0]
            if len(found) < _CHUNK:
                return

    async def weigh(self, dataset_id: str, rows: Sequence[Row]) -> dict[str, int]:
        """How many distinct sources stand for each row, by id; rows without sources are left out."""
        # What was said counts each time; whatever else is known of one trace is one source.
        source = func.coalesce(RowSource.feedback_id, RowSource.trace_id, RowSource.completion_id, RowSource.file_id)
        found: dict[str, int] = {}
        for chunk in chunks([row.row_id for row in rows], _CHUNK):
            query = select(RowSource.row_id, func.count(source.distinct())).where(
                RowSource.dataset_id == dataset_id,
                RowSource.row_id.in_(chunk),
                RowSource.staged.is_(None),
                RowSource.withdrawn.is_(False),
            )
            async with self._database.read() as session:
                counted: Any = await session.execute(query.group_by(RowSource.row_id))
                found |= {row_id: count for row_id, count in counted if count}
        return found

    async def sweep(self) -> None:
        """Takes back what processes that were killed had staged; jobs stage anew."""
        async with self._database.write() as session:
            for table in (DatasetRow, RowSource):
                where = table.staged.is_not(None)
                if not self._database.is_sqlite:  # another server may share the database: only what is a day old
                    where = and_(where, table.staged < f"stage_{int((time.time() - 86_400) * 1000):012x}")
                await session.execute(delete(table).where(where).execution_options(**PLAIN))


PLAIN: dict[str, Any] = {"synchronize_session": False}
# As text, so that it is parsed in a thread and not on the event loop.
ROW_COLUMNS = (
    DatasetRow.ordinal,
    DatasetRow.row_id,
    DatasetRow.split,
    cast(DatasetRow.content, Text),
    DatasetRow.added_in,
)


def read_rows(found: Iterable[Any]) -> list[Row]:
    return [Row(ordinal, row_id, split, orjson.loads(text), added) for ordinal, row_id, split, text, added in found]


@dataclass(frozen=True, slots=True)
class _Made:
    rows: list[dict[str, Any]]
    sources: list[dict[str, Any]]


def _prepare(staging: Staging, rows: Iterable[NewRow]) -> _Made:
    dataset, made = staging.dataset, _Made([], [])
    for row in rows:
        staging.given += 1
        row_id = row_id_of(row.content)
        own = {"dataset_id": dataset.id, "row_id": row_id, "staged": staging.tag}
        if row_id not in staging.sums:
            staging.sums[row_id] = row_sum(row_id)
            split = split_of(row.content, dataset.validation_share, dataset.test_share)
            made.rows.append({**own, "split": split, "content": row.content, "added_in": _UNPUBLISHED})
        for source in dict.fromkeys(row.sources):
            ids = {name: getattr(source, name) for name in _SOURCE_COLUMNS}
            made.sources.append({**own, "project_id": dataset.project_id, "withdrawn": False, **ids})
    return made


async def _locked(session: AsyncSession, dataset_id: str) -> Dataset:
    dataset = await session.get(Dataset, dataset_id, with_for_update=True)
    if dataset is None:
        raise NotFound(f"The dataset {dataset_id} was deleted meanwhile.", param="dataset_id")
    return dataset


def _check_shares(staging: Staging, dataset: Dataset) -> None:
    then = staging.dataset
    if staging.given and (then.validation_share, then.test_share) != (dataset.validation_share, dataset.test_share):
        raise Conflict(f"The shares of {dataset.name} were changed meanwhile.", hint="Add the rows again.")


async def _settle(session: AsyncSession, staging: Staging, number: int) -> None:
    """The staged rows and sources are of this version; a source that is known is not noted twice."""
    if not staging.given:
        return
    here = DatasetRow.staged == staging.tag
    await session.execute(update(DatasetRow).where(here).values(added_in=number, staged=None).execution_options(**PLAIN))
    other = aliased(RowSource)
    # Compared as texts: SQLite would look the many NULLs up in an index of one column, and not the few sources of the row.
    same = [func.coalesce(getattr(other, name), "") == func.coalesce(getattr(RowSource, name), "") for name in _SOURCE_COLUMNS]
    twin = select(other.id).where(
        other.row_id == RowSource.row_id,
        func.coalesce(other.dataset_id, "") == RowSource.dataset_id,
        *same,
    )
    mine, tag = RowSource.staged == staging.tag, func.coalesce(other.staged, "")
    standing = twin.where(tag == "", other.withdrawn.is_(False))
    await session.execute(delete(RowSource).where(mine, standing.exists()).execution_options(**PLAIN))
    # Found once more, a source that was withdrawn stands again.
    rows = RowSource.row_id.in_(select(other.row_id).where(other.staged == staging.tag))
    again = and_(rows, RowSource.withdrawn.is_(True), twin.where(tag == staging.tag).exists())
    await session.execute(delete(RowSource).where(again).execution_options(**PLAIN))
    await session.execute(update(RowSource).where(mine).values(staged=None).execution_options(**PLAIN))


async def close_version(
    session: AsyncSession, dataset: Dataset, origin: Mapping[str, Any], *, note: str = "", change: int = 0
) -> DatasetVersion:
    """Notes the version after the head, whose rows are in place, and makes it the head; its digest's sum changes by `change`."""
    number = dataset.head + 1
    before = await session.get(DatasetVersion, (dataset.id, dataset.head))
    total = (int(before.digest, 16) if before else 0) + change
    version = DatasetVersion(
        dataset_id=dataset.id,
        number=number,
        origin=dict(origin),
        counts=await count_rows(session, dataset.id, number),
        digest=f"{total % 2**256:064x}",
        note=note,
    )
    session.add(version)
    dataset.head = number
    await session.flush()
    return version


async def count_rows(session: AsyncSession, dataset_id: str, number: int) -> dict[str, Any]:
    """How many rows a version has, by split."""
    query = select(DatasetRow.split, func.count()).where(DatasetRow.dataset_id == dataset_id, alive(number))
    rows = (await session.execute(query.group_by(DatasetRow.split))).all()
    found = Counter({row[0]: row[1] for row in rows})
    return {"train": found["train"], "validation": found["validation"], "test": found["test"], "total": found.total()}
