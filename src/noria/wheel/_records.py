"""Wheels and turns in the database. A turn's step and what it made change in one transaction, so that a crash loses neither.

Knows nothing about what the steps do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import delete, func, select

from noria.errors import Conflict, NotFound
from noria.store import Cursor, Database, Page, Wheel, WheelTurn, new_id, page

from ._spec import WheelSpec

__all__ = ["STEPS", "Next", "Outcome", "Step", "WheelRecords"]

Step = Literal["collect", "curate", "split", "train", "evaluate", "gate", "approve", "canary", "watch", "end"]
Outcome = Literal["promoted", "rolled_back", "rejected", "skipped", "failed", "cancelled"]
STEPS: tuple[Step, ...] = ("collect", "curate", "split", "train", "evaluate", "gate", "approve", "canary", "watch", "end")
Asked = Literal["approve", "reject", "rollback", "cancel"]


@dataclass(frozen=True, slots=True)
class Next:
    """How a turn goes on: to `step`, having made `data`. With an outcome it frees the wheel for another turn."""

    step: Step
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    outcome: Outcome | None = None
    reason: str | None = None
    failed: bool = False
    """The reason is an error."""


class WheelRecords:
    def __init__(self, database: Database) -> None:
        self.database = database

    # --- wheels -------------------------------------------------------------------------------------------------------

    async def create(self, project_id: str, spec: WheelSpec) -> Wheel:
        """Raises Conflict when the name is taken."""
        async with self.database.write() as session:
            taken = select(Wheel.id).where(Wheel.project_id == project_id, Wheel.name == spec.name)
            if await session.scalar(taken) is not None:
                raise Conflict(f"A wheel {spec.name!r} exists.", hint=f"Turn it with: noria wheel turn {spec.name}")
            row = Wheel(id=new_id("wheel_"), project_id=project_id, name=spec.name, spec=spec.to_json(), route=spec.route)
            session.add(row)
        return row

    async def find(self, project_id: str, wheel: str) -> Wheel:
        """By id or by name. Raises NotFound."""
        column = Wheel.id if wheel.startswith("wheel_") else Wheel.name
        async with self.database.read() as session:
            row = await session.scalar(select(Wheel).where(Wheel.project_id == project_id, column == wheel))
        if row is None:
            raise NotFound(f"No wheel {wheel!r}.", param="wheel", hint="`noria wheel list` shows what there is.")
        return row

    async def list(self, project_id: str, cursor: Cursor) -> Page[Wheel]:
        async with self.database.read() as session:
            return await page(session, select(Wheel).where(Wheel.project_id == project_id), Wheel.id, cursor)

    async def all(self) -> list[Wheel]:
        """Of every project; for triggers."""
        async with self.database.read() as session:
            return list(await session.scalars(select(Wheel).order_by(Wheel.id)))

    async def update(self, wheel_id: str, **values: Any) -> Wheel:
        async with self.database.write() as session:
            row = await session.get(Wheel, wheel_id)
            if row is None:
                raise NotFound(f"No wheel {wheel_id!r}.", param="wheel")
            for name, value in values.items():
                setattr(row, name, value)
        return row

    async def remove(self, wheel_id: str) -> None:
        """With its turns. Raises Conflict while one is open."""
        async with self.database.write() as session:
            row = await session.get(Wheel, wheel_id)
            if row is None:
                return
            if row.open_turn_id is not None:
                raise Conflict(f"The turn {row.open_turn_id} of {row.name!r} is open.", hint="Cancel it first.")
            await session.execute(delete(WheelTurn).where(WheelTurn.wheel_id == wheel_id))
            await session.delete(row)

    # --- turns --------------------------------------------------------------------------------------------------------

    async def open_turn(self, wheel_id: str, spec: WheelSpec, data: Mapping[str, Any]) -> WheelTurn:
        """Begins a turn. Raises Conflict naming the open one: checked and taken in one transaction."""
        async with self.database.write() as session:
            wheel = await session.get(Wheel, wheel_id, with_for_update=True)
            if wheel is None:
                raise NotFound(f"No wheel {wheel_id!r}.", param="wheel")
            if wheel.open_turn_id is not None:
                raise Conflict(
                    f"The turn {wheel.open_turn_id} of {wheel.name!r} is under way.",
                    code="turn_open",
                    hint=f"See it with: noria wheel status {wheel.name}",
                )
            last = await session.scalar(select(func.max(WheelTurn.number)).where(WheelTurn.wheel_id == wheel_id))
            turn = WheelTurn(
                id=new_id("turn_"),
                project_id=wheel.project_id,
                wheel_id=wheel_id,
                number=(last or 0) + 1,
                step="collect",
                data=dict(data),
                spec=spec.to_json(),
            )
            session.add(turn)
            wheel.open_turn_id = turn.id
        return turn

    async def turn(self, turn_id: str, project_id: str | None = None) -> WheelTurn:
        async with self.database.read() as session:
            row = await session.get(WheelTurn, turn_id)
        if row is None or project_id not in {None, row.project_id}:
            raise NotFound(f"No turn {turn_id!r}.", param="turn_id")
        return row

    async def turns(self, wheel_id: str, cursor: Cursor) -> Page[WheelTurn]:
        async with self.database.read() as session:
            return await page(session, select(WheelTurn).where(WheelTurn.wheel_id == wheel_id), WheelTurn.id, cursor)

    async def all_turns(self, wheel_id: str) -> list[WheelTurn]:
        """Newest first."""
        query = select(WheelTurn).where(WheelTurn.wheel_id == wheel_id).order_by(WheelTurn.number.desc())
        async with self.database.read() as session:
            return list(await session.scalars(query))

    async def unfinished(self) -> list[WheelTurn]:
        """Turns that are to go on, of every project."""
        async with self.database.read() as session:
            return list(await session.scalars(select(WheelTurn).where(WheelTurn.step != "end")))

    async def set_job(self, turn_id: str, job_id: str) -> None:
        async with self.database.write() as session:
            turn = await session.get(WheelTurn, turn_id)
            if turn is not None:
                turn.job_id = job_id

    async def note(self, turn_id: str, data: Mapping[str, Any]) -> WheelTurn:
        """Adds to what a turn knows, within a step."""
        async with self.database.write() as session:
            turn = await self._get(session, turn_id)
            turn.data = {**turn.data, **data}
            turn.updated_at = int(time.time())
        return turn

    async def advance(self, turn_id: str, begun: str, to: Next) -> WheelTurn:
        """The end of step `begun`. Does nothing when the turn is elsewhere by now (its step was recorded before a crash)."""
        async with self.database.write() as session:
            turn = await self._get(session, turn_id)
            if turn.step != begun:
                return turn
            now = int(time.time())
            ended = {"step": begun, "at": now}
            turn.data = {**turn.data, **to.data, "steps": [*turn.data.get("steps", []), ended]}
            turn.step, turn.updated_at = to.step, now
            if to.outcome is not None:
                turn.outcome = to.outcome
                turn.ended_at = now
                wheel = await session.get(Wheel, turn.wheel_id, with_for_update=True)
                if wheel is not None and wheel.open_turn_id == turn_id:
                    wheel.open_turn_id = None
            if to.reason is not None:
                turn.data = {**turn.data, "reason": to.reason}
                turn.error = to.reason if to.failed else None
        return turn

    async def ask(self, turn_id: str, what: Asked, by: str, allowed: Mapping[str, tuple[str, ...]]) -> WheelTurn:
        """Notes what a person wants of a turn; its job acts on it. Raises Conflict where the step does not allow it."""
        async with self.database.write() as session:
            turn = await self._get(session, turn_id)
            if turn.step not in allowed[what]:
                where = turn.outcome if turn.step == "end" else f"at the step {turn.step}"
                raise Conflict(
                    f"The turn {turn_id} is {where}; {what} is possible at {' or '.join(allowed[what])}.", param="turn_id"
                )
            turn.data = {**turn.data, "asked": {"what": what, "by": by, "at": int(time.time())}}
        return turn

    @staticmethod
    async def _get(session: Any, turn_id: str) -> WheelTurn:
        turn: WheelTurn | None = await session.get(WheelTurn, turn_id, with_for_update=True)
        if turn is None:
            raise NotFound(f"No turn {turn_id!r}.", param="turn_id")
        return turn
