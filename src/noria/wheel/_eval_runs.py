"""The gate's evaluations as runs of an eval, one eval a turn, one run a model; found again by their names after a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from noria.errors import Conflict, InvalidRequest, NotBuilt, NotFound
from noria.evals import Evals, NewRun, Variables, parse_grader
from noria.store import Database, Eval, EvalRun, Job

from ._parts import Comparison, RunState, TestOrder
from ._spec import Gate

__all__ = ["EvalRuns", "check_graders"]

_ITEM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "input": {"type": "string"},
        "expected": {"type": "string"},
        "messages": {"type": "array"},
        "tools": {"type": "array"},
        "chosen": {"type": "string"},
        "rejected": {"type": "string"},
        "row_id": {"type": "string"},
        "split": {"type": "string"},
        "metadata": {"type": "object"},
    },
}
_STATUS = {"completed": "completed", "failed": "failed", "canceled": "cancelled"}


async def check_graders(evals: Evals, project_id: str, gate: Gate) -> None:
    """Raises InvalidRequest for a grader that could not gate, naming it: nobody wants to hear that after the training."""
    names: set[str] = set()
    for index, given in enumerate(gate.graders):
        where = f"gate.graders.{index}"
        grader = parse_grader(given, where)
        grader.check(Variables(_ITEM, sample=True), where)
        if grader.name in names:
            raise InvalidRequest(f"{where}.name = {grader.name!r} is there twice.", param=f"{where}.name")
        names.add(grader.name)
        try:
            await evals.require(project_id, given)
        except (NotBuilt, NotFound) as error:
            raise InvalidRequest(f"{where}: {error.message}", param=where, code=error.code, hint=error.hint) from None
        if not await evals.can_gate(project_id, given):
            raise InvalidRequest(
                f"{where} ({grader.name!r}) asks a model whose agreement with people was not measured, or is too low: it "
                "cannot gate.",
                param=where,
                code="uncalibrated_judge",
                hint="Calibrate it first: noria eval calibrate JUDGE --data ROWS",
            )


class EvalRuns:
    def __init__(self, database: Database, evals: Evals) -> None:
        self._database, self._evals = database, evals

    async def start(self, order: TestOrder) -> str:
        """The run of a turn's role; the one that is there already, if it was not cancelled or broken by a restart."""
        owner = await self._owner(order)
        query = select(EvalRun).where(EvalRun.eval_id == owner.id, EvalRun.name == order.role).order_by(EvalRun.id.desc())
        async with self._database.read() as session:
            found = await session.scalar(query.limit(1))
        if found is not None:
            return found.id
        gate = order.spec.gate
        source = {"type": "noria_dataset", "dataset": order.dataset, "limit": gate.max_rows}
        source |= {"version": order.version} if order.version else {}
        source |= {"split": order.split} if order.split else {}
        asked = {"type": "completions", "source": source, "model": order.model, "sampling_params": dict(gate.sampling)}
        metadata = {"noria_wheel": order.spec.name, "noria_turn": order.turn}
        return (await self._evals.create_run(order.project_id, owner.id, NewRun(asked, order.role, metadata))).id

    async def _owner(self, order: TestOrder) -> Eval:
        name = f"{order.spec.name} {order.turn}"
        query = select(Eval).where(Eval.project_id == order.project_id, Eval.name == name).limit(1)
        async with self._database.read() as session:
            found = await session.scalar(query)
        if found is not None:
            return found
        config = {"type": "custom", "item_schema": _ITEM, "include_sample_schema": True}
        metadata = {"noria_wheel": order.spec.name, "noria_turn": order.turn}
        return await self._evals.create(order.project_id, config, order.spec.gate.graders, name=name, metadata=metadata)

    async def state(self, project_id: str, run_id: str) -> RunState:
        run = await self._evals.get_run(project_id, None, run_id)
        counts = run.result_counts
        error = (run.error or {}).get("message")
        status = _STATUS.get(run.status, "running")
        if status == "running" and (lost := await self._lost(run)) is not None:
            status, error = "failed", lost
        return RunState(
            status=status,  # type: ignore[arg-type]
            rows=int(counts.get("total", 0)),
            errors=int(counts.get("errored", 0)),
            error=error,
            done=float(counts.get("total", 0)),
            total=float(run.num_items) if run.num_items else None,
            scores=_scores(run.statistics),
        )

    async def _lost(self, run: EvalRun) -> str | None:
        """Why a run that looks alive never goes on: its job has ended without it."""
        async with self._database.read() as session:
            job = await session.get(Job, run.job_id) if run.job_id else None
        return job.error or "its job failed" if job is not None and job.status in {"failed", "cancelled"} else None

    async def cancel(self, project_id: str, run_id: str) -> None:
        run = await self._evals.get_run(project_id, None, run_id)
        with contextlib.suppress(Conflict, NotFound):
            await self._evals.cancel_run(project_id, run.eval_id, run_id)

    async def compare(self, project_id: str, base_run: str, candidate_run: str) -> Sequence[Comparison]:
        run = await self._evals.get_run(project_id, None, base_run)
        owner = await self._evals.get(project_id, run.eval_id)
        return [await self._one(project_id, base_run, candidate_run, str(each["name"])) for each in owner.testing_criteria]

    async def _one(self, project_id: str, base_run: str, candidate_run: str, grader: str) -> Comparison:
        """Scores decide where they say more than pass and fail; else McNemar's test of the passes.

        A row that the candidate could not answer is lost. One that the base could not is left out: an engine that was away for
        a moment would else be the candidate's gain.
        """
        found = await self._evals.compare(project_id, base_run, candidate_run, grader, answered_by_a=True)
        pairs = found.pairs
        test = found.passes if found.scores is None else found.scores
        if found.scores is None:
            base, candidate = (sum(p.passed_a for p in pairs), sum(p.passed_b for p in pairs))
        else:
            base, candidate = (sum(p.score_a or 0.0 for p in pairs), sum(p.score_b or 0.0 for p in pairs))
        num = max(1, len(pairs))
        difference = test.difference
        return Comparison(
            grader=grader,
            rows=len(pairs),
            wins=found.count("win"),
            losses=found.count("loss"),
            ties=found.count("tie"),
            base=base / num,
            candidate=candidate / num,
            difference=difference.estimate or 0.0,
            low=difference.low or 0.0,
            high=difference.high or 0.0,
            p=test.p_value,
            test=test.test,
            can_gate=found.can_gate,
            unanswered=found.left_out,
        )


def _scores(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """By grader: the mean with its interval, and precision and recall where labels were told apart."""
    found: dict[str, Any] = {}
    for name, entry in (statistics.get("criteria") or {}).items():
        score = entry.get("score") or {}
        if score.get("estimate") is None:
            continue
        found[name] = {"mean": score["estimate"], "low": score["low"], "high": score["high"], "rows": score["n"]}
        if entry.get("classification"):
            found[name]["classification"] = entry["classification"]
    return found
