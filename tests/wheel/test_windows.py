"""Which feedback a turn collects: all that came since the last, however close to its beginning."""

from __future__ import annotations

from typing import Any

from noria.wheel import Wheels

from .world import Turning


class _Jobs:
    """Jobs that are never run."""

    id = "job_1"

    def register(self, kind: str, work: Any) -> None: ...

    async def start(self, kind: str, *_: Any, **__: Any) -> _Jobs:
        return self


async def test_the_second_in_which_a_turn_began_is_looked_at_again(turning: Turning) -> None:
    nobody: Any = None
    wheels = Wheels(turning.records.database, _Jobs(), turning.world.parts, nobody)  # type: ignore[arg-type]
    first = await wheels.start("proj_default", "support")
    assert first.data["since"] is None
    await turning.run(first)
    second = await wheels.start("proj_default", "support")
    assert second.data["since"] == first.data["until"] - 1
