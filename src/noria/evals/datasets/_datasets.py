"""Datasets: named lines of versions, filled from files, feedback, traces and completions, curated, compared and exported.

The one door for routes, evals and the wheel; each way in and out is a module of its own. A dataset is known by its id or name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from noria.errors import Conflict, InvalidRequest, NotFound
from noria.evals._feedback import FeedbackFilter
from noria.store import (
    DEFAULT_PROJECT,
    Blobs,
    Cursor,
    Database,
    Dataset,
    DatasetVersion,
    File,
    Page,
    RowSource,
    TuningJob,
    new_id,
    page,
)
from noria.tracing import TraceFilter, TraceStore

from ._collect import Collector, CompletionFilter, Expect, FeedbackPolicy
from ._content import NewRow, Source, Split, check_content
from ._curation import CurationPolicy
from ._diff import Diff, diff_versions, load_rows
from ._erase import Eraser, exported_files
from ._exporting import Exporter
from ._filling import Fill, Filler
from ._findings import Curation, Findings
from ._importing import Importer
from ._progress import Report
from ._records import Format
from ._versions import Published, Row, Versions

__all__ = ["Datasets"]

_NAME = re.compile(r"\w[\w.-]{0,127}")  # letters of any script


class Datasets:
    """`gate` is shared with what deletes traces: see `Forgetting`."""

    def __init__(self, database: Database, blobs: Blobs, traces: TraceStore, gate: asyncio.Lock | None = None) -> None:
        self._database = database
        self.versions = Versions(database)
        self.findings = Findings(database, self.versions)
        self.eraser = Eraser(database, blobs)
        self.exporter = Exporter(database, blobs, self.versions)
        gate = gate or asyncio.Lock()
        self._collector = Collector(database, traces, self.versions, gate)
        self._filler = Filler(database, self.versions, self._collector, Importer(database, blobs, self.versions, gate))

    # --- datasets -----------------------------------------------------------------------------------------------------

    async def create(
        self,
        name: str,
        *,
        project_id: str = DEFAULT_PROJECT,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        shares: tuple[float, float] = (0.1, 0.1),
    ) -> Dataset:
        """An empty dataset. `shares` are of validation and test, and hold for good. Raises Conflict for a name that is taken."""
        if not _NAME.fullmatch(name) or name.startswith("ds_"):
            raise InvalidRequest(
                f"{name!r} cannot name a dataset.",
                param="name",
                hint="Letters, digits, dot, dash and underscore, at most 128; not beginning with ds_.",
            )
        _check_shares(shares)
        row = Dataset(
            id=new_id("ds_"),
            project_id=project_id,
            name=name,
            description=description,
            meta=dict(metadata or {}),
            head=0,
            validation_share=shares[0],
            test_share=shares[1],
        )
        try:
            async with self._database.write() as session:
                session.add(row)
        except IntegrityError:
            raise Conflict(f"There is a dataset {name!r} already.", param="name") from None
        return row

    async def get(self, dataset: str, project_id: str = DEFAULT_PROJECT) -> Dataset:
        """By id or name. Raises NotFound."""
        query = select(Dataset).where(Dataset.project_id == project_id, (Dataset.id == dataset) | (Dataset.name == dataset))
        async with self._database.read() as session:
            row = await session.scalar(query)
        if row is None:
            raise NotFound(f"No dataset {dataset!r}.", param="dataset_id", hint="`noria datasets list` shows them.")
        return row

    async def list(self, cursor: Cursor, project_id: str = DEFAULT_PROJECT) -> Page[Dataset]:
        async with self._database.read() as session:
            return await page(session, select(Dataset).where(Dataset.project_id == project_id), Dataset.id, cursor)

    async def update(self, dataset: Dataset, changes: Mapping[str, Any]) -> Dataset:
        """Changes name, description, metadata; the shares (`shares`) only while there is no version."""
        async with self._database.write() as session:
            row = await session.get_one(Dataset, dataset.id, with_for_update=True)
            if "shares" in changes:
                _check_shares(changes["shares"])
                if row.head and changes["shares"] != (row.validation_share, row.test_share):
                    raise Conflict(
                        f"The shares of {row.name} hold for good: rows would cross from test to train.",
                        hint="Make a new dataset with other shares.",
                    )
                row.validation_share, row.test_share = changes["shares"]
            if (name := changes.get("name")) is not None:
                if not _NAME.fullmatch(name) or name.startswith("ds_"):
                    raise InvalidRequest(f"{name!r} cannot name a dataset.", param="name")
                row.name = name
            row.description = changes.get("description", row.description)
            row.meta = changes.get("metadata", row.meta)
            try:
                await session.flush()
            except IntegrityError:
                raise Conflict(f"There is a dataset {changes['name']!r} already.", param="name") from None
        return row

    async def delete(self, dataset: Dataset, *, force: bool = False) -> None:
        """Deletes a dataset with its versions, and the bytes of files exported from it.

        Raises Conflict where training jobs used one of those and `force` is not given: what their models learned from can then
        no longer be told.
        """
        async with self._database.read() as session:
            ids = [file.id for file in await exported_files(session, dataset.id)]
            used = TuningJob.training_file.in_(ids) | TuningJob.validation_file.in_(ids)
            jobs = list(await session.scalars(select(TuningJob.id).where(used).limit(3)))
        if jobs and not force:
            raise Conflict(
                f"{dataset.name} was trained on by {', '.join(jobs)}.",
                code="dataset_in_use",
                hint="With force=true it is deleted all the same; what those models learned from is then forgotten.",
            )
        await self.eraser.blank_files(dataset.id)
        async with self._database.write() as session:
            await session.execute(delete(RowSource).where(RowSource.dataset_id == dataset.id))
            await session.execute(delete(Dataset).where(Dataset.id == dataset.id))

    # --- rows ---------------------------------------------------------------------------------------------------------

    async def add(
        self,
        dataset_id: str,
        rows: Iterable[NewRow | Mapping[str, Any]],
        *,
        origin: Mapping[str, Any] | None = None,
        note: str = "",
        remove: Collection[str] = (),
        replace: str | None = None,
        project_id: str = DEFAULT_PROJECT,
    ) -> Published:
        """The next version: with these rows, without those in `remove`. A row may be a content that is not checked yet.

        `replace` goes too; raises Conflict where the newest version does not hold it.
        """
        dataset = await self.get(dataset_id, project_id)
        checked = [row if isinstance(row, NewRow) else NewRow(check_content(row)) for row in rows]
        staging = self.versions.begin(dataset)
        try:
            await self.versions.stage(staging, checked)
            origin = origin or {"kind": "edit"}
            return await self.versions.publish(staging, origin, note=note, remove=remove, replace=replace)
        except BaseException:
            await asyncio.shield(self.versions.discard(staging.tag))
            raise

    async def replace_row(self, dataset: Dataset, row_id: str, content: Mapping[str, Any], note: str = "") -> Published:
        """A new version in which a row has another content; where it came from is kept.

        Raises NotFound, and Conflict for a row that the newest version does not hold: two who change one do not both win.
        """
        await self.row(dataset, row_id)
        async with self._database.read() as session:
            query = select(RowSource).where(RowSource.dataset_id == dataset.id, RowSource.row_id == row_id)
            sources = tuple(source_of(row) for row in await session.scalars(query))
        row = NewRow(check_content(content), sources)
        origin = {"kind": "edit", "row": row_id}
        return await self.add(dataset.id, [row], origin=origin, note=note, replace=row_id, project_id=dataset.project_id)

    async def row(self, dataset: Dataset, row_id: str) -> Row:
        """A row by its id, as it last stood. Raises NotFound."""
        found = await load_rows(self._database, dataset.id, [row_id])
        if row_id not in found:
            raise NotFound(f"No row {row_id!r} in {dataset.name}.", param="row_id", hint="It may have been erased.")
        return found[row_id]

    async def sources(self, dataset: Dataset, row_id: str) -> list[dict[str, str]]:
        """Where a row came from: ids of traces, spans, feedback, completions and files."""
        query = select(RowSource).where(
            RowSource.dataset_id == dataset.id, RowSource.row_id == row_id, RowSource.staged.is_(None)
        )
        async with self._database.read() as session:
            found = [asdict(source_of(row)) for row in await session.scalars(query.order_by(RowSource.id))]
        return [{name: value for name, value in source.items() if value is not None} for source in found]

    async def rows(
        self, dataset_id: str, version: int | None = None, split: Split | None = None, *, project_id: str = DEFAULT_PROJECT
    ) -> AsyncGenerator[Row, None]:
        """The rows of a version in the order in which they came; none of a dataset that is empty."""
        dataset = await self.get(dataset_id, project_id)
        if not dataset.head and version is None:
            return
        found = await self.versions.get(dataset, version)
        async for batch in self.versions.batches(dataset.id, found.number, split):
            for row in batch:
                yield row

    async def version(self, dataset_id: str, number: int | None = None, project_id: str = DEFAULT_PROJECT) -> DatasetVersion:
        """A version, the newest by default. Raises NotFound."""
        return await self.versions.get(await self.get(dataset_id, project_id), number)

    async def list_versions(self, dataset: Dataset, cursor: Cursor) -> Sequence[DatasetVersion]:
        """Newest first unless the cursor says otherwise; its `after` is a number. One more than asked for if there are more."""
        query = select(DatasetVersion).where(DatasetVersion.dataset_id == dataset.id)
        falling = cursor.order == "desc"
        if cursor.after is not None:
            after = int(cursor.after) if cursor.after.isdigit() else 0
            query = query.where(DatasetVersion.number < after if falling else DatasetVersion.number > after)
        order = DatasetVersion.number.desc() if falling else DatasetVersion.number
        async with self._database.read() as session:
            return list(await session.scalars(query.order_by(order).limit(cursor.limit + 1)))

    async def diff(self, dataset_id: str, before: int, after: int, project_id: str = DEFAULT_PROJECT) -> Diff:
        """What changed between two versions, in either direction. Raises NotFound."""
        dataset = await self.get(dataset_id, project_id)
        for number in (before, after):
            await self.versions.get(dataset, number)
        return await diff_versions(self._database, dataset.id, before, after)

    # --- what fills it ------------------------------------------------------------------------------------------------

    async def collect_feedback(
        self,
        dataset_id: str,
        wanted: FeedbackFilter | None = None,
        policy: FeedbackPolicy | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
        fill: Fill | None = None,
    ) -> Report:
        """Rows from feedback that matches and was given from `since` until before `until` (Unix seconds)."""
        fill = fill or Fill()
        chosen = wanted or FeedbackFilter()
        chosen = replace(chosen, since=chosen.since if since is None else since, until=chosen.until if until is None else until)
        dataset = await self.get(dataset_id, fill.project_id)
        return await self._filler.from_feedback(dataset, chosen, policy or FeedbackPolicy(), fill)

    async def collect_traces(
        self, dataset_id: str, wanted: TraceFilter, *, expect: Expect = "answer", fill: Fill | None = None
    ) -> Report:
        """Rows from traces; with `expect` the answer given is the answer expected, without there is none."""
        fill = fill or Fill()
        return await self._filler.from_traces(await self.get(dataset_id, fill.project_id), wanted, expect, fill)

    async def collect_completions(
        self, dataset_id: str, wanted: CompletionFilter, *, expect: Expect = "answer", fill: Fill | None = None
    ) -> Report:
        """Rows from stored completions."""
        fill = fill or Fill()
        return await self._filler.from_completions(await self.get(dataset_id, fill.project_id), wanted, expect, fill)

    async def count(
        self,
        dataset: Dataset,
        feedback: FeedbackFilter | None,
        traces: TraceFilter | None,
        completions: CompletionFilter | None,
    ) -> int:
        """How much a collection would look at."""
        if traces is not None:
            return await self._collector.count_traces(traces)
        if completions is not None:
            return await self._collector.count_completions(dataset.project_id, completions)
        return await self._collector.count_feedback(dataset.project_id, feedback or FeedbackFilter())

    async def import_file(
        self, dataset_id: str, file: File, *, format: Format | None = None, strict: bool = False, fill: Fill | None = None
    ) -> Report:
        """Rows from an uploaded file; without a `format` it is told from the records. Raises as `Importer.stage`."""
        fill = fill or Fill()
        return await self._filler.from_file(await self.get(dataset_id, fill.project_id), file, format, strict, fill)

    # --- what is made of it -------------------------------------------------------------------------------------------

    async def curate(
        self, dataset_id: str, number: int | None = None, policy: CurationPolicy | None = None, *, fill: Fill | None = None
    ) -> Curation:
        """Looks for what may be wrong with a version (the newest); what `policy.accept` names is taken out in a new one."""
        fill = fill or Fill()
        dataset = await self.get(dataset_id, fill.project_id)
        version = await self.versions.get(dataset, number)
        return await self.findings.curate(dataset, version.number, policy or CurationPolicy(), Report(), fill.told)

    async def export_file(
        self,
        dataset_id: str,
        number: int | None = None,
        split: Split | None = None,
        format: Format = "openai",
        *,
        project_id: str = DEFAULT_PROJECT,
        newest: Collection[str] | None = None,
    ) -> File:
        """A version (the newest), or one split of it, as a file for training; the same file where it was made before.

        `newest` are ids of the rows to take; default: all.
        """
        dataset = await self.get(dataset_id, project_id)
        return await self.exporter.file(dataset, await self.versions.get(dataset, number), split, format, newest)

    async def sweep(self) -> None:
        """Takes back what a killed process had staged; at the start, before jobs go on."""
        await self.versions.sweep()


def source_of(row: RowSource) -> Source:
    return Source(row.trace_id, row.span_id, row.feedback_id, row.completion_id, row.file_id)


def _check_shares(shares: tuple[float, float]) -> None:
    if not (min(shares) >= 0 and sum(shares) <= 1):
        raise InvalidRequest(
            f"Shares of {shares[0]} for validation and {shares[1]} for test are no parts of a whole.",
            param="test_share",
            hint="Each is at least 0, both together at most 1; the rest is for training.",
        )
