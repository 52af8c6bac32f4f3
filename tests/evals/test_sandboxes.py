"""However many graders there are, few sandboxes live at once, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from noria.errors import Unavailable
from noria.evals._runs import Means, tools_for
from noria.evals._sandboxes import Sandboxes
from noria.sandbox import Outcome

LIVE: set[object] = set()
MOST: list[int] = []
STARTED: list[str] = []


class Session:
    """A sandbox that runs nothing; a call takes `seconds`."""

    def __init__(self, source: str, *_: Any) -> None:
        self.source = source

    async def call(self, seconds: float = 0.0) -> Outcome:
        if self not in LIVE:
            STARTED.append(self.source)
        LIVE.add(self)
        MOST.append(len(LIVE))
        await asyncio.sleep(seconds)
        return Outcome(value=1.0)

    async def close(self) -> None:
        LIVE.discard(self)


async def never(*_: Any, **__: Any) -> Any:
    raise AssertionError


@pytest.fixture
def means(monkeypatch: pytest.MonkeyPatch) -> Means:
    monkeypatch.setattr("noria.evals._runs.PythonSession", Session)
    for each in (LIVE, MOST, STARTED):
        each.clear()
    return Means(never, never, never, sandboxes=Sandboxes(2))


async def test_a_hundred_graders_of_many_runs_share_two(means: Means) -> None:
    async def run(name: str) -> None:
        async with tools_for(means, name) as (tools, _):
            calls = [tools.run_python(f"{name}{number % 25}", "grade", 0.001) for number in range(50)]
            assert [outcome.value for outcome in await asyncio.gather(*calls)] == [1.0] * 50

    await asyncio.gather(*(run(name) for name in "abcd"))
    assert max(MOST) <= 2
    assert not LIVE


async def test_one_that_is_used_again_is_not_started_again(means: Means) -> None:
    async with tools_for(means, "a") as (tools, _):
        for source in "xyxyxyxy":
            await tools.run_python(source, "grade")
        assert STARTED == ["x", "y"]
        await tools.run_python("z", "grade")
        await tools.run_python("y", "grade")
        assert STARTED == ["x", "y", "z"]  # x had rested longest


async def test_many_rows_of_one_grader_take_one_place(means: Means) -> None:
    async with tools_for(means, "a") as (slow, _), tools_for(means, "b") as (tools, _):
        rows = [asyncio.ensure_future(slow.run_python("x", "grade", 0.2)) for _ in range(5)]
        await asyncio.sleep(0.01)
        async with asyncio.timeout(0.15):
            await tools.run_python("y", "grade")
        for row in rows:
            row.cancel()
        await asyncio.gather(*rows, return_exceptions=True)


async def test_who_cannot_wait_is_told_when_to_come_back(means: Means) -> None:
    async with tools_for(means, "a") as (tools, _), tools_for(means, "b", wait_s=0.05) as (hasty, _):
        busy = [asyncio.ensure_future(tools.run_python(source, "grade", 0.3)) for source in "xy"]
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable) as caught:
            await hasty.run_python("z", "grade")
        assert caught.value.retry_after_s
        await asyncio.gather(*busy)
        assert (await hasty.run_python("z", "grade")).value == 1.0
