"""The durable job that carries out a run: rows in, outcomes out, many at once, each recorded once however often it is resumed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from noria.errors import DatabaseUnavailable, InvalidRequest, NoriaError
from noria.jobs import JobContext
from noria.prompts import PromptResolver
from noria.sandbox import Limits, Outcome, PythonSession
from noria.store import Database, Eval, EvalRun

from ._outcomes import Outcomes
from ._parsing import parse
from ._rows import RowRunner, RunTerms
from ._sandboxes import Sandboxes
from ._sources import SourceRow, Sources
from ._specs import run_spec
from ._summary import summarise
from ._target import Ask, Patient, error_of
from .graders import Tools, parse_grader

__all__ = ["Means", "Runs", "tools_for"]

_log = logging.getLogger("noria.evals")
Embed = Callable[[Sequence[str]], Awaitable[np.ndarray[Any, np.dtype[np.float32]]]]
GRADER_LIMITS = Limits(wall_s=10, memory_mb=512)


@dataclass(frozen=True, slots=True)
class Means:
    """What runs need of the rest of the house. `concurrency` rows of a run are under way at once.

    `find` raises NotFound for a model's name that leads to none.
    """

    ask: Ask
    embed: Embed
    find: Callable[[str, str], Awaitable[Any]]
    concurrency: int = 32
    prompts: PromptResolver | None = None
    sandboxes: Sandboxes = field(default_factory=Sandboxes)


@contextlib.asynccontextmanager
async def tools_for(means: Means, project_id: str, *, wait_s: float | None = None) -> AsyncGenerator[tuple[Tools, Patient], None]:
    """Tools for graders, and the model asker that they share with the rows; sandboxes end with the block.

    After `wait_s` without a place for a sandbox its grader raises Unavailable; None waits for ever.
    """
    patient = Patient(means.ask, project_id)
    async with contextlib.AsyncExitStack() as stack:
        sessions: dict[str, tuple[PythonSession, asyncio.Lock]] = {}

        async def run_python(source: str, function: str, *arguments: Any) -> Outcome:
            if source not in sessions:
                sessions[source] = PythonSession(source, function, GRADER_LIMITS), asyncio.Lock()
                stack.push_async_callback(means.sandboxes.end, sessions[source][0])
            session, turn = sessions[source]
            async with turn, means.sandboxes.place(session, wait_s):  # rows that wait for their turn take no place
                return await session.call(*arguments)

        yield Tools(patient, means.embed, run_python), patient


class Runs:
    """`work` is the job's function; its argument is the run's id."""

    def __init__(self, database: Database, sources: Sources, means: Means) -> None:
        self._database, self._sources, self._means = database, sources, means

    async def work(self, context: JobContext, arguments: Mapping[str, Any]) -> None:
        run_id = arguments["run_id"]
        async with self._database.read() as session:
            run = await session.get(EvalRun, run_id)
            owner = await session.get(Eval, run.eval_id) if run is not None else None
        if run is None or owner is None or run.status in {"completed", "canceled", "failed"}:
            return
        try:
            context.check()
            await self._carry_out(run, owner, context)
        except asyncio.CancelledError:
            if context.cancelled:
                await self._end(run, owner, "canceled")
            raise
        except DatabaseUnavailable:  # the job is run again, and the run goes on where it was
            raise
        except NoriaError as error:
            await self._end(run, owner, "failed", error_of(error))
            raise
        except Exception as error:
            _log.exception("The run %s failed", run_id)
            await self._end(run, owner, "failed", error_of(error))
            raise

    async def _carry_out(self, run: EvalRun, owner: Eval, context: JobContext) -> None:
        spec = parse(run_spec, run.data_source, "data_source")
        graders = [parse_grader(each, f"testing_criteria[{n}]") for n, each in enumerate(owner.testing_criteria)]
        if run.status == "queued":
            plan = await self._sources.plan(spec.source, run.project_id)
            count = await self._sources.count(spec.source, plan, run.project_id)
            await self._change(run, status="in_progress", plan=plan, num_items=count)
        if not run.num_items:
            raise InvalidRequest("The data source has no rows.", param="data_source.source", code="empty_data")
        schema = ((owner.data_source_config.get("schema") or {}).get("properties") or {}).get("item")
        terms = RunTerms(run.id, run.project_id, spec, graders, schema, run.options.get("prompt"))

        async def report(done: int) -> None:
            await context.progress(done, run.num_items, "rows")

        async with tools_for(self._means, run.project_id) as (tools, patient):
            runner = RowRunner(terms, tools, patient, self._means.prompts)
            async with Outcomes(self._database, run.id, report) as outcomes:
                rows = self._sources.rows(spec.source, run.plan, run.project_id)
                await _spread(rows, runner, outcomes, self._means.concurrency)
        await self._end(run, owner, "completed")

    async def _end(self, run: EvalRun, owner: Eval, status: str, error: dict[str, str] | None = None) -> None:
        values = await summarise(self._database, run, owner.testing_criteria)
        await self._change(run, status=status, error=error, finished_at=int(time.time()), **values)

    async def _change(self, run: EvalRun, **values: Any) -> None:
        async with self._database.write() as session:
            row = await session.get(EvalRun, run.id)
            if row is None:  # deleted meanwhile
                return
            for name, value in values.items():
                setattr(row, name, value)
                setattr(run, name, value)


async def _spread(rows: AsyncIterator[SourceRow], runner: RowRunner, outcomes: Outcomes, concurrency: int) -> None:
    """Workers that each take the next row; the first real failure (of the database, say) ends all."""
    turn = asyncio.Lock()

    async def following() -> SourceRow | None:
        async with turn:
            async for row in rows:
                if row.position not in outcomes.done:
                    return row
        return None

    async def worker() -> None:
        while (row := await following()) is not None:
            await outcomes.add(await runner.run(row))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
