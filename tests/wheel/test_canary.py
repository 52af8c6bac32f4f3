"""What breaks late is seen, however much went well before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from noria.wheel import LiveFigures, WheelSpec
from noria.wheel._canary import CanaryKeeper
from noria.wheel._parts import Against
from tests.wheel.world import SPEC


@dataclass
class _Traffic:
    """Requests by time: each has its moment and whether it failed."""

    requests_seen: list[tuple[float, bool]] = field(default_factory=list[tuple[float, bool]])

    async def requests(self, project_id: str, route: str) -> int:
        return len(self.requests_seen)

    async def figures(
        self, project_id: str, route: str, model: str, *, since: float, slower_than_s: float | None, against: Against
    ) -> LiveFigures:
        found = [failed for at, failed in self.requests_seen if at >= since]
        return LiveFigures(requests=len(found), errors=sum(found), latency_p95_s=0.2)

    async def warm(self, project_id: str, model: str) -> None:
        return

    async def set_shares(self, project_id: str, route: str, shares: Mapping[str, float], salt: str) -> None:
        return

    async def shares(self, project_id: str, route: str) -> Mapping[str, float] | None:
        return {"ft:1": 1.0}


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def keeper(traffic: _Traffic, clock: _Clock, **guard: Any) -> CanaryKeeper:
    spec = WheelSpec.model_validate({**SPEC, "guard": {"every_s": 1, "watch_hours": 10, "max_latency_ratio": None, **guard}})
    base = {"requests": 5000, "errors": 25, "slow": 0, "latency_p95_s": 0.2, "feedback": 0, "negative": 0}
    data = {"base": "small", "candidate": "ft:1", "promoted_at": clock.now, "canary": {"base": base}}
    return CanaryKeeper(traffic, traffic, spec, "proj_default", data, clock)


async def flow(watched: CanaryKeeper, traffic: _Traffic, clock: _Clock, total: int, every: int) -> int | None:
    """`total` requests, ten between two looks, each `every`-th fails (0: none); after how many the guard broke off."""
    for number in range(0, total, 10):
        for place in range(10):
            traffic.requests_seen.append((clock.now, bool(every) and (number + place + 1) % every == 0))
        look = await watched.look_after()
        clock.now += 1
        if look.breach is not None:
            return number + 10
    return None


@pytest.mark.parametrize("healthy", [0, 300, 20_000])
async def test_a_sudden_break_is_seen_within_a_few_dozen_requests(healthy: int) -> None:
    traffic, clock = _Traffic(), _Clock()
    watched = keeper(traffic, clock)
    assert await flow(watched, traffic, clock, healthy, 250) is None
    broken = await flow(watched, traffic, clock, 600, 1)
    assert broken is not None and broken <= 120


async def test_the_last_look_counts_what_is_new_however_little() -> None:
    traffic, clock = _Traffic(), _Clock()
    watched = keeper(traffic, clock)
    assert await flow(watched, traffic, clock, 400, 0) is None
    traffic.requests_seen += [(clock.now, True)] * 40
    clock.now += 36_000
    look = await watched.look_after()
    assert look.over and look.breach is not None
