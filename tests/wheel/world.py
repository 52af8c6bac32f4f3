"""A small world for turns: parts that keep what they did, so that a turn can be killed anywhere and go on beside the same world.

As the real ones they start each piece of work once a key, and find it again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from noria.store import Database, Wheel, WheelTurn
from noria.wheel import (
    Collected,
    CollectOrder,
    Comparison,
    Curated,
    LiveFigures,
    Parts,
    RunState,
    Split,
    TestOrder,
    TrainingState,
    TrainOrder,
    WheelSpec,
)
from noria.wheel._parts import Against
from noria.wheel._records import WheelRecords
from noria.wheel._turn import TurnRunner

SPEC: dict[str, Any] = {
    "name": "support",
    "base_model": "small",
    "data": {"min_rows": 10},
    "canary": {"steps": [{"share": 0.1, "min_requests": 20, "minutes": 0}, {"share": 0.5, "min_requests": 20, "minutes": 0}]},
    "guard": {"every_s": 0.05, "watch_hours": 0},
}


class Crash(BaseException):
    """As kill -9: nothing after it runs."""


@dataclass
class World:
    """`scores` are by model; `live` what a variant's traffic looks like; each look at it brings `requests_per_look` requests."""

    scores: dict[str, float] = field(default_factory=lambda: {"small": 0.5, "ft:1": 0.9})
    feedback: int = 200
    split: Split = field(default_factory=lambda: Split(2, 150, 10, 40, 2, "file-train", "file-valid"))
    curated: Curated = field(default_factory=lambda: Curated(2, {"exact_duplicate": 3}))
    p: float = 1e-6
    forgetting: float | None = 0.0
    can_gate: bool = True
    error_rate: dict[str, float] = field(default_factory=dict[str, float])
    negative_rate: dict[str, float] = field(default_factory=dict[str, float])
    slow_rate: dict[str, float] = field(default_factory=dict[str, float])
    requests_per_look: int = 25
    training_fails: str | None = None
    shares: dict[str, float] = field(default_factory=lambda: {"small": 1.0})
    share_history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    trained: list[str] = field(default_factory=list[str])
    runs: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    warm: set[str] = field(default_factory=set[str])
    cancelled: list[str] = field(default_factory=list[str])
    seen: dict[str, int] = field(default_factory=dict[str, int])
    crash_at: int | None = None
    calls: int = 0

    def tick(self) -> None:
        """A place where a process can die."""
        self.calls += 1
        if self.crash_at is not None and self.calls == self.crash_at:
            raise Crash

    @property
    def parts(self) -> Parts:
        evaluator = _Evaluator(self)
        return Parts(_Rows(self), _Trainer(self), evaluator, evaluator, _Traffic(self), _Live(self))


@dataclass
class _Rows:
    world: World

    async def collect(self, order: CollectOrder) -> Collected:
        self.world.tick()
        return Collected(order.dataset_id, 1, self.world.feedback, self.world.feedback)

    async def curate(self, project_id: str, spec: WheelSpec, collected: Collected) -> Curated:
        self.world.tick()
        return self.world.curated

    async def split(self, project_id: str, spec: WheelSpec, dataset_id: str, version: int) -> Split:
        self.world.tick()
        return self.world.split


@dataclass
class _Trainer:
    world: World

    async def start(self, order: TrainOrder) -> str:
        self.world.tick()
        job_id = f"ftjob-{order.turn}"
        if job_id not in self.world.trained:
            self.world.trained.append(job_id)
        self.world.tick()
        return job_id

    async def state(self, project_id: str, job_id: str) -> TrainingState:
        self.world.tick()
        if job_id in self.world.cancelled:
            return TrainingState("cancelled")
        if self.world.training_fails == "never ends":
            return TrainingState("running", done=1, total=10)
        if self.world.training_fails is not None:
            return TrainingState("failed", error=self.world.training_fails)
        number = self.world.trained.index(job_id) + 1
        return TrainingState("succeeded", model=f"ft:{number}", forgetting=self.world.forgetting)

    async def cancel(self, project_id: str, job_id: str) -> None:
        self.world.cancelled.append(job_id)


