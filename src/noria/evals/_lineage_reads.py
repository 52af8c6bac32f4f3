"""The arrows of the loop as the database has them: for each kind of thing its causes and its effects."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from noria.store import (
    Completion,
    Database,
    Dataset,
    DatasetRow,
    DatasetVersion,
    EvalRun,
    Feedback,
    File,
    RowSource,
    StoredResponse,
    TunedModel,
    TuningJob,
    WheelTurn,
)
from noria.tracing import TraceFilter, TraceStore

from ._answers import answer_in
from ._feedback_targets import trace_of_answer
from .datasets import alive

__all__ = ["Kind", "Link", "Node", "Reads"]

Kind = Literal[
    "trace", "completion", "response", "feedback", "row", "version", "file", "job", "model", "eval_run", "turn", "more"
]


@dataclass(frozen=True, slots=True)
class Node:
    id: str
    kind: Kind
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Link:
    """A neighbour, and what connects it. `again`: something more is known of it now, so its own neighbours are asked for anew."""

    node: Node
    kind: str
    again: bool = False


Step = Callable[[Node], Coroutine[Any, Any, list[Link]]]


class Reads:
    """Reads of one walk in one project. `truncated` is set when a thing has more neighbours than were read."""

    def __init__(self, database: Database, traces: TraceStore, project_id: str, limit: int) -> None:
        self._database, self._traces, self._project, self._limit = database, traces, project_id, limit
        self.truncated = False
        self._splits: dict[str, set[str]] = {}
        """Of versions reached by their rows: in which splits those lie. A test row is in no training file."""
        self._back: dict[Kind, Step] = {
            "trace": self._trace_back,
            "completion": self._answer_back,
            "response": self._answer_back,
            "feedback": self._feedback_back,
            "row": self._row_back,
            "version": self._version_back,
            "file": self._file_back,
            "job": self._job_back,
            "model": self._model_back,
            "eval_run": self._run_back,
            "turn": self._turn_back,
        }
        self._forward: dict[Kind, Step] = {
            "trace": self._trace_forward,
            "completion": self._completion_forward,
            "response": self._response_forward,
            "feedback": self._feedback_forward,
            "row": self._row_forward,
            "version": self._version_forward,
            "file": self._file_forward,
            "job": self._job_forward,
            "model": self._model_forward,
            "turn": self._turn_forward,
        }

    async def causes(self, node: Node) -> Sequence[Link]:
        step = self._back.get(node.kind)
        return await step(node) if step else ()

    async def effects(self, node: Node) -> Sequence[Link]:
        step = self._forward.get(node.kind)
        return await step(node) if step else ()

    # --- things -------------------------------------------------------------------------------------------------------

    async def node(self, kind: Kind, identity: str) -> Node | None:
        """A thing by its id; None where it is not there."""
        if kind == "trace":
            return await self._trace(identity)
        async with self._database.read() as session:
            if kind == "version":
                return await self._version_named(session, identity)
            if kind == "row":
                return await self._row_named(session, identity)
            tables: dict[str, Any] = {
                "completion": Completion, "response": StoredResponse, "feedback": Feedback, "file": File, "job": TuningJob,
                "eval_run": EvalRun, "turn": WheelTurn,
            }  # fmt: skip
            if kind == "model":
                row = await session.get(TunedModel, (self._project, identity))
            else:
                row = await session.get(tables[kind], identity)
        if row is not None and row.project_id == self._project:
            return _SHOW[kind](row)
        if kind in {"completion", "response"} and (trace_id := await trace_of_answer(self._traces, self._project, identity)):
            return Node(identity, kind, {"model": None, "trace_id": trace_id})
        return None

    async def _trace(self, trace_id: str) -> Node | None:
        spans = (await self._traces.spans_of([trace_id], project=self._project)).get(trace_id)
        if spans is None:
            return None
        answer = answer_in(spans)
        return Node(trace_id, "trace", {"name": spans[0].name, "model": answer.model if answer else None})

    async def _version_named(self, session: AsyncSession, identity: str) -> Node | None:
        name, _, number = identity.partition("@")
        query = select(Dataset).where(Dataset.project_id == self._project, or_(Dataset.id == name, Dataset.name == name))
        dataset = await session.scalar(query)
        if dataset is None or (number and not number.isdigit()):
            return None
        return await self._version(session, dataset.id, int(number) if number else dataset.head)

    async def _version(self, session: AsyncSession, dataset_id: str, number: int) -> Node | None:
        dataset = await session.get(Dataset, dataset_id)
        version = await session.get(DatasetVersion, (dataset_id, number))
        if dataset is None or version is None or dataset.project_id != self._project:
            return None
        facts = {"dataset_id": dataset.id, "name": dataset.name, "version": number, "rows": version.counts.get("total")}
        return Node(f"{dataset.id}@{number}", "version", facts)

    async def _row_named(self, session: AsyncSession, identity: str) -> Node | None:
        query = select(DatasetRow.dataset_id, DatasetRow.split, DatasetRow.erased_at).join(
            Dataset, Dataset.id == DatasetRow.dataset_id
        )
        query = query.where(DatasetRow.row_id == identity, Dataset.project_id == self._project, DatasetRow.staged.is_(None))
        row = (await session.execute(query.limit(1))).first()
        return Node(identity, "row", {"split": row[1], "erased": row[2] is not None}) if row else None

    async def _links(self, kind: Kind, ids: Sequence[str | None], edge: str) -> list[Link]:
        """Links to those of these things that are there."""
        found: list[Link] = []
        for identity in dict.fromkeys(ids):
            if identity is not None and (node := await self.node(kind, identity)) is not None:
                found.append(Link(node, edge))
        return found

    def _more(self, owner: str, what: str, count: int) -> list[Link]:
        """A node that stands for those that are not shown."""
        if count <= self._limit:
            return []
        self.truncated = True
        return [Link(Node(f"{owner}#{what}", "more", {"of": what, "count": count - self._limit}), what)]

    # --- back ---------------------------------------------------------------------------------------------------------

    async def _trace_back(self, node: Node) -> list[Link]:
        return await self._model_named(node.facts.get("model"), "answered")

    async def _model_named(self, name: str | None, edge: str) -> list[Link]:
        if not name:
            return []
        tuned = await self.node("model", name)
        return [Link(tuned or Node(name, "model", {"base": True}), edge)]

    async def _answer_back(self, node: Node) -> list[Link]:
        """The trace of an answer; where that is gone, the model at least."""
        found = await self._links("trace", [node.facts.get("trace_id")], "recorded")
        return found or await self._model_named(node.facts.get("model"), "answered")

    async def _feedback_back(self, node: Node) -> list[Link]:
        kind = node.facts["target"]["kind"]
        found = await self._links("trace", [node.facts.get("trace_id")], "about")
        if kind in {"completion", "response"}:
            found += await self._links(kind, [node.facts["target"]["id"]], "about")
        return found

    async def _row_back(self, node: Node) -> list[Link]:
        async with self._database.read() as session:
            query = select(RowSource).where(RowSource.row_id == node.id, RowSource.project_id == self._project)
            sources = list(await session.scalars(query.where(RowSource.staged.is_(None)).limit(self._limit)))
        found: list[Link] = []
        for source in sources:
            links = await self._links("feedback", [source.feedback_id], "gave")
            links = links or await self._links("completion", [source.completion_id], "gave")
            links = links or await self._links("trace", [source.trace_id], "gave")
            found += links or await self._links("file", [source.file_id], "gave")
        return found

    async def _version_back(self, node: Node) -> list[Link]:
        dataset_id, number = node.facts["dataset_id"], node.facts["version"]
        held = select(DatasetRow.row_id).where(DatasetRow.dataset_id == dataset_id, alive(number))
        here = (RowSource.dataset_id == dataset_id, RowSource.staged.is_(None), RowSource.row_id.in_(held))
        found: list[Link] = []
        # Each source by the nearest thing that it names: a trace only where there is no feedback on it.
        named = (
            ("feedback", RowSource.feedback_id, RowSource.feedback_id.is_not(None)),
            ("completion", RowSource.completion_id, RowSource.feedback_id.is_(None)),
            ("trace", RowSource.trace_id, RowSource.feedback_id.is_(None) & RowSource.completion_id.is_(None)),
            ("file", RowSource.file_id, RowSource.file_id.is_not(None)),
        )
        for kind, column, only in named:
            query = select(column).where(*here, only, column.is_not(None)).distinct()
            async with self._database.read() as session:
                count = await session.scalar(select(func.count()).select_from(query.subquery())) or 0
                ids = list(await session.scalars(query.order_by(column.desc()).limit(self._limit)))
            found += await self._links(kind, ids, "gave")  # type: ignore[arg-type]
            found += self._more(node.id, kind, count)
        return found

    async def _file_back(self, node: Node) -> list[Link]:
        origin = node.facts.get("origin") or {}
        if origin.get("kind") != "dataset":
            return []
        async with self._database.read() as session:
            version = await self._version(session, origin["dataset_id"], origin["version"])
        return [Link(version, "exported")] if version else []

    async def _job_back(self, node: Node) -> list[Link]:
        found = await self._links("file", [node.facts["training_file"], node.facts["validation_file"]], "trained")
        async with self._database.read() as session:
            query = select(WheelTurn.id).where(WheelTurn.data["train"]["job_id"].as_string() == node.id)
            turns = list(await session.scalars(query.where(WheelTurn.project_id == self._project)))
        found += await self._links("turn", turns, "started")
        return found + await self._model_named(node.facts["model"], "base")

    async def _model_back(self, node: Node) -> list[Link]:
        if node.facts.get("base"):
            return []
        found = await self._links("job", [node.facts.get("job_id")], "made")
        return found or await self._model_named(node.facts.get("base_model"), "base")

    async def _run_back(self, node: Node) -> list[Link]:
        found = await self._model_named(node.facts.get("model"), "evaluated")
        if node.facts.get("dataset"):
            async with self._database.read() as session:
                name = f"{node.facts['dataset']}@{node.facts['version']}" if node.facts["version"] else node.facts["dataset"]
                version = await self._version_named(session, name)
            found += [Link(version, "asked")] if version else []
        return found

    async def _turn_back(self, node: Node) -> list[Link]:
        if not node.facts.get("dataset_id") or not node.facts.get("version"):
            return []
        async with self._database.read() as session:
            version = await self._version(session, node.facts["dataset_id"], node.facts["version"])
        return [Link(version, "turned")] if version else []

    # --- forward ------------------------------------------------------------------------------------------------------

    async def _trace_forward(self, node: Node) -> list[Link]:
        found = await self._of(Feedback, "feedback", Feedback.trace_id == node.id, "about")
        found += await self._of(Completion, "completion", Completion.trace_id == node.id, "recorded")
        found += await self._of(StoredResponse, "response", StoredResponse.trace_id == node.id, "recorded")
        return found + await self._rows_of(node.id, (RowSource.trace_id == node.id) & RowSource.feedback_id.is_(None))

    async def _completion_forward(self, node: Node) -> list[Link]:
        found = await self._of(Feedback, "feedback", Feedback.target_id == node.id, "about")
        rows = (RowSource.completion_id == node.id) & RowSource.feedback_id.is_(None)
        return found + await self._rows_of(node.id, rows)

    async def _response_forward(self, node: Node) -> list[Link]:
        return await self._of(Feedback, "feedback", Feedback.target_id == node.id, "about")

    async def _feedback_forward(self, node: Node) -> list[Link]:
        return await self._rows_of(node.id, RowSource.feedback_id == node.id)

    async def _of(self, table: Any, kind: Kind, where: Any, edge: str) -> list[Link]:
        query = select(table).where(table.project_id == self._project, where)
        async with self._database.read() as session:
            rows = list(await session.scalars(query.order_by(table.id).limit(self._limit + 1)))
        self.truncated = self.truncated or len(rows) > self._limit
        return [Link(_SHOW[kind](row), edge) for row in rows[: self._limit]]

    async def _rows_of(self, owner: str, where: Any) -> list[Link]:
        query = (
            select(RowSource.row_id).where(RowSource.project_id == self._project, RowSource.staged.is_(None), where).distinct()
        )
        async with self._database.read() as session:
            count = await session.scalar(select(func.count()).select_from(query.subquery())) or 0
            ids = list(await session.scalars(query.order_by(RowSource.row_id).limit(self._limit)))
        return await self._links("row", ids, "gave") + self._more(owner, "row", count)

    async def _row_forward(self, node: Node) -> list[Link]:
        """The versions that hold a row: those that were used for something, and the newest of each dataset."""
        query = select(DatasetRow.dataset_id, DatasetRow.added_in, DatasetRow.removed_in, Dataset.head, DatasetRow.split)
        query = query.join(Dataset, Dataset.id == DatasetRow.dataset_id)
        query = query.where(DatasetRow.row_id == node.id, Dataset.project_id == self._project, DatasetRow.staged.is_(None))
        found: list[Link] = []
        async with self._database.read() as session:
            for dataset_id, added_in, removed_in, head, split in (await session.execute(query)).all():
                last = (removed_in - 1) if removed_in else head
                used = await self._used_versions(session, dataset_id)
                numbers = sorted({number for number in used if added_in <= number <= last} | {last})
                for number in numbers[-self._limit :]:
                    if (version := await self._version(session, dataset_id, number)) is not None:
                        splits = self._splits.setdefault(version.id, set())
                        found.append(Link(version, "in", again=split not in splits))
                        splits.add(split)
        return found

    async def _used_versions(self, session: AsyncSession, dataset_id: str) -> set[int]:
        files = select(File.origin).where(File.origin["dataset_id"].as_string() == dataset_id)
        used = {int(origin["version"]) for origin in await session.scalars(files) if origin}
        runs = await session.scalars(select(EvalRun.data_source).where(self._runs_on(dataset_id)))
        return used | {int(source["source"]["version"]) for source in runs if source["source"].get("version")}

    def _runs_on(self, dataset_id: str) -> Any:
        return EvalRun.data_source["source"]["dataset"].as_string() == dataset_id

    async def _version_forward(self, node: Node) -> list[Link]:
        dataset_id, number = node.facts["dataset_id"], node.facts["version"]
        here = File.origin["dataset_id"].as_string() == dataset_id
        found = await self._of(File, "file", here & (File.origin["version"].as_integer() == number), "exported")
        splits = self._splits.get(node.id)
        found = [link for link in found if splits is None or _split_of(link.node) in {None, *splits}]
        runs = or_(self._runs_on(dataset_id), self._runs_on(node.facts["name"]))
        runs &= EvalRun.data_source["source"]["version"].as_integer() == number
        found += await self._of(EvalRun, "eval_run", runs, "asked")
        turns = WheelTurn.data["dataset_id"].as_string() == dataset_id
        turns &= WheelTurn.data["split"]["version"].as_integer() == number
        return found + await self._of(WheelTurn, "turn", turns, "turned")

    async def _file_forward(self, node: Node) -> list[Link]:
        used = or_(TuningJob.training_file == node.id, TuningJob.validation_file == node.id)
        found = await self._of(TuningJob, "job", used, "trained")
        return found + await self._rows_of(node.id, RowSource.file_id == node.id)

    async def _job_forward(self, node: Node) -> list[Link]:
        return await self._of(TunedModel, "model", TunedModel.tuning_job_id == node.id, "made")

    async def _model_forward(self, node: Node) -> list[Link]:
        found = await self._of(EvalRun, "eval_run", EvalRun.model == node.id, "evaluated")
        found += await self._of(TuningJob, "job", TuningJob.model == node.id, "base")
        if (answers := await self._traces.count(TraceFilter(project=self._project, model=node.id))) > 0:
            found.append(Link(Node(f"{node.id}#answers", "more", {"of": "trace", "count": answers}), "answered"))
        return found

    async def _turn_forward(self, node: Node) -> list[Link]:
        found = await self._links("job", [node.facts.get("job_id")], "started")
        return found + await self._links("eval_run", node.facts.get("runs") or [], "started")


def _split_of(file: Node) -> str | None:
    return (file.facts.get("origin") or {}).get("split")


def _show_feedback(row: Feedback) -> Node:
    target = {"kind": row.target_kind, "id": row.target_id}
    said = {"rating": {1: "up", -1: "down"}.get(row.rating or 0), "label": row.label, "corrected": row.correction is not None}
    return Node(row.id, "feedback", {"target": target, "trace_id": row.trace_id, "model": row.model, **said})


def _show_run(row: EvalRun) -> Node:
    source: Any = row.data_source.get("source") or {}
    facts = {"eval_id": row.eval_id, "model": row.model, "status": row.status}
    if source.get("type") == "noria_dataset":
        facts |= {"dataset": source["dataset"], "version": source.get("version")}
    return Node(row.id, "eval_run", facts)


def _show_turn(row: WheelTurn) -> Node:
    data = row.data
    runs = [run.get("run_id") for run in (data.get("evaluate") or {}).values()]
    made = {"dataset_id": data.get("dataset_id"), "version": (data.get("split") or {}).get("version")}
    made |= {"job_id": (data.get("train") or {}).get("job_id"), "runs": runs, "candidate": data.get("candidate")}
    return Node(row.id, "turn", {"wheel_id": row.wheel_id, "number": row.number, "outcome": row.outcome, **made})


def _show_job(row: TuningJob) -> Node:
    facts = {"model": row.model, "status": row.status, "training_file": row.training_file}
    return Node(row.id, "job", {**facts, "validation_file": row.validation_file, "made": row.fine_tuned_model})


def _show_model(row: TunedModel) -> Node:
    return Node(row.id, "model", {"base_model": row.base_model, "job_id": row.tuning_job_id, "marks": row.marks})


_SHOW: dict[str, Callable[[Any], Node]] = {
    "completion": lambda row: Node(row.id, "completion", {"model": row.model, "trace_id": row.trace_id}),
    "response": lambda row: Node(row.id, "response", {"model": row.body.get("model"), "trace_id": row.trace_id}),
    "feedback": _show_feedback,
    "file": lambda row: Node(row.id, "file", {"filename": row.filename, "origin": row.origin}),
    "job": _show_job,
    "model": _show_model,
    "eval_run": _show_run,
    "turn": _show_turn,
}
