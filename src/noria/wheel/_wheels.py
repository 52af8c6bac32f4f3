"""Wheels as a service: made, started, asked of, looked at. Turns run as durable jobs and go on after a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from noria.errors import Conflict, InvalidRequest, NoriaError, NotFound
from noria.jobs import JobContext, Jobs
from noria.store import Cursor, Database, Page, Wheel, WheelTurn

from ._live import count_feedback
from ._parts import Parts
from ._records import Asked, Next, WheelRecords
from ._spec import WheelSpec, check_spec
from ._turn import ALLOWED, TurnRunner

__all__ = ["JOB_KIND", "Preparation", "Wheels"]

JOB_KIND = "wheel_turn"
_JOB_ENDED = {"completed", "failed", "cancelled"}


class Preparation(Protocol):
    """What a wheel needs before its first turn."""

    async def prepare_route(self, project_id: str, route: str, base_model: str) -> str:
        """Makes or takes over the route; the model it leads to."""
        ...

    async def prepare_dataset(self, project_id: str, spec: WheelSpec) -> str: ...

    async def check(self, project_id: str, spec: WheelSpec, dataset_id: str | None = None) -> None:
        """Raises where the base model, a grader, an option of the training or the gate's dataset is not right, or where the
        wheel's dataset, if it is made, was split otherwise."""
        ...


