"""One turn, step by step: collect → curate → split → train → evaluate → gate → approve → canary → watch → end.

Each step reads what the steps before recorded, does its work through the parts, and says how the turn goes on; the runner
records that in one transaction. A step may run again after a crash, so what it starts is keyed by the turn, and what it sets
(the route's shares) is set to the same again. Knows nothing about HTTP, jobs or how the parts work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from noria.errors import NoriaError, Unavailable
from noria.store import WheelTurn

from ._canary import CanaryKeeper
from ._gate import decide
from ._parts import Collected, CollectOrder, Parts, RunState, Split, TestOrder, TrainingState, TrainOrder
from ._records import Next, WheelRecords
from ._spec import WheelSpec

__all__ = ["ALLOWED", "Progress", "TurnRunner"]

_BEFORE_CANARY = ("collect", "curate", "split", "train", "evaluate", "gate", "approve")
ALLOWED: dict[str, tuple[str, ...]] = {
    "approve": ("approve",),
    "reject": ("approve",),
    "cancel": (*_BEFORE_CANARY, "canary"),
    "rollback": ("canary", "watch"),
}
"""What a person may ask of a turn, and at which steps."""

Progress = Callable[[str, float, float | None], Awaitable[None]]
_POLL_S = 1.0
_ATTEMPTS = 6
_NOTE_SPENT_S = 10.0
_log = logging.getLogger("noria.wheel")


@dataclass(slots=True)
class TurnRunner:
    """Runs turns to their end. `nudge` wakes a turn that waits, when somebody asked something of it."""

    records: WheelRecords
    parts: Parts
    poll_s: float = _POLL_S
    clock: Callable[[], float] = time.time
    _nudges: dict[str, asyncio.Event] = field(default_factory=dict[str, asyncio.Event])

    def nudge(self, turn_id: str) -> None:
        if (event := self._nudges.get(turn_id)) is not None:
            event.set()

    async def run(self, turn_id: str, progress: Progress) -> WheelTurn:
        """From wherever the turn stands to its end."""
        self._nudges[turn_id] = asyncio.Event()
        try:
            while (turn := await self.records.turn(turn_id)).step != "end":
                await progress(turn.step, 0, None)
                to = await self._step(_At(self, turn, WheelSpec.model_validate(turn.spec), progress))
                await self.records.advance(turn_id, turn.step, to)
            return turn
        finally:
            self._nudges.pop(turn_id, None)

    async def _step(self, at: _At) -> Next:
        """Does a step. What is only unavailable is tried again; what fails ends the turn, with the base on all traffic."""
        attempt = 0
        while True:
            try:
                if (by := at.asked("cancel")) is not None and at.turn.step in _BEFORE_CANARY:
                    return await at.cancelled(by)
                return await _STEPS[at.turn.step](at)
            except Unavailable as error:
                # In a row: a watch of a day may meet a busy database more often than a step's attempts.
                attempt, at.looked = 1 if at.looked else attempt + 1, False
                if attempt == _ATTEMPTS:
                    return await at.failed(error)
                await self.wait(at.turn.id, min(error.retry_after_s or 2.0 ** (attempt - 1), 30.0))
                await at.reload()
            except NoriaError as error:
                return await at.failed(error)
            except Exception as error:
                _log.exception("The turn %s failed at the step %s", at.turn.id, at.turn.step)
                return await at.failed(error)

    async def stop_work(self, turn: WheelTurn) -> None:
        """Ends the training or the evaluation that a turn waits for."""
        if turn.step == "train" and (job_id := (turn.data.get("train") or {}).get("job_id")):
            await self.parts.trainer.cancel(turn.project_id, job_id)
        if turn.step == "evaluate":
            for run in (turn.data.get("evaluate") or {}).values():
                await self.parts.evaluator.cancel(turn.project_id, run["run_id"])

    async def wait(self, turn_id: str, seconds: float) -> None:
        """Sleeps, or less when somebody asks something of the turn."""
        event = self._nudges[turn_id]
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return
        event.clear()


@dataclass(slots=True)
class _At:
    """A turn at a step."""

    runner: TurnRunner
    turn: WheelTurn
    spec: WheelSpec
    progress: Progress
    spent_s: float = 0.0
    looked: bool = False
    """A look at what is under way went well since the last failure."""

    @property
    def parts(self) -> Parts:
        return self.runner.parts

    @property
    def data(self) -> dict[str, Any]:
        return self.turn.data

    async def note(self, **data: Any) -> None:
        self.turn = await self.runner.records.note(self.turn.id, data)

    async def reload(self) -> None:
        self.turn = await self.runner.records.turn(self.turn.id)

    def asked(self, what: str) -> str | None:
        """Who asked for it."""
        asked = self.data.get("asked") or {}
        return asked.get("by", "") if asked.get("what") == what else None

    async def pause(self) -> str | None:
        """Between two looks at work under way. Who has asked to cancel meanwhile; raises when the budget is spent."""
        self.looked = True
        slept_at = self.runner.clock()
        await self.runner.wait(self.turn.id, self.runner.poll_s)
        await self.reload()
        before = max(self.spent_s, self.data.get("spent_s", 0.0))
        self.spent_s = before + self.runner.clock() - slept_at
        if self.spent_s > self.spec.budget.minutes * 60:
            raise NoriaError(f"The turn's budget of {self.spec.budget.minutes:g} minutes is spent.")
        if int(self.spent_s / _NOTE_SPENT_S) != int(before / _NOTE_SPENT_S):
            await self.note(spent_s=self.spent_s)
        return self.asked("cancel")

    async def cancelled(self, by: str) -> Next:
        await self.runner.stop_work(self.turn)
        return Next("end", outcome="cancelled", reason=f"Cancelled by {by}.")

    async def failed(self, error: Exception) -> Next:
        what = str(error) if isinstance(error, NoriaError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(NoriaError):  # else a training would go on for nobody
            await self.runner.stop_work(self.turn)
        if self.turn.step in {"canary", "watch"}:
            await self.restore_base()
            return Next("end", outcome="rolled_back", reason=what, failed=True)
        return Next("end", outcome="failed", reason=f"{self.turn.step}: {what}", failed=True)

    async def restore_base(self) -> None:
        await self.parts.traffic.set_shares(
            self.turn.project_id, self.spec.route, {self.data["base"]: 1.0}, self.data.get("salt", "")
        )


# --- the dataset ------------------------------------------------------------------------------------------------------


async def _collect(at: _At) -> Next:
    data = at.data
    order = CollectOrder(
        project_id=at.turn.project_id,
        dataset_id=data["dataset_id"],
        spec=at.spec,
        models=data["models"],
        since=data.get("since"),
        until=data["until"],
        trained=data.get("trained_version", 0),
    )
    found = await at.parts.rows.collect(order)
    made = {"collect": asdict(found), "dataset_id": found.dataset_id}
    if found.new_rows < at.spec.data.min_new_rows:
        reason = "No new feedback has come."
        if found.feedback or found.new_rows:
            reason = (
                f"{found.feedback} records of feedback gave {found.new_rows} new rows since the last training, "
                f"fewer than min_new_rows = {at.spec.data.min_new_rows}."
            )
        return Next("end", made, "skipped", reason)
    return Next("curate", made)


async def _curate(at: _At) -> Next:
    found = await at.parts.rows.curate(at.turn.project_id, at.spec, Collected(**at.data["collect"]))
    made = {"curate": asdict(found)}
    if found.stopped_by:
        kinds = " and ".join(found.stopped_by)
        return Next("end", made, "rejected", f"Curation found {kinds}, at which the specification stops.")
    return Next("split", made)


async def _split(at: _At) -> Next:
    found = await at.parts.rows.split(at.turn.project_id, at.spec, at.data["dataset_id"], at.data["curate"]["version"])
    made, data, gate = {"split": asdict(found)}, at.spec.data, at.spec.gate
    if found.train_rows < data.min_rows:
        removed = sum(at.data["curate"]["removed"].values())
        reason = f"{found.train_rows} rows to train on, fewer than min_rows = {data.min_rows} ({removed} were removed)."
        return Next("end", made, "skipped", reason)
    if found.num_answers < 2:
        return Next("end", made, "rejected", "All rows have one and the same answer: there is nothing to tell apart.")
    if gate.dataset is None and found.test_rows < gate.min_rows:
        reason = f"{found.test_rows} held-out rows, fewer than gate.min_rows = {gate.min_rows}: no gain could be shown."
        return Next("end", made, "skipped", reason)
    return Next("train", made)


# --- the candidate ----------------------------------------------------------------------------------------------------


async def _train(at: _At) -> Next:
    split = Split(**at.data["split"])
    assert split.train_file is not None
    order = TrainOrder(at.turn.id, at.turn.project_id, at.spec, split.train_file, split.validation_file)
    job_id = await at.parts.trainer.start(order)
    begun = at.data.get("train", {}).get("begun_at", int(at.runner.clock()))
    await at.note(train={"job_id": job_id, "begun_at": begun})
    state = await _until_trained(at, job_id)
    if isinstance(state, str):
        return await at.cancelled(state)
    made = {"train": {**at.data["train"], **asdict(state), "ended_at": int(at.runner.clock())}}
    if state.status != "succeeded" or state.model is None:
        return Next("end", made, "failed", f"Training {state.status}: {state.error or 'without a reason'}", failed=True)
    return Next("evaluate", {**made, "candidate": state.model})


async def _until_trained(at: _At, job_id: str) -> TrainingState | str:
    while (state := await at.parts.trainer.state(at.turn.project_id, job_id)).status == "running":
        await at.progress("train", state.done, state.total)
        if (by := await at.pause()) is not None:
            return by
    return state


async def _evaluate(at: _At) -> Next:
    runs: dict[str, dict[str, Any]] = {}
    for role in ("base", "candidate"):
        run_id = await at.parts.evaluator.start(_test_order(at, role, at.data[role]))
        await at.note(evaluate={**at.data.get("evaluate", {}), role: {"run_id": run_id}})
        state = await _until_evaluated(at, run_id)
        if isinstance(state, str):
            return await at.cancelled(state)
        runs[role] = {"run_id": run_id, "model": at.data[role], **asdict(state)}
        if state.status != "completed":
            reason = f"The evaluation of {at.data[role]} {state.status}: {state.error or 'without a reason'}"
            return Next("end", {"evaluate": runs}, "failed", reason, failed=True)
    return Next("gate", {"evaluate": runs})


def _test_order(at: _At, role: str, model: str) -> TestOrder:
    gate = at.spec.gate
    own = gate.dataset is None
    return TestOrder(
        turn=at.turn.id,
        role=role,
        project_id=at.turn.project_id,
        spec=at.spec,
        model=model,
        dataset=at.data["dataset_id"] if gate.dataset is None else gate.dataset,
        version=at.data["split"]["version"] if own else None,
        split="test" if own else gate.split,
    )


async def _until_evaluated(at: _At, run_id: str) -> RunState | str:
    while (state := await at.parts.evaluator.state(at.turn.project_id, run_id)).status == "running":
        await at.progress("evaluate", state.done, state.total)
        if (by := await at.pause()) is not None:
            return by
    return state


async def _gate(at: _At) -> Next:
    runs = at.data["evaluate"]
    compared = await at.parts.comparer.compare(at.turn.project_id, runs["base"]["run_id"], runs["candidate"]["run_id"])
    verdict = decide(at.spec.gate, compared, forgetting=at.data["train"].get("forgetting"))
    made = {"gate": {"passed": verdict.passed, "why": verdict.why, "comparisons": [each.to_json() for each in compared]}}
    if not verdict.passed:
        return Next("end", made, "rejected", verdict.why)
    return Next("approve" if at.spec.approval.mode == "manual" else "canary", made)


async def _approve(at: _At) -> Next:
    while True:
        if (by := at.asked("approve")) is not None:
            return Next("canary", {"approved_by": by})
        if (by := at.asked("reject")) is not None:
            return Next("end", outcome="rejected", reason=f"Rejected by {by}.")
        if (by := at.asked("cancel")) is not None:
            return await at.cancelled(by)
        await at.runner.wait(at.turn.id, 60.0)
        await at.reload()


# --- traffic ----------------------------------------------------------------------------------------------------------


async def _canary(at: _At) -> Next:
    keeper = _keeper(at)
    if (why := await keeper.blocked()) is not None:
        return Next("end", outcome="rejected", reason=why)
    await at.parts.traffic.warm(at.turn.project_id, at.data["candidate"])
    while True:
        if (by := at.asked("rollback") or at.asked("cancel")) is not None:
            await at.restore_base()
            return Next("end", outcome="rolled_back", reason=f"Rolled back by {by}.")
        look = await keeper.look()
        if look.over:
            break
        await at.note(canary=look.state)
        at.looked = True
        await at.progress("canary", look.step, len(at.spec.canary.steps))
        await at.runner.wait(at.turn.id, at.spec.guard.every_s)
        await at.reload()
    if look.breach is not None:
        await at.restore_base()
        return Next("end", {"canary": look.state}, "rolled_back", look.breach)
    await keeper.promote()
    promoted = {"canary": look.state, "promoted_at": at.runner.clock()}
    step = "watch" if at.spec.guard.watch_hours > 0 else "end"
    return Next(step, promoted, "promoted", "The candidate answers all of the route's traffic.")


async def _watch(at: _At) -> Next:
    keeper = _keeper(at)
    keeper.resume(at.data.get("watch") or {})
    while True:
        look = await keeper.look_after()
        if look.over and look.breach is None:  # the time is over, or another turn has the route now
            return Next("end", {"watch": look.state})
        by = at.asked("rollback") or at.asked("cancel")
        if look.breach is not None or by is not None:
            await at.restore_base()
            return Next("end", {"watch": look.state}, "rolled_back", look.breach or f"Rolled back by {by}.")
        await at.note(watch=look.state)
        at.looked = True
        await at.runner.wait(at.turn.id, at.spec.guard.every_s)
        await at.reload()


def _keeper(at: _At) -> CanaryKeeper:
    return CanaryKeeper(at.parts.traffic, at.parts.live, at.spec, at.turn.project_id, at.data, at.runner.clock)


_STEPS: dict[str, Callable[[_At], Awaitable[Next]]] = {
    "collect": _collect,
    "curate": _curate,
    "split": _split,
    "train": _train,
    "evaluate": _evaluate,
    "gate": _gate,
    "approve": _approve,
    "canary": _canary,
    "watch": _watch,
}
