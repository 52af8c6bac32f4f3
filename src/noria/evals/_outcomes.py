"""Outcomes of rows on their way into the database: many in one transaction, each at once enough that a crash costs little.

A row's place in its run is unique, so that what a resumed run writes twice is written once. Knows nothing about models or
graders.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from noria.errors import DatabaseUnavailable
from noria.store import Database, EvalItem, EvalRun

__all__ = ["Outcomes"]

_EVERY_S = 0.2
_MOST_WAITING = 512
_WAITS_S = (1, 2, 4, 8, 15, 30)


class Outcomes:
    """Use `async with`; leaving it writes what is left. `counts` are the run's so far, by status."""

    def __init__(self, database: Database, run_id: str, report: Callable[[int], Awaitable[None]]) -> None:
        self._database, self._run_id, self._report = database, run_id, report
        self._waiting: list[dict[str, Any]] = []
        self._room = asyncio.Semaphore(_MOST_WAITING)
        self._writer: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self.counts: dict[str, int] = {}
        self.done: set[int] = set()

    async def __aenter__(self) -> Outcomes:
        async with self._database.read() as session:
            found = await session.execute(
                select(EvalItem.status, func.count()).where(EvalItem.run_id == self._run_id).group_by(EvalItem.status)
            )
            self.counts = {row[0]: row[1] for row in found}
            self.done = set(await session.scalars(select(EvalItem.position).where(EvalItem.run_id == self._run_id)))
        self._stop.clear()
        self._writer = asyncio.ensure_future(self._write_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._writer is not None
        self._stop.set()
        # Shielded: a run that is cancelled keeps what it has.
        await asyncio.shield(self._writer)

    async def add(self, row: dict[str, Any]) -> None:
        """Notes one row's outcome; waits while many are waiting to be written. Raises what writing failed with."""
        await self._room.acquire()
        if self._writer is not None and self._writer.done():
            self._writer.result()
        self._waiting.append(_storable(row))

    async def _write_on(self) -> None:
        try:
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _EVERY_S)
                await self._flush()
            await self._flush()  # what came while the last one was being written
        except BaseException:
            for _ in range(_MOST_WAITING):  # nobody waits for room that will never be
                self._room.release()
            raise

    async def _flush(self) -> None:
        rows, self._waiting = self._waiting, []
        if not rows:
            return
        counts = dict(self.counts)
        for row in rows:
            counts[row["status"]] = counts.get(row["status"], 0) + 1
        await self._write(rows, counts)
        self.counts = counts
        for _ in rows:
            self._room.release()
        await self._report(sum(counts.values()))

    async def _write(self, rows: list[dict[str, Any]], counts: dict[str, int]) -> None:
        """One transaction; tried again for a while where the disk is full or the database is busy: the answers were paid for."""
        for attempt, wait_s in enumerate((*_WAITS_S, None)):
            try:
                async with self._database.write() as session:
                    # It may have gone away after it had written them, before it said so.
                    fresh = await self._not_there(session, rows) if attempt else rows
                    if fresh:
                        await session.execute(insert(EvalItem), fresh)
                    await session.execute(update(EvalRun).where(EvalRun.id == self._run_id).values(result_counts=shown(counts)))
            except DatabaseUnavailable:
                if wait_s is None:
                    raise
                await asyncio.sleep(wait_s)
            else:
                return

    async def _not_there(self, session: AsyncSession, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        positions = [row["position"] for row in rows]
        query = select(EvalItem.position).where(EvalItem.run_id == self._run_id, EvalItem.position.in_(positions))
        there = set(await session.scalars(query))
        return [row for row in rows if row["position"] not in there]


def _storable(row: dict[str, Any]) -> dict[str, Any]:
    """NUL characters, which a model may say and PostgreSQL cannot store, become the replacement character.

    What is no JSON at all (nested a thousand deep) is left out, and the row is an error.
    """
    try:
        raw = orjson.dumps(row)
    except TypeError:
        return {**row, "status": "error", "datasource_item": {}, "results": [], "sample": None}
    return orjson.loads(raw.replace(b"\\u0000", b"\\ufffd")) if b"\\u0000" in raw else row


def shown(counts: dict[str, int]) -> dict[str, int]:
    """Counts by status as OpenAI's `result_counts`."""
    return {
        "total": sum(counts.values()),
        "errored": counts.get("error", 0),
        "failed": counts.get("fail", 0),
        "passed": counts.get("pass", 0),
    }