@dataclass
class Wheels:
    """`parts` are what turns are made of, `preparation` what a wheel is made with."""

    database: Database
    jobs: Jobs
    parts: Parts
    preparation: Preparation

    def __post_init__(self) -> None:
        self.records = WheelRecords(self.database)
        self.runner = TurnRunner(self.records, self.parts)
        self.jobs.register(JOB_KIND, self._work)

    # --- wheels -------------------------------------------------------------------------------------------------------

    async def create(self, project_id: str, given: Mapping[str, Any]) -> Wheel:
        """Makes the route (or takes one over) and the dataset. Raises InvalidRequest, Conflict, NotFound."""
        spec = check_spec(given)
        await self.preparation.check(project_id, spec)
        wheel = await self.records.create(project_id, spec)
        try:
            await self.preparation.prepare_route(project_id, spec.route, spec.base_model)
            dataset_id = await self.preparation.prepare_dataset(project_id, spec)
        except BaseException:
            await self.records.remove(wheel.id)
            raise
        return await self.records.update(wheel.id, dataset_id=dataset_id)

    async def update(self, project_id: str, name: str, given: Mapping[str, Any] | None, *, paused: bool | None = None) -> Wheel:
        """A whole new specification (a turn under way keeps its own), or pausing the triggers. Raises as `create` does."""
        wheel = await self.records.find(project_id, name)
        changes: dict[str, Any] = {} if paused is None else {"paused": paused}
        if given is not None:
            spec = check_spec(given)
            if spec.name != wheel.name or spec.route != wheel.route:
                raise InvalidRequest("A wheel keeps its name and its route.", param="spec", hint="Make another wheel.")
            await self.preparation.check(project_id, spec, wheel.dataset_id)
            changes["spec"] = spec.to_json()
        return await self.records.update(wheel.id, **changes) if changes else wheel

    async def remove(self, project_id: str, name: str) -> Wheel:
        """Its route, dataset and models stay. Raises Conflict while a turn is open."""
        wheel = await self.records.find(project_id, name)
        await self.records.remove(wheel.id)
        return wheel

    # --- turns --------------------------------------------------------------------------------------------------------

    async def start(self, project_id: str, name: str, *, by: str = "") -> WheelTurn:
        """Begins a turn. Raises Conflict naming the one under way."""
        wheel = await self.records.find(project_id, name)
        spec = WheelSpec.model_validate(wheel.spec)
        shares = await self.parts.traffic.shares(project_id, wheel.route)
        if not shares:
            raise Conflict(f"The route {wheel.route!r} of the wheel {wheel.name!r} is gone.", hint="Add it again as a route.")
        if len(shares) > 1 and wheel.open_turn_id is None:
            raise Conflict(f"The route {wheel.route!r} leads to {len(shares)} models.", hint="Leave the one to improve on.")
        turns = await self.records.all_turns(wheel.id)
        collected = next((turn for turn in turns if "collect" in turn.data), None)
        trained = next((turn for turn in turns if (turn.data.get("train") or {}).get("model")), None)
        data = {
            "base": max(shares, key=lambda model: shares[model]),
            "models": await self._models(wheel, spec, list(shares)),
            # One second twice: what was stored in it after it was looked at would never be collected.
            "since": collected.data["until"] - 1 if collected else None,
            "until": int(time.time()) + 1,
            "trained_version": trained.data["split"]["version"] if trained else 0,
            "dataset_id": wheel.dataset_id,
            "begun_by": by,
        }
        turn = await self.records.open_turn(wheel.id, spec, data)
        await self.records.note(turn.id, {"salt": turn.id})
        await self._launch(turn)
        return await self.records.turn(turn.id)

    async def _models(self, wheel: Wheel, spec: WheelSpec, now: list[str]) -> list[str]:
        """Whose feedback is collected: those named, else all that the route has led to."""
        if spec.traffic.models:
            return list(spec.traffic.models)
        known = [model for turn in await self.records.all_turns(wheel.id) for model in _led_to(turn)]
        return list(dict.fromkeys([*now, spec.base_model, *known]))

    async def models_of(self, wheel: Wheel, spec: WheelSpec) -> list[str]:
        return await self._models(wheel, spec, list(await self.parts.traffic.shares(wheel.project_id, wheel.route) or {}))

    async def _launch(self, turn: WheelTurn) -> None:
        job = await self.jobs.start(JOB_KIND, turn.id, {"turn_id": turn.id}, project_id=turn.project_id)
        await self.records.set_job(turn.id, job.id)

    async def resume(self) -> None:
        """After a start of the server: turns whose job was never started, or ended without them, get another."""
        for turn in await self.records.unfinished():
            job = None
            if turn.job_id is not None:
                try:
                    job = await self.jobs.get(turn.job_id, turn.project_id)
                except NoriaError:
                    job = None
            if job is None or job.status in _JOB_ENDED:
                await self._launch(turn)

    async def _work(self, context: JobContext, arguments: Mapping[str, Any]) -> None:
        turn_id = arguments["turn_id"]

        async def progress(step: str, done: float, total: float | None) -> None:
            await context.progress(done, total, "steps" if step == "canary" else "", step=step)

        try:
            context.check()
            await self.runner.run(turn_id, progress)
        except asyncio.CancelledError:
            if context.cancelled:  # by `jobs cancel`; else the server stops, and the turn goes on at its next start
                await asyncio.shield(self._abandon(turn_id))
            raise

    async def _abandon(self, turn_id: str) -> None:
        turn = await self.records.turn(turn_id)
        if turn.step == "end":
            return
        spec = WheelSpec.model_validate(turn.spec)
        in_traffic = turn.step in {"canary", "watch"}
        if in_traffic:
            await self._restore(turn, spec)
        else:
            await self.runner.stop_work(turn)
        outcome = "rolled_back" if in_traffic else "cancelled"
        await self.records.advance(turn_id, turn.step, Next("end", outcome=outcome, reason="Its job was cancelled."))

    async def _restore(self, turn: WheelTurn, spec: WheelSpec) -> None:
        await self.parts.traffic.set_shares(turn.project_id, spec.route, {turn.data["base"]: 1.0}, turn.data.get("salt", ""))

    async def ask(self, project_id: str, turn_id: str, what: Asked, *, by: str) -> WheelTurn:
        """Approve, reject, cancel or roll back. Raises Conflict where the turn's step does not allow it."""
        turn = await self.records.turn(turn_id, project_id)
        if what == "rollback" and turn.step == "end" and turn.outcome == "promoted":
            return await self._undo(turn, by)
        turn = await self.records.ask(turn_id, what, by or "somebody", ALLOWED)
        self.runner.nudge(turn_id)
        return turn

    async def _undo(self, turn: WheelTurn, by: str) -> WheelTurn:
        """Takes back a promotion that no guard watches any more."""
        spec = WheelSpec.model_validate(turn.spec)
        shares = await self.parts.traffic.shares(turn.project_id, spec.route)
        if not shares or set(shares) != {turn.data["candidate"]}:
            raise Conflict(f"The route {spec.route!r} no longer leads to {turn.data['candidate']}.", param="turn_id")
        await self._restore(turn, spec)
        reason = f"Rolled back by {by or 'somebody'}."
        return await self.records.advance(turn.id, "end", Next("end", outcome="rolled_back", reason=reason))

    # --- what there is ------------------------------------------------------------------------------------------------

    async def find(self, project_id: str, name: str) -> Wheel:
        return await self.records.find(project_id, name)

    async def list(self, project_id: str, cursor: Cursor) -> Page[Wheel]:
        return await self.records.list(project_id, cursor)

    async def turn(self, project_id: str, wheel: Wheel, turn: str) -> WheelTurn:
        """By id, by number, or `latest`. Raises NotFound."""
        for found in await self.records.all_turns(wheel.id):
            if turn in {"latest", found.id, str(found.number)}:
                return found
        if turn == "latest":
            raise NotFound(f"The wheel {wheel.name!r} has not turned yet.", hint=f"Turn it: noria wheel turn {wheel.name}")
        raise NotFound(f"The wheel {wheel.name!r} has no turn {turn!r}.", param="turn")

    async def turns(self, wheel: Wheel, cursor: Cursor) -> Page[WheelTurn]:
        return await self.records.turns(wheel.id, cursor)

    async def counts(self, wheel: Wheel) -> dict[str, Any]:
        """What flows along each arrow of the wheel, now."""
        spec = WheelSpec.model_validate(wheel.spec)
        turns = await self.records.all_turns(wheel.id)
        shares = await self.parts.traffic.shares(wheel.project_id, wheel.route) or {}
        models = await self.models_of(wheel, spec)
        last = next((turn for turn in turns if turn.data.get("collect")), None)
        since = float(last.data["until"]) if last else 0.0
        split = next((turn.data["split"] for turn in turns if turn.data.get("split")), {})
        candidate = next((turn.data.get("candidate") for turn in turns if turn.id == wheel.open_turn_id), None)
        return {
            "traffic": await self.parts.live.requests(wheel.project_id, wheel.route),
            "feedback": await count_feedback(self.database, wheel.project_id, models, 0.0),
            "new_feedback": await count_feedback(self.database, wheel.project_id, models, since),
            "rows": sum(split.get(f"{name}_rows", 0) for name in ("train", "validation", "test")),
            "trained": sum(bool((turn.data.get("train") or {}).get("model")) for turn in turns),
            "gated": sum("gate" in turn.data for turn in turns),
            "passed": sum(bool((turn.data.get("gate") or {}).get("passed")) for turn in turns),
            "canary_share": shares.get(candidate, 0.0) if candidate else 0.0,
            "promoted": sum(turn.outcome == "promoted" for turn in turns),
            "rolled_back": sum(turn.outcome == "rolled_back" for turn in turns),
            "turns": len(turns),
            "shares": dict(shares),
        }


def _led_to(turn: WheelTurn) -> list[str]:
    """The models that had traffic in a turn."""
    candidate = [turn.data["candidate"]] if "canary" in turn.data else []
    return [turn.data["base"], *candidate]
