"""Turns that start by themselves: on a schedule, daily at a time, or when enough new feedback has come."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

from noria.errors import Conflict, NoriaError
from noria.store import Wheel, WheelTurn

from ._live import count_feedback
from ._spec import Trigger, WheelSpec, parse_duration_s
from ._wheels import Wheels

__all__ = ["Triggers", "is_due"]

_log = logging.getLogger("noria.wheel")
_EVERY_S = 30.0
_DAY_S = 86400


class Triggers:
    """Looks at every wheel now and then. `run` ends when it is cancelled."""

    def __init__(self, wheels: Wheels, *, every_s: float = _EVERY_S) -> None:
        self._wheels, self._every_s = wheels, every_s

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
            except NoriaError as error:
                _log.warning("The triggers of the wheels could not be looked at: %s", error)

    async def look(self) -> list[str]:
        """Starts what is due; the ids of the turns."""
        started: list[str] = []
        for wheel in await self._wheels.records.all():
            reason = await self._due(wheel)
            if reason is None:
                continue
            try:
                started.append((await self._wheels.start(wheel.project_id, wheel.name, by=reason)).id)
            except Conflict:  # somebody was quicker
                continue
            except NoriaError as error:
                _log.warning("The wheel %s could not be turned: %s", wheel.name, error)
        return started

    async def _due(self, wheel: Wheel) -> str | None:
        spec = WheelSpec.model_validate(wheel.spec)
        trigger = spec.trigger
        if wheel.paused or wheel.open_turn_id or (trigger.every, trigger.at, trigger.new_feedback) == (None, None, None):
            return None
        turns, now = await self._wheels.records.all_turns(wheel.id), time.time()
        if sum(turn.created_at > now - _DAY_S for turn in turns) >= spec.budget.turns_per_day:
            return None
        last = turns[0].created_at if turns else wheel.created_at
        if (reason := is_due(trigger, last, now)) is not None:
            return reason
        return await self._enough(wheel, spec, turns, trigger.new_feedback)

    async def _enough(self, wheel: Wheel, spec: WheelSpec, turns: list[WheelTurn], wanted: int | None) -> str | None:
        if wanted is None:
            return None
        since = float(turns[0].data["until"]) if turns else 0.0
        models = await self._wheels.models_of(wheel, spec)
        count = await count_feedback(self._wheels.database, wheel.project_id, models, since)
        return f"trigger: {count} new records of feedback" if count >= wanted else None


def is_due(trigger: Trigger, last: float, now: float) -> str | None:
    """Why a turn is due by the clock, or None. `last` is when the last one began (or the wheel was made)."""
    if trigger.every is not None and now - last >= parse_duration_s(trigger.every):
        return f"trigger: every {trigger.every}"
    if trigger.at is not None:
        hour, minute = map(int, trigger.at.split(":"))
        today = datetime.fromtimestamp(now, UTC).replace(hour=hour, minute=minute, second=0, microsecond=0).timestamp()
        due = today if today <= now else today - _DAY_S
        if last < due:
            return f"trigger: at {trigger.at}"
    return None
