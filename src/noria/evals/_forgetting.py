"""Deletion that goes all the way: of traces, feedback and stored completions, with every row, file and mark made of them.

Where something was made of what is deleted, a durable job does it: killed in between, it goes on at the next start. Traces
that grow too old are not deleted by this: what was made of them stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import delete, select

from noria.errors import NoriaError, NotFound
from noria.jobs import JobContext, Jobs
from noria.store import Completion, Database
from noria.tracing import TraceFilter, TraceStore

from .datasets import Erased, Eraser, Gone, chunks

__all__ = ["Forgetting"]

_JOB = "forget"
_BATCH = 100
_FLUSH_S = 2.0


class Forgetting:
    """`gate` is held from looking to deleting, so that nothing is made of a trace that is about to go."""

    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        eraser: Eraser,
        traces: TraceStore,
        flush: Callable[[float], bool],
        gate: asyncio.Lock,
    ) -> None:
        self._database, self._jobs, self._eraser, self._traces = database, jobs, eraser, traces
        self._flush, self._gate = flush, gate
        jobs.register(_JOB, self._run)

    async def trace(self, project_id: str, trace_id: str) -> None:
        """Deletes a trace. Raises NotFound where neither it nor anything made of it is there."""
        await asyncio.to_thread(self._flush, _FLUSH_S)  # its last spans would come after it
        gone = Gone(project_id, "trace", [trace_id.lower()])
        if await self._eraser.touches(gone):
            await self._in_job(gone)
        elif not await self._traces.delete_all(gone.ids, project=project_id):
            raise NotFound(f"There is no trace {trace_id!r}.", param="trace_id")

    async def traces_where(self, wanted: TraceFilter) -> int:
        """Deletes every trace that matches; how many there were."""
        await asyncio.to_thread(self._flush, _FLUSH_S)
        count = await self._traces.count(wanted)
        job = await self._jobs.start(_JOB, f"{count} traces", {"filter": asdict(wanted)}, project_id=wanted.project)
        await self._ended(job.id, wanted.project)
        done = await self._jobs.get(job.id, wanted.project)
        return int(done.done)

    async def feedback(self, project_id: str, feedback_id: str) -> None:
        await self._in_job(Gone(project_id, "feedback", [feedback_id]))

    async def completion(self, project_id: str, completion_id: str) -> None:
        gone = Gone(project_id, "completion", [completion_id])
        if await self._eraser.touches(gone):
            await self._in_job(gone)
        else:
            await self._delete(gone)

    async def _in_job(self, gone: Gone) -> None:
        arguments = {"kind": gone.kind, "ids": list(gone.ids)}
        job = await self._jobs.start(_JOB, f"{gone.kind} {gone.ids[0]}", arguments, project_id=gone.project_id)
        await self._ended(job.id, gone.project_id)

    async def _ended(self, job_id: str, project_id: str) -> None:
        job = await self._jobs.wait(job_id, project_id=project_id)
        if job.status != "completed":
            raise NoriaError(f"The deletion ended as {job.status}: {job.error}.", hint="Try again; what is left is found.")

    async def _run(self, context: JobContext, arguments: Mapping[str, Any]) -> None:
        if "filter" in arguments:
            await self._run_filter(context, TraceFilter(**arguments["filter"]))
            return
        erased = await self._forget(Gone(context.project_id, arguments["kind"], arguments["ids"]))
        await context.progress(1, 1, "", **_shown(erased))

    async def _run_filter(self, context: JobContext, wanted: TraceFilter) -> None:
        total, done = await self._traces.count(wanted), 0
        async for ids in self._traces.ids(wanted, _BATCH):
            context.check()
            await self._forget(Gone(wanted.project, "trace", ids))
            done += len(ids)
            await context.progress(done, max(total, done + 1), "traces")
        await context.progress(done, done, "traces")

    async def _forget(self, gone: Gone) -> Erased:
        async with self._gate:
            erased = await self._eraser.erase(gone) if await self._eraser.touches(gone) else Erased()
            await self._delete(gone)
            for ids in chunks(erased.eval_traces, _BATCH):
                await self._traces.delete_all(ids, project=gone.project_id)
        return erased

    async def _delete(self, gone: Gone) -> None:
        if gone.kind == "trace":
            await self._traces.delete_all(gone.ids, project=gone.project_id)
        elif gone.kind == "completion":
            async with self._database.write() as session:
                mine = select(Completion.id).where(Completion.project_id == gone.project_id, Completion.id.in_(gone.ids))
                await session.execute(delete(Completion).where(Completion.id.in_(mine)))


def _shown(erased: Erased) -> dict[str, Any]:
    """For the job's detail."""
    return {name: value for name, value in asdict(erased).items() if value and name != "eval_traces"}
