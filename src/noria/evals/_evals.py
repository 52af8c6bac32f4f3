"""Evals: what is asked of a model and how its answers are graded; their runs, comparisons and the calibration of judges.

The one object that routes and the wheel use. Knows nothing about HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import TypeAdapter
from sqlalchemy import delete, select

from noria.errors import Conflict, InvalidRequest, NotFound
from noria.jobs import Jobs
from noria.prompts import PromptReference
from noria.sandbox import require_sandbox
from noria.store import Blobs, Cursor, Database, Eval, EvalItem, EvalRun, Job, JudgeAgreement, Page, new_id, page

from ._calibration import Templates, judges_in, keep, measure, parts_of, standing
from ._compare import Comparison, compare
from ._importing import Imported, import_objects, objects_in
from ._item_schema import check_item_schema
from ._messages import check_messages
from ._parsing import parse
from ._runs import Means, Runs, tools_for
from ._sources import Sources
from ._specs import (
    DatasetSource,
    FileContent,
    FileId,
    JsonlRun,
    ReferenceInput,
    ResponsesSource,
    RunSpec,
    StoredCompletions,
    TemplateInput,
    config_schema,
    config_spec,
    run_spec,
    variables_of,
)
from ._templates import Variables
from .graders import Grade, Grader, Row, parse_grader

__all__ = ["Evals", "NewRun"]

_JOB = "eval_run"
_MOST_CALIBRATED = 2000
_WAIT_S = 20.0  # for a sandbox, with a client at the other end
_LOGS = (StoredCompletions, ResponsesSource)


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be made. `options`: `prompt` (id, version, variables) holds a prompt fixed, `cluster` (`item.…`) groups rows."""

    data_source: Mapping[str, Any]
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Evals:
    def __init__(self, database: Database, blobs: Blobs, jobs: Jobs, means: Means) -> None:
        self._database, self._jobs, self._means = database, jobs, means
        self._sources = Sources(database, blobs)
        jobs.register(_JOB, Runs(database, self._sources, means).work)

    # --- evals ---------------------------------------------------------------------------------------------------------

    async def create(
        self,
        project_id: str,
        config: Mapping[str, Any],
        criteria: Sequence[Mapping[str, Any]],
        *,
        name: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> Eval:
        """Raises InvalidRequest naming a field, a template's variable or a grader's fault."""
        stored = config_schema(parse(config_spec, dict(config), "data_source_config"))
        await asyncio.to_thread(check_item_schema, _item_schema(stored))
        kept = check_criteria(criteria, variables_of(stored))
        row = Eval(
            id=new_id("eval_"),
            project_id=project_id,
            name=name,
            data_source_config=stored,
            testing_criteria=kept,
            meta=dict(metadata or {}),
        )
        async with self._database.write() as session:
            session.add(row)
        return row

    async def get(self, project_id: str, eval_id: str) -> Eval:
        async with self._database.read() as session:
            row = await session.get(Eval, eval_id)
        if row is None or row.project_id != project_id:
            raise NotFound(f"No eval {eval_id!r}.", param="eval_id")
        return row

    async def list(self, project_id: str, cursor: Cursor) -> Page[Eval]:
        async with self._database.read() as session:
            return await page(session, select(Eval).where(Eval.project_id == project_id), Eval.id, cursor)

    async def update(self, project_id: str, eval_id: str, name: str | None, metadata: Mapping[str, str] | None) -> Eval:
        await self.get(project_id, eval_id)
        async with self._database.write() as session:
            row = await session.get_one(Eval, eval_id)
            row.name = row.name if name is None else name
            row.meta = row.meta if metadata is None else dict(metadata)
        return row

    async def delete(self, project_id: str, eval_id: str) -> None:
        """Its runs and their items go with it; those under way are stopped."""
        await self.get(project_id, eval_id)
        async with self._database.read() as session:
            runs = list(await session.scalars(select(EvalRun).where(EvalRun.eval_id == eval_id)))
        for run in runs:
            await self._stop(run)
        async with self._database.write() as session:
            await session.execute(delete(EvalItem).where(EvalItem.run_id.in_([run.id for run in runs])))
            await session.execute(delete(EvalRun).where(EvalRun.eval_id == eval_id))
            await session.execute(delete(Eval).where(Eval.id == eval_id))

    # --- runs ----------------------------------------------------------------------------------------------------------

    async def create_run(self, project_id: str, eval_id: str, new: NewRun) -> EvalRun:
        """Makes a run and starts its job. Raises InvalidRequest or NotFound for what cannot be run."""
        owner = await self.get(project_id, eval_id)
        variables = variables_of(owner.data_source_config)
        check_criteria(owner.testing_criteria, variables)
        await asyncio.to_thread(check_item_schema, _item_schema(owner.data_source_config))
        spec = parse(run_spec, dict(new.data_source), "data_source")
        _check_run(spec, owner, variables)
        if spec.model is not None:
            await self._means.find(spec.model, project_id)
        for criterion in owner.testing_criteria:
            await self.require(project_id, criterion)
        options = await self._options(project_id, spec, new.options, variables)
        source = await self._sources.pin(spec.source, project_id)
        row = EvalRun(
            id=new_id("evalrun_"),
            project_id=project_id,
            eval_id=eval_id,
            name=new.name or spec.model or owner.name,
            model=spec.model,
            data_source={**spec.model_dump(exclude_unset=True), "source": source},
            status="queued",
            result_counts={"total": 0, "errored": 0, "failed": 0, "passed": 0},
            per_criterion=[],
            usage=[],
            statistics={},
            options=options,
            meta=dict(new.metadata),
        )
        async with self._database.write() as session:
            session.add(row)
        try:
            job = await self._jobs.start(_JOB, row.id, {"run_id": row.id}, project_id=project_id)
        except BaseException:
            async with self._database.write() as session:
                await session.execute(delete(EvalRun).where(EvalRun.id == row.id))
            raise
        async with self._database.write() as session:
            row = await session.get_one(EvalRun, row.id)
            row.job_id = job.id
        return row

    async def _options(self, project_id: str, spec: RunSpec, given: Mapping[str, Any], variables: Variables) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if (path := given.get("cluster")) is not None:
            path = path.strip().removeprefix("{{").removesuffix("}}").strip()
            variables.check_path(path, "noria.cluster")
            options["cluster"] = path
        if (prompt := given.get("prompt")) is not None:
            if self._means.prompts is None or spec.model is None:
                raise InvalidRequest("A prompt can be held fixed only where a model is asked.", param="noria.prompt")
            values: dict[str, str] = prompt.get("variables") or {}
            for name, text in values.items():
                variables.check(text, f"noria.prompt.variables.{name}")
            rendered = await self._means.prompts.render(project_id, PromptReference.model_validate(prompt))
            options["prompt"] = {"id": rendered.prompt_id, "version": str(rendered.version), "variables": values}
        return options

    async def get_run(self, project_id: str, eval_id: str | None, run_id: str) -> EvalRun:
        async with self._database.read() as session:
            row = await session.get(EvalRun, run_id)
        if row is None or row.project_id != project_id or (eval_id is not None and row.eval_id != eval_id):
            raise NotFound(f"No run {run_id!r}.", param="run_id")
        return row

    async def list_runs(self, project_id: str, eval_id: str, cursor: Cursor, status: str | None = None) -> Page[EvalRun]:
        await self.get(project_id, eval_id)
        query = select(EvalRun).where(EvalRun.eval_id == eval_id)
        if status is not None:
            query = query.where(EvalRun.status == status)
        async with self._database.read() as session:
            return await page(session, query, EvalRun.id, cursor)

    async def cancel_run(self, project_id: str, eval_id: str, run_id: str) -> EvalRun:
        """Asks a run to stop; what it has done stays. Raises Conflict when it has ended."""
        run = await self.get_run(project_id, eval_id, run_id)
        if run.status in {"completed", "canceled", "failed"}:
            raise Conflict(f"The run {run_id} is {run.status} already.")
        await self._stop(run)
        with contextlib.suppress(Conflict):
            await self._jobs.wait(run.job_id or "", timeout_s=10, project_id=project_id)
        return await self.get_run(project_id, eval_id, run_id)

    async def _stop(self, run: EvalRun) -> None:
        if run.job_id is not None and run.status in {"queued", "in_progress"}:
            with contextlib.suppress(Conflict, NotFound):
                await self._jobs.cancel(run.job_id, run.project_id)

    async def delete_run(self, project_id: str, eval_id: str, run_id: str) -> None:
        run = await self.get_run(project_id, eval_id, run_id)
        await self._stop(run)
        if run.job_id is not None and run.status in {"queued", "in_progress"}:
            with contextlib.suppress(Conflict, NotFound):
                await self._jobs.wait(run.job_id, timeout_s=10, project_id=project_id)
        async with self._database.write() as session:
            await session.execute(delete(EvalItem).where(EvalItem.run_id == run_id))
            await session.execute(delete(EvalRun).where(EvalRun.id == run_id))

    async def list_items(
        self, project_id: str, eval_id: str, run_id: str, cursor: Cursor, status: str | None = None
    ) -> Page[EvalItem]:
        """Items in the order in which they were finished."""
        await self.get_run(project_id, eval_id, run_id)
        query = select(EvalItem).where(EvalItem.run_id == run_id)
        if status is not None:
            query = query.where(EvalItem.status == status)
        async with self._database.read() as session:
            return await page(session, query, EvalItem.id, cursor)

    async def get_item(self, project_id: str, eval_id: str, run_id: str, item_id: str) -> EvalItem:
        await self.get_run(project_id, eval_id, run_id)
        async with self._database.read() as session:
            row = await session.get(EvalItem, item_id)
        if row is None or row.run_id != run_id:
            raise NotFound(f"No output item {item_id!r}.", param="output_item_id")
        return row

    async def resume(self) -> None:
        """Gives runs whose job was lost (a crash between the two) another one. When the server starts, after the jobs."""
        async with self._database.read() as session:
            open_runs = list(await session.scalars(select(EvalRun).where(EvalRun.status.in_(("queued", "in_progress")))))
            query = select(Job.subject).where(Job.kind == _JOB, Job.status.in_(("queued", "running")))
            alive = set(await session.scalars(query))
        for run in open_runs:
            if run.id not in alive:
                job = await self._jobs.start(_JOB, run.id, {"run_id": run.id}, project_id=run.project_id)
                async with self._database.write() as session:
                    (await session.get_one(EvalRun, run.id)).job_id = job.id

    # --- beyond one run ------------------------------------------------------------------------------------------------

    async def compare(
        self, project_id: str, run_a: str, run_b: str, criterion: str | None = None, *, answered_by_a: bool = False
    ) -> Comparison:
        """The run `run_b` beside `run_a` on the rows that both have; `answered_by_a`: of those, what `run_a` could answer."""
        first, second = await self.get_run(project_id, None, run_a), await self.get_run(project_id, None, run_b)
        return await compare(self._database, first, second, criterion, answered_by_a=answered_by_a)

    async def grade_once(self, project_id: str, spec: Mapping[str, Any], row: Row) -> tuple[Grader, Grade]:
        """Grades one row. Raises InvalidRequest for the grader's faults, GradeFailed for the row's, Unavailable when full."""
        grader = parse_grader(spec, "grader")
        grader.check(Variables({}, sample=True), "grader")
        async with tools_for(self._means, project_id, wait_s=_WAIT_S) as (tools, _):
            return grader, await grader.grade(row, tools)

    async def require(self, project_id: str, spec: Mapping[str, Any]) -> None:
        """Raises NotFound for a judge's model that is not there, NotBuilt for a Python grader where there is no sandbox."""
        for model in dict.fromkeys(str(judge["model"]) for judge in judges_in(spec)):
            await self._means.find(model, project_id)
        if any(part.get("type") == "python" for part in parts_of(spec)):
            await asyncio.to_thread(require_sandbox)

    async def can_gate(self, project_id: str, spec: Mapping[str, Any]) -> bool:
        """Whether every judge in it was measured against people and agreed with them."""
        return all(each["calibrated"] for each in (await standing(self._database, project_id, [spec])).values())

    async def import_openai(self, project_id: str, objects: Sequence[Mapping[str, Any]] | None, file_id: str | None) -> Imported:
        """An export of OpenAI's: its objects, or an uploaded file of them. Raises InvalidRequest when there are none."""
        given: list[Any] = list(objects or ())
        text = await self._sources.read(file_id, project_id) if file_id is not None else orjson.dumps(given)
        found = await asyncio.to_thread(lambda: list(objects_in(text)))
        if not found:
            raise InvalidRequest("There is no eval, run, output item or completion in it.", param="file_id", code="empty_data")
        return await import_objects(self._database, project_id, found)

    async def calibrate(
        self, project_id: str, spec: Mapping[str, Any], source: Mapping[str, Any], templates: Templates
    ) -> JudgeAgreement:
        """Measures a judge against people's labels and keeps the result."""
        if not judges_in(spec) or spec.get("type") == "multi":
            raise InvalidRequest("Only graders that ask a model are calibrated.", param="grader.type")
        grader = parse_grader(spec, "grader")
        variables = Variables({}, sample=True)
        grader.check(variables, "grader")
        variables.check(templates.human, "human")
        variables.check(templates.output, "output_text")
        shape: TypeAdapter[Any] = TypeAdapter(FileContent | FileId | DatasetSource)
        parsed = parse(shape, dict(source), "source")
        pinned = parse(shape, await self._sources.pin(parsed, project_id), "source")
        count = await self._sources.count(pinned, None, project_id)
        if not 0 < count <= _MOST_CALIBRATED:
            raise InvalidRequest(
                f"There are {count} rows; calibration takes 1 to {_MOST_CALIBRATED}.", param="source", hint="Set limit."
            )
        rows = [row async for row in self._sources.rows(pinned, None, project_id)]
        async with tools_for(self._means, project_id) as (tools, _):
            labelled = await measure(grader, rows, templates, tools, self._means.concurrency)
        return await keep(self._database, project_id, spec, labelled, pinned)


def check_criteria(criteria: Sequence[Mapping[str, Any]], variables: Variables) -> list[dict[str, Any]]:
    """The criteria as they are kept, each with an id. Raises InvalidRequest."""
    if not criteria:
        raise InvalidRequest("testing_criteria is empty.", param="testing_criteria")
    kept: list[dict[str, Any]] = []
    for number, spec in enumerate(criteria):
        where = f"testing_criteria[{number}]"
        grader = parse_grader(spec, where)
        grader.check(variables, where)
        if grader.name in {each["name"] for each in kept}:
            raise InvalidRequest(f"{where}.name = {grader.name!r} is there twice.", param=f"{where}.name")
        kept.append({**spec, "id": spec.get("id") or new_id(f"{grader.name[:32]}-")})
    return kept


def _item_schema(stored: Mapping[str, Any]) -> Any:
    return ((stored.get("schema") or {}).get("properties") or {}).get("item") or {}


def _check_run(spec: RunSpec, owner: Eval, variables: Variables) -> None:
    if isinstance(spec, JsonlRun):
        return
    has_answers = isinstance(spec.source, _LOGS)
    if spec.model is None and not has_answers:
        raise InvalidRequest("data_source.model is missing.", param="data_source.model", code="missing_required_parameter")
    wanted = spec.input_messages
    if spec.model is not None and wanted is None and not has_answers and not isinstance(spec.source, DatasetSource):
        raise InvalidRequest(
            "data_source.input_messages is missing.", param="data_source.input_messages", code="missing_required_parameter"
        )
    # A row of the run may have more than the eval's templates see, and less than the model's answer.
    of_rows = Variables(variables.item, sample=has_answers)
    if isinstance(wanted, TemplateInput):
        check_messages(wanted.template, of_rows, "data_source.input_messages.template")
    elif isinstance(wanted, ReferenceInput):
        of_rows.check_path(wanted.item_reference, "data_source.input_messages.item_reference")
