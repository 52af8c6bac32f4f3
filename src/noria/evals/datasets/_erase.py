"""Taking back what must not be kept: a deleted trace leaves every dataset, with its feedback, and marks what learned from it.

One transaction does it in the database; then the bytes of exported files that held the rows go. Doing it again after a crash
finds what is left and does that. What deletes a trace itself is not known here.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from noria.store import (
    Blobs,
    Database,
    Dataset,
    DatasetFinding,
    DatasetRow,
    DatasetVersion,
    EvalItem,
    Feedback,
    File,
    RowSource,
    StoreFile,
    TunedModel,
    TuningJob,
)

from ._versions import PLAIN, chunks, close_version, count_rows, row_sum

__all__ = ["Erased", "Eraser", "Gone"]

_CHUNK = 400
_EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@dataclass(frozen=True, slots=True)
class Gone:
    """What is deleted, all of one kind. Feedback of deleted traces goes too."""

    project_id: str
    kind: Literal["trace", "feedback", "completion"]
    ids: Sequence[str]


@dataclass(slots=True)
class Erased:
    """What a deletion took along."""

    feedback: int = 0
    rows: int = 0
    datasets: list[str] = field(default_factory=list[str])
    files: list[str] = field(default_factory=list[str])
    models: list[str] = field(default_factory=list[str])
    eval_traces: list[str] = field(default_factory=list[str])
    """Traces of evals that asked what the rows ask; they hold the same text."""


class Eraser:
    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database, self._blobs = database, blobs

    async def touches(self, gone: Gone) -> bool:
        """Whether anything was made of what is deleted."""
        async with self._database.read() as session:
            for chunk in chunks(gone.ids, _CHUNK):
                sources = select(RowSource.id).where(RowSource.project_id == gone.project_id, _source(gone, chunk))
                said = select(Feedback.id).where(Feedback.project_id == gone.project_id, _feedback(gone, chunk))
                for query in (sources, said):
                    if await session.scalar(query.limit(1)) is not None:
                        return True
        return False

    async def erase(self, gone: Gone) -> Erased:
        erased = Erased()
        async with self._blobs.references:
            async with self._database.write() as session:
                await _Erasing(session, gone, erased).run()
            await self._remove_bytes()
        return erased

    async def blank_files(self, dataset_id: str) -> None:
        """Takes away the bytes of every file exported from a dataset."""
        async with self._blobs.references:
            async with self._database.write() as session:
                for file in await exported_files(session, dataset_id):
                    _blank(file, {"dataset_deleted": True})
            await self._remove_bytes()

    async def _remove_bytes(self) -> None:
        """Deletes the blobs of files that were blanked; a file keeps the hash until that is done."""
        async with self._database.read() as session:
            blanked = [
                file for file in await session.scalars(select(File).where(File.origin.is_not(None), File.bytes == 0))
                if (file.origin or {}).get("removing")
            ]  # fmt: skip
        for file in blanked:
            sha256 = str((file.origin or {})["removing"])
            async with self._database.read() as session:
                other = await session.scalar(select(File.id).where(File.sha256 == sha256).limit(1))
                text = await session.scalar(select(StoreFile.ordinal).where(StoreFile.text_sha256 == sha256).limit(1))
            if other is None and text is None:
                await self._blobs.delete(sha256)
            async with self._database.write() as session:
                row = await session.get_one(File, file.id)
                row.origin = {key: value for key, value in (row.origin or {}).items() if key != "removing"}


def _source(gone: Gone, ids: Sequence[str]) -> Any:
    column = {"trace": RowSource.trace_id, "feedback": RowSource.feedback_id, "completion": RowSource.completion_id}[gone.kind]
    return column.in_(ids)


def _feedback(gone: Gone, ids: Sequence[str]) -> Any:
    if gone.kind == "completion":
        return and_(Feedback.target_id.in_(ids), Feedback.trace_id.is_(None))
    return (Feedback.trace_id if gone.kind == "trace" else Feedback.id).in_(ids)


async def exported_files(session: AsyncSession, dataset_id: str) -> list[File]:
    query = select(File).where(File.origin.is_not(None), File.origin["dataset_id"].as_string() == dataset_id)
    return list(await session.scalars(query))


def _blank(file: File, why: dict[str, Any]) -> None:
    if file.sha256 == _EMPTY_SHA256:
        return
    file.origin = {**(file.origin or {}), **why, "erased_at": int(time.time()), "removing": file.sha256}
    file.bytes, file.sha256 = 0, _EMPTY_SHA256


class _Erasing:
    """One deletion inside its transaction."""

    def __init__(self, session: AsyncSession, gone: Gone, erased: Erased) -> None:
        self._session, self._gone, self._erased = session, gone, erased

    async def run(self) -> None:
        session, gone = self._session, self._gone
        rows: defaultdict[str, set[str]] = defaultdict(set)
        for chunk in chunks(gone.ids, _CHUNK):
            query = select(RowSource.dataset_id, RowSource.row_id).where(RowSource.project_id == gone.project_id)
            for dataset_id, row_id in await session.execute(query.where(_source(gone, chunk)).distinct()):
                rows[dataset_id].add(row_id)
            here = and_(Feedback.project_id == gone.project_id, _feedback(gone, chunk))
            statement = delete(Feedback).where(here).returning(Feedback.id).execution_options(**PLAIN)
            self._erased.feedback += len((await session.execute(statement)).all())
        await self._follow(rows)
        for dataset_id in sorted(rows):  # in one order, so that two deletions cannot wait for each other
            await self._dataset(dataset_id, sorted(rows[dataset_id]))

    async def _follow(self, rows: defaultdict[str, set[str]]) -> None:
        """Adds the copies of rows in datasets that files exported with them were imported into, and the copies of those."""
        pending = [(dataset_id, frozenset(ids)) for dataset_id, ids in rows.items()]
        while pending:
            dataset_id, ids = pending.pop()
            files = [file.id for file in await exported_files(self._session, dataset_id)]
            copies: defaultdict[str, set[str]] = defaultdict(set)
            for some_files in chunks(files, _CHUNK):
                for chunk in chunks(sorted(ids), _CHUNK):
                    here = and_(RowSource.file_id.in_(some_files), RowSource.row_id.in_(chunk))
                    query = select(RowSource.dataset_id, RowSource.row_id).where(here).distinct()
                    for other, row_id in await self._session.execute(query):
                        copies[other].add(row_id)
            for other, found in copies.items():
                if new := found - rows[other]:
                    rows[other] |= new
                    pending.append((other, frozenset(new)))

    async def _dataset(self, dataset_id: str, row_ids: Sequence[str]) -> None:
        session = self._session
        dataset = await session.get(Dataset, dataset_id, with_for_update=True)
        if dataset is None:
            return
        now = int(time.time())
        spans: list[tuple[int, int | None, str]] = []
        current: list[str] = []
        for chunk in chunks(row_ids, _CHUNK):
            here = and_(DatasetRow.dataset_id == dataset_id, DatasetRow.row_id.in_(chunk), DatasetRow.erased_at.is_(None))
            held = await session.execute(
                select(DatasetRow.row_id, DatasetRow.added_in, DatasetRow.removed_in, DatasetRow.split, DatasetRow.staged).where(
                    here
                )
            )
            for row_id, added_in, removed_in, split, staged in held:
                if staged is None:
                    spans.append((added_in, removed_in, split))
                    if removed_in is None:
                        current.append(row_id)
            staged_rows = and_(here, DatasetRow.staged.is_not(None))
            await session.execute(delete(DatasetRow).where(staged_rows).execution_options(**PLAIN))
            living = and_(here, DatasetRow.removed_in.is_(None))
            await session.execute(update(DatasetRow).where(living).values(removed_in=dataset.head + 1).execution_options(**PLAIN))
            await session.execute(update(DatasetRow).where(here).values(content=None, erased_at=now).execution_options(**PLAIN))
            sources = and_(RowSource.dataset_id == dataset_id, RowSource.row_id.in_(chunk))
            await session.execute(delete(RowSource).where(sources).execution_options(**PLAIN))
        self._erased.rows += len(spans)
        if not spans:
            return
        self._erased.datasets.append(dataset_id)
        await self._forget_findings(dataset_id, set(row_ids))
        await self._forget_items(row_ids)
        touched = await self._recount(dataset, spans)
        if current:
            origin = {"kind": "deletion", "of": self._gone.kind, "rows": len(current)}
            await close_version(session, dataset, origin, change=-sum(map(row_sum, current)))
        await self._files(dataset_id, touched)

    async def _forget_findings(self, dataset_id: str, row_ids: set[str]) -> None:
        """Findings show what rows ask; those about an erased row go."""
        query = select(DatasetFinding.id, DatasetFinding.row_ids).where(DatasetFinding.dataset_id == dataset_id)
        ids = [finding for finding, about in await self._session.execute(query) if row_ids.intersection(about)]
        for chunk in chunks(ids, _CHUNK):
            statement = delete(DatasetFinding).where(DatasetFinding.id.in_(chunk))
            await self._session.execute(statement.execution_options(**PLAIN))

    async def _forget_items(self, row_ids: Sequence[str]) -> None:
        """Eval items keep their outcome, not what was asked and answered."""
        for chunk in chunks(row_ids, _CHUNK):
            here = and_(EvalItem.project_id == self._gone.project_id, EvalItem.row_id.in_(chunk))
            query = select(EvalItem.trace_id).where(here, EvalItem.trace_id.is_not(None))
            self._erased.eval_traces += [trace_id for trace_id in await self._session.scalars(query) if trace_id]
            values = {"datasource_item": {"erased": True}, "sample": None, "trace_id": None}
            await self._session.execute(update(EvalItem).where(here).values(values).execution_options(**PLAIN))

    async def _recount(self, dataset: Dataset, spans: Sequence[tuple[int, int | None, str]]) -> dict[int, set[str]]:
        """Corrects the counts of the versions that held the rows; which versions, and in which splits."""
        session = self._session
        touched: defaultdict[int, set[str]] = defaultdict(set)
        lost: defaultdict[int, int] = defaultdict(int)
        for added_in, removed_in, split in spans:
            for number in range(added_in, (removed_in or dataset.head + 1)):
                touched[number].add(split)
                lost[number] += 1
        query = select(DatasetVersion).where(DatasetVersion.dataset_id == dataset.id, DatasetVersion.number.in_(list(touched)))
        for version in await session.scalars(query):
            erased = version.counts.get("erased", 0) + lost[version.number]
            version.counts = {**await count_rows(session, dataset.id, version.number), "erased": erased}
        return touched

    async def _files(self, dataset_id: str, touched: dict[int, set[str]]) -> None:
        """Blanks the exported files that held the rows, and marks the models that were trained on them."""
        session = self._session
        held = [
            file
            for file in await exported_files(session, dataset_id)
            if (origin := file.origin or {}).get("version") in touched
            and (origin.get("split") is None or origin["split"] in touched[origin["version"]])
        ]
        if not held:
            return
        ids = [file.id for file in held]
        for file in held:
            _blank(file, {})
        self._erased.files += ids
        used = or_(TuningJob.training_file.in_(ids), TuningJob.validation_file.in_(ids))
        jobs = {job.id: job for job in await session.scalars(select(TuningJob).where(used))}
        await self._mark(dataset_id, list(jobs))

    async def _mark(self, dataset_id: str, job_ids: Sequence[str]) -> None:
        """Notes on the jobs' models, and on those trained further from them, what they have learned from."""
        session = self._session
        mark = {"kind": self._gone.kind, "ids": list(self._gone.ids)[:100], "count": len(self._gone.ids)}
        mark |= {"dataset_id": dataset_id, "at": int(time.time())}
        query = select(TunedModel).where(TunedModel.project_id == self._gone.project_id)
        models = list(await session.scalars(query))
        learned = {model.id for model in models if model.tuning_job_id in job_ids}
        grown = True
        while grown:
            more = {model.id for model in models if model.base_model in learned or model.detail.get("parent") in learned}
            grown = not more <= learned
            learned |= more
        for model in models:
            if model.id in learned:
                model.marks = [*model.marks, mark]
                self._erased.models.append(model.id)
