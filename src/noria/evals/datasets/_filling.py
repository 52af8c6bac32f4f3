"""One addition from its first row to its version: staged, published, and taken back when it fails.

A job that starts over after a crash finds the version that it had made, or stages anew what it had not published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select

from noria.evals._feedback import FeedbackFilter
from noria.store import DEFAULT_PROJECT, Database, Dataset, DatasetVersion, File
from noria.tracing import TraceFilter

from ._collect import Collector, CompletionFilter, Expect, FeedbackPolicy
from ._importing import Importer
from ._progress import Report, Told
from ._records import Format
from ._versions import Staging, Versions, tag_of

__all__ = ["Fill", "Filler"]


async def _silent(_: Report) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Fill:
    """How an addition is done: its note, the job that does it, and whom it tells how far it is."""

    note: str = ""
    job_id: str | None = None
    told: Told = _silent
    project_id: str = DEFAULT_PROJECT


class Filler:
    def __init__(self, database: Database, versions: Versions, collector: Collector, importer: Importer) -> None:
        self._database, self._versions = database, versions
        self._collector, self._importer = collector, importer

    async def from_feedback(self, dataset: Dataset, wanted: FeedbackFilter, policy: FeedbackPolicy, fill: Fill) -> Report:
        async def stage(staging: Staging, report: Report) -> None:
            await self._collector.from_feedback(staging, wanted, policy, report, fill.told)

        origin = {"kind": "feedback", "filter": _given(wanted), "policy": asdict(policy)}
        return await self._fill(dataset, origin, stage, fill)

    async def from_traces(self, dataset: Dataset, wanted: TraceFilter, expect: Expect, fill: Fill) -> Report:
        async def stage(staging: Staging, report: Report) -> None:
            await self._collector.from_traces(staging, wanted, expect, report, fill.told)

        return await self._fill(dataset, {"kind": "traces", "filter": _given(wanted), "expect": expect}, stage, fill)

    async def from_completions(self, dataset: Dataset, wanted: CompletionFilter, expect: Expect, fill: Fill) -> Report:
        async def stage(staging: Staging, report: Report) -> None:
            await self._collector.from_completions(staging, wanted, expect, report, fill.told)

        return await self._fill(dataset, {"kind": "completions", "filter": _given(wanted), "expect": expect}, stage, fill)

    async def from_file(self, dataset: Dataset, file: File, format: Format | None, strict: bool, fill: Fill) -> Report:
        async def stage(staging: Staging, report: Report) -> None:
            await self._importer.stage(staging, file, format, report, fill.told, strict=strict)

        return await self._fill(dataset, {"kind": "import", "file_id": file.id, "filename": file.filename}, stage, fill)

    async def _fill(
        self,
        dataset: Dataset,
        origin: Mapping[str, Any],
        stage: Callable[[Staging, Report], Awaitable[None]],
        fill: Fill,
    ) -> Report:
        report = Report()
        if fill.job_id is not None:
            origin = {**origin, "job_id": fill.job_id}
            if (made := await self._made_by(dataset, fill.job_id)) is not None:
                report.version = made
                return report
            await self._versions.discard(tag_of(fill.job_id))
        staging = self._versions.begin(dataset, tag_of(fill.job_id) if fill.job_id else None)
        try:
            await stage(staging, report)
            published = await self._versions.publish(staging, origin, note=fill.note)
        except BaseException:
            await asyncio.shield(self._versions.discard(staging.tag))
            raise
        report.version, report.added, report.duplicates = published.version, published.added, published.duplicates
        report.removed = published.removed
        return report

    async def _made_by(self, dataset: Dataset, job_id: str) -> DatasetVersion | None:
        query = select(DatasetVersion).where(DatasetVersion.dataset_id == dataset.id)
        async with self._database.read() as session:
            return await session.scalar(query.where(DatasetVersion.origin["job_id"].as_string() == job_id))


def _given(wanted: FeedbackFilter | TraceFilter | CompletionFilter) -> dict[str, Any]:
    """The conditions that were set."""
    return {name: value for name, value in asdict(wanted).items() if value not in (None, (), {}) and name != "project"}
