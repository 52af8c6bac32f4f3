"""Long work on feedback and datasets as durable jobs: imports, collections, curation. Its `detail` says what a job came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import select

from noria.errors import NotFound
from noria.jobs import JobContext, Jobs, JobView
from noria.store import Blobs, Database, Dataset, File
from noria.tracing import TraceFilter

from ._feedback import FeedbackFilter, FeedbackStore
from ._feedback_import import ImportReport, import_feedback
from .datasets import CompletionFilter, Curation, CurationPolicy, Datasets, Expect, FeedbackPolicy, Fill, Format, Report

__all__ = ["Collect", "DataJobs", "ImportOptions", "show_curation"]


@dataclass(frozen=True, slots=True)
class Collect:
    """What to collect; the one of the filters that is given says from where."""

    feedback: FeedbackFilter | None = None
    traces: TraceFilter | None = None
    completions: CompletionFilter | None = None
    policy: FeedbackPolicy = field(default_factory=FeedbackPolicy)
    expect: Expect = "answer"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    format: Format | None = None
    strict: bool = False


class DataJobs:
    """Does each piece of work at once, or starts it as a job."""

    def __init__(self, database: Database, blobs: Blobs, jobs: Jobs, datasets: Datasets, feedback: FeedbackStore) -> None:
        self._database, self._blobs, self._jobs = database, blobs, jobs
        self._datasets, self._feedback = datasets, feedback
        jobs.register("dataset_import", self._run_import)
        jobs.register("dataset_collect", self._run_collect)
        jobs.register("dataset_curate", self._run_curate)
        jobs.register("feedback_import", self._run_feedback)

    async def collect(self, dataset: Dataset, wanted: Collect, fill: Fill) -> Report:
        if wanted.traces is not None:
            return await self._datasets.collect_traces(dataset.id, wanted.traces, expect=wanted.expect, fill=fill)
        if wanted.completions is not None:
            return await self._datasets.collect_completions(dataset.id, wanted.completions, expect=wanted.expect, fill=fill)
        return await self._datasets.collect_feedback(dataset.id, wanted.feedback, wanted.policy, fill=fill)

    async def count(self, dataset: Dataset, wanted: Collect) -> int:
        """How much there is to look at."""
        return await self._datasets.count(dataset, wanted.feedback, wanted.traces, wanted.completions)

    async def start_collect(self, dataset: Dataset, wanted: Collect, note: str = "") -> JobView:
        arguments = {"dataset_id": dataset.id, "note": note, "wanted": asdict(wanted)}
        return await self._jobs.start("dataset_collect", dataset.name, arguments, project_id=dataset.project_id)

    async def start_import(self, dataset: Dataset, file: File, options: ImportOptions, note: str = "") -> JobView:
        arguments = {"dataset_id": dataset.id, "file_id": file.id, "note": note, **asdict(options)}
        return await self._jobs.start("dataset_import", dataset.name, arguments, project_id=dataset.project_id)

    async def start_curate(self, dataset: Dataset, number: int, policy: CurationPolicy) -> JobView:
        given = {**asdict(policy), "kinds": sorted(policy.kinds), "accept": sorted(policy.accept)}
        arguments = {"dataset_id": dataset.id, "version": number, "policy": given}
        return await self._jobs.start("dataset_curate", dataset.name, arguments, project_id=dataset.project_id)

    async def _run_import(self, context: JobContext, given: Mapping[str, Any]) -> None:
        file = await self._file(context.project_id, given["file_id"])
        fill = _fill(context, given, "lines")
        report = await self._datasets.import_file(
            given["dataset_id"], file, format=given["format"], strict=given["strict"], fill=fill
        )
        await _tell_end(context, report, "lines")

    async def _run_collect(self, context: JobContext, given: Mapping[str, Any]) -> None:
        wanted = given["wanted"]
        collect = Collect(
            feedback=FeedbackFilter(**wanted["feedback"]) if wanted["feedback"] else None,
            traces=TraceFilter(**wanted["traces"]) if wanted["traces"] else None,
            completions=CompletionFilter(**wanted["completions"]) if wanted["completions"] else None,
            policy=FeedbackPolicy(**wanted["policy"]),
            expect=wanted["expect"],
        )
        dataset = await self._datasets.get(given["dataset_id"], context.project_id)
        report = await self.collect(dataset, collect, _fill(context, given, "records"))
        await _tell_end(context, report, "records")

    async def _run_curate(self, context: JobContext, given: Mapping[str, Any]) -> None:
        own = given["policy"]
        policy = CurationPolicy(frozenset(own["kinds"]), own["near"], own["max_characters"], frozenset(own["accept"]))
        fill = _fill(context, given, "rows")
        found = await self._datasets.curate(given["dataset_id"], given["version"], policy, fill=fill)
        await context.progress(found.rows, found.rows, "rows", **show_curation(found))

    async def _run_feedback(self, context: JobContext, given: Mapping[str, Any]) -> None:
        file = await self._file(context.project_id, given["file_id"])

        async def told(report: ImportReport) -> None:
            context.check()
            await context.progress(report.lines, None, "lines")

        source = self._blobs.open(file.sha256)
        try:
            report = await import_feedback(self._feedback, context.project_id, source, file.filename, progress=told)
        finally:
            source.close()
        await context.progress(report.lines, report.lines, "lines", **asdict(report))

    async def _file(self, project_id: str, file_id: str) -> File:
        async with self._database.read() as session:
            file = await session.scalar(select(File).where(File.id == file_id, File.project_id == project_id))
        if file is None:
            raise NotFound(f"The file {file_id} was deleted meanwhile.", param="file_id")
        return file


def show_curation(found: Curation) -> dict[str, Any]:
    return {
        "looked_at": found.looked_at,
        "rows": found.rows,
        "findings": dict(found.counts),
        "removed": found.removed,
        "version": found.version.number,
    }


def _fill(context: JobContext, given: Mapping[str, Any], unit: str) -> Fill:
    async def told(report: Report) -> None:
        context.check()
        await context.progress(report.considered, report.total, unit)

    return Fill(note=given.get("note", ""), job_id=context.id, told=told, project_id=context.project_id)


async def _tell_end(context: JobContext, report: Report, unit: str) -> None:
    await context.progress(report.considered, report.considered, unit, **report.to_dict())
