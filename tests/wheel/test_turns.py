"""Turns beside a small world: how each ends, what a person may ask, and that a crash anywhere changes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from noria.errors import Conflict, UpstreamError
from noria.wheel import Curated, Split
from noria.wheel._turn import TurnRunner

from .world import SPEC, Crash, Turning, World, open_world


async def test_a_good_candidate_goes_through_the_canary_to_all_traffic(turning: Turning) -> None:
    turn = await turning.run(await turning.open())
    assert (turn.step, turn.outcome) == ("end", "promoted")
    assert turning.world.share_history == [{"small": 0.9, "ft:1": 0.1}, {"small": 0.5, "ft:1": 0.5}, {"ft:1": 1.0}]
    assert turn.data["gate"]["passed"] and turn.data["candidate"] == "ft:1"
    assert [each["step"] for each in turn.data["steps"]] == [
        "collect", "curate", "split", "train", "evaluate", "gate", "canary"]  # fmt: skip
    wheel = await turning.records.find("proj_default", "support")
    assert wheel.open_turn_id is None


@pytest.mark.parametrize(
    ("world", "outcome", "said"),
    [
        (World(feedback=0), "skipped", "No new feedback has come"),
        (World(split=Split(2, 3, 0, 40, 2)), "skipped", "3 rows to train on, fewer than min_rows = 10"),
        (World(split=Split(2, 100, 0, 40, 1, "f")), "rejected", "one and the same answer"),
        (World(split=Split(2, 100, 0, 4, 2, "f")), "skipped", "4 held-out rows, fewer than gate.min_rows"),
        (World(curated=Curated(2, {}, {"personal_data": 3}, ("personal_data",))), "rejected", "Curation found personal_data"),
        (World(training_fails="The loss is not a number."), "failed", "The loss is not a number."),
        (World(scores={"small": 0.9, "ft:1": 0.5}), "rejected", "not better"),
        (World(p=0.2), "rejected", "not significant at 0.01"),
        (World(forgetting=0.4), "rejected", "forgot 0.400"),
        (World(can_gate=False), "rejected", "cannot gate"),
    ],
)
async def test_how_a_turn_ends_without_traffic(turning: Turning, world: World, outcome: str, said: str) -> None:
    turning.world = world
    turn = await turning.run(await turning.open())
    assert (turn.step, turn.outcome) == ("end", outcome)
    assert said in turn.data["reason"]
    assert world.share_history == []
    assert (await turning.records.find("proj_default", "support")).open_turn_id is None


@pytest.mark.parametrize("drop", ["error_rate", "negative_rate", "slow_rate"])
async def test_a_drop_in_the_live_figures_rolls_back_by_itself(turning: Turning, drop: str) -> None:
    setattr(turning.world, drop, {"ft:1": 0.6, "small": 0.02})
    turn = await turning.run(await turning.open())
    assert turn.outcome == "rolled_back"
    assert turning.world.shares == {"small": 1.0}
    assert turn.data["canary"]["breach"] == turn.data["reason"]


async def test_the_guard_watches_after_promotion(turning: Turning) -> None:
    class Later(World):
        def tick(self) -> None:
            super().tick()
            if self.shares == {"ft:1": 1.0}:
                self.negative_rate = {"ft:1": 0.9}

    turning.world = world = Later()
    turn = await turning.run(await turning.open(guard={"every_s": 0.05, "watch_hours": 1}))
    assert turn.outcome == "rolled_back" and "negative" in turn.data["reason"]
    assert world.shares == {"small": 1.0}


async def test_a_promoted_turn_that_is_watched_frees_the_wheel(turning: Turning) -> None:
    turn = await turning.open(guard={"every_s": 0.05, "watch_hours": 1})
    runner = TurnRunner(turning.records, turning.world.parts, poll_s=0.01)
    running = await _at_step(turning, runner, turn.id, "watch")
    assert (await turning.records.turn(turn.id)).outcome == "promoted"
    second = await turning.open()  # raises no Conflict
    turning.world.shares = {"ft:9": 1.0}  # the route is somebody else's now
    ended = await asyncio.wait_for(running, 5)
    assert (ended.step, ended.outcome) == ("end", "promoted") and ended.data["watch"]["superseded"]
    assert second.number == 2


async def test_two_turns_at_once_is_a_conflict_that_names_the_open_one(turning: Turning) -> None:
    first = await turning.open()
    for found in await asyncio.gather(*(turning.open() for _ in range(4)), return_exceptions=True):
        assert isinstance(found, Conflict) and first.id in str(found)


async def test_a_canary_with_too_little_traffic_is_rolled_back(turning: Turning) -> None:
    turning.world.requests_per_look = 0
    canary = {"steps": [{"share": 0.1, "min_requests": 5, "minutes": 0}], "max_hours": 0.00005}
    turn = await turning.run(await turning.open(canary=canary))
    assert turn.outcome == "rolled_back" and "0 of 5 requests" in turn.data["reason"]
    assert turning.world.shares == {"small": 1.0}


async def test_a_route_that_somebody_changed_meanwhile_is_left_alone(turning: Turning) -> None:
    turning.world.shares = {"another": 1.0}
    turn = await turning.run(await turning.open())
    assert turn.outcome == "rejected" and "changed during the turn" in turn.data["reason"]
    assert turning.world.shares == {"another": 1.0}


async def test_the_budget_ends_a_training_that_never_ends(turning: Turning) -> None:
    turning.world.training_fails = "never ends"
    turn = await turning.run(await turning.open(budget={"minutes": 0.001}))
    assert turn.outcome == "failed" and "budget" in turn.data["reason"]
    assert turning.world.cancelled == turning.world.trained


# --- what people ask --------------------------------------------------------------------------------------------------


async def _at_step(turning: Turning, runner: TurnRunner, turn_id: str, step: str) -> asyncio.Task[Any]:
    async def silent(*_: Any) -> None:
        return None

    running = asyncio.ensure_future(runner.run(turn_id, silent))
    for _ in range(500):
        if (await turning.records.turn(turn_id)).step == step:
            return running
        await asyncio.sleep(0.01)
    raise AssertionError(f"never at {step}")


@pytest.mark.parametrize(("what", "outcome"), [("approve", "promoted"), ("reject", "rejected"), ("cancel", "cancelled")])
async def test_approval(turning: Turning, what: Any, outcome: str) -> None:
    from noria.wheel._turn import ALLOWED

    runner = TurnRunner(turning.records, turning.world.parts, poll_s=0.01)
    turn = await turning.open(approval={"mode": "manual"})
    running = await _at_step(turning, runner, turn.id, "approve")
    assert turning.world.share_history == []
    with pytest.raises(Conflict, match="rollback is possible at"):
        await turning.records.ask(turn.id, "rollback", "me", ALLOWED)
    await turning.records.ask(turn.id, what, "me", ALLOWED)
    runner.nudge(turn.id)
    ended = await asyncio.wait_for(running, 5)
    assert ended.outcome == outcome
    assert ended.data["asked"]["by"] == "me"


@pytest.mark.parametrize("what", ["rollback", "cancel"])
async def test_a_person_rolls_a_canary_back(turning: Turning, what: Any) -> None:
    from noria.wheel._turn import ALLOWED

    turning.world.requests_per_look = 0
    runner = TurnRunner(turning.records, turning.world.parts, poll_s=0.01)
    turn = await turning.open()
    running = await _at_step(turning, runner, turn.id, "canary")
    await turning.records.ask(turn.id, what, "ann", ALLOWED)
    runner.nudge(turn.id)
    ended = await asyncio.wait_for(running, 5)
    assert ended.outcome == "rolled_back" and "ann" in ended.data["reason"]
    assert turning.world.shares == {"small": 1.0}


async def test_cancelling_stops_the_training(turning: Turning) -> None:
    from noria.wheel._turn import ALLOWED

    turning.world.training_fails = "never ends"
    runner = TurnRunner(turning.records, turning.world.parts, poll_s=0.01)
    turn = await turning.open()
    running = await _at_step(turning, runner, turn.id, "train")
    await turning.records.ask(turn.id, "cancel", "me", ALLOWED)
    runner.nudge(turn.id)
    assert (await asyncio.wait_for(running, 5)).outcome == "cancelled"
    assert turning.world.cancelled == [f"ftjob-{turn.id}"]


# --- crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [False, True], ids=["good", "drops"])
async def test_a_crash_at_any_place_loses_nothing_and_trains_once(tmp_path: Path, bad: bool) -> None:
    """At every call into the parts the process dies once; a new one goes on, and ends as if nothing had been."""

    def world() -> World:
        return World(negative_rate={"ft:1": 0.7} if bad else {})

    whole = await open_world(tmp_path, world())
    plain = await whole.run(await whole.open())
    places = whole.world.calls
    assert places > 15
    for place in range(1, places + 1, 3 if bad else 1):
        whole.world = World(negative_rate=world().negative_rate, crash_at=place)
        turn = await whole.open()
        with pytest.raises(Crash):
            await whole.run(turn)
        # A new process: what was loaded is not loaded any more, what was recorded is.
        whole.world.warm.clear()
        ended = await whole.run(turn)
        assert ended.outcome == plain.outcome, place
        assert whole.world.trained == [f"ftjob-{turn.id}"], place
        assert whole.world.shares == ({"small": 1.0} if bad else {"ft:1": 1.0}), place
        assert [each["step"] for each in ended.data["steps"]] == [each["step"] for each in plain.data["steps"]], place
    await whole.records.database.aclose()


async def test_what_is_only_unavailable_is_tried_again(turning: Turning, monkeypatch: pytest.MonkeyPatch) -> None:
    from noria.errors import Unavailable

    failures = iter([Unavailable("busy", retry_after_s=0.01)] * 3)

    class Flaky(World):
        def tick(self) -> None:
            super().tick()
            if (failure := next(failures, None)) is not None:
                raise failure

    turning.world = Flaky()
    assert (await turning.run(await turning.open())).outcome == "promoted"


async def test_a_long_canary_outlives_many_busy_moments(turning: Turning) -> None:
    from noria.errors import Unavailable

    class Busy(World):
        refused = 0

        def tick(self) -> None:
            super().tick()
            if "ft:1" in self.shares and self.calls % 23 == 0:
                self.refused += 1
                raise Unavailable("busy", retry_after_s=0.001)

    turning.world = world = Busy()
    world.requests_per_look = 1
    assert (await turning.run(await turning.open())).outcome == "promoted"
    assert world.refused > 6, "more often than a step may fail in a row"


async def test_what_fails_in_the_canary_puts_the_base_back(turning: Turning) -> None:
    class Broken(World):
        def tick(self) -> None:
            super().tick()
            if "ft:1" in self.shares and self.seen:
                self.seen.clear()
                raise UpstreamError("The traces cannot be read.")

    turning.world = Broken()
    turn = await turning.run(await turning.open())
    assert turn.outcome == "rolled_back" and turn.error == "The traces cannot be read."
    assert turning.world.shares == {"small": 1.0}


def test_the_specification_of_these_tests_is_whole() -> None:
    from noria.wheel import check_spec

    assert check_spec(SPEC).route == "support"