@dataclass
class _Evaluator:
    world: World

    async def start(self, order: TestOrder) -> str:
        self.world.tick()
        run_id = f"run-{order.turn}-{order.role}"
        self.world.runs[order.turn, order.role] = order.model
        self.world.tick()
        return run_id

    async def state(self, project_id: str, run_id: str) -> RunState:
        self.world.tick()
        return RunState("completed", rows=40, scores={"exact": {"mean": 0.5, "low": 0.4, "high": 0.6}})

    async def cancel(self, project_id: str, run_id: str) -> None:
        self.world.cancelled.append(run_id)

    async def compare(self, project_id: str, base_run: str, candidate_run: str) -> Sequence[Comparison]:
        self.world.tick()
        base, candidate = (
            self.world.scores.get(self.world.runs[tuple(run.removeprefix("run-").rsplit("-", 1))], 0.0)  # type: ignore[index]
            for run in (base_run, candidate_run)
        )
        gain = candidate - base
        return [
            Comparison(
                "exact", 40, 20, 4, 16, base, candidate, gain, gain - 0.1, gain + 0.1, self.world.p, "t", self.world.can_gate
            )
        ]


@dataclass
class _Traffic:
    world: World

    async def warm(self, project_id: str, model: str) -> None:
        self.world.tick()
        self.world.warm.add(model)

    async def set_shares(self, project_id: str, route: str, shares: Mapping[str, float], salt: str) -> None:
        self.world.tick()
        cold = {model for model in shares if model.startswith("ft:")} - self.world.warm
        assert not cold, f"traffic to {cold}, which was never loaded"
        if dict(shares) != self.world.shares:
            self.world.share_history.append(dict(shares))
        self.world.shares = dict(shares)
        self.world.tick()

    async def shares(self, project_id: str, route: str) -> Mapping[str, float] | None:
        return self.world.shares or None


@dataclass
class _Live:
    world: World

    async def requests(self, project_id: str, route: str) -> int:
        return sum(self.world.seen.values())

    async def figures(
        self, project_id: str, route: str, model: str, *, since: float, slower_than_s: float | None, against: Against
    ) -> LiveFigures:
        self.world.tick()
        world = self.world
        if model in world.shares:
            world.seen[model] = world.seen.get(model, 0) + world.requests_per_look
        total = world.seen.get(model, 0)
        return LiveFigures(
            requests=total,
            errors=round(total * world.error_rate.get(model, 0.0)),
            slow=round(total * world.slow_rate.get(model, 0.0)) if slower_than_s is not None else 0,
            latency_p95_s=0.2,
            feedback=total,
            negative=round(total * world.negative_rate.get(model, 0.05)),
        )


@dataclass
class Turning:
    """One wheel with its turns, beside a world."""

    records: WheelRecords
    world: World
    wheel: Wheel

    async def open(self, **spec: Any) -> WheelTurn:
        data = {"base": "small", "models": ["small"], "until": int(time.time()), "dataset_id": "ds_1", "salt": "s"}
        return await self.records.open_turn(self.wheel.id, WheelSpec.model_validate({**SPEC, **spec}), data)

    async def run(self, turn: WheelTurn) -> WheelTurn:
        runner = TurnRunner(self.records, self.world.parts, poll_s=0.01)
        return await runner.run(turn.id, _silent)


async def _silent(step: str, done: float, total: float | None) -> None:
    return None


async def open_world(folder: Path, world: World | None = None) -> Turning:
    database = await Database.open(f"sqlite:///{folder / 'noria.db'}")
    records = WheelRecords(database)
    wheel = await records.create("proj_default", WheelSpec.model_validate(SPEC))
    return Turning(records, world or World(), wheel)
