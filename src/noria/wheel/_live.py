"""Live figures of a route's variants, from what was recorded: traces say errors and latency, feedback what people think."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sqlalchemy import ColumnElement, func, or_, select

from noria.store import Database, Feedback
from noria.tracing import TraceFilter, TraceStore, semconv

from ._parts import LiveFigures

__all__ = ["RecordedLive"]

_FLUSH_S = 1.0


class RecordedLive:
    """`flush` waits until the spans that have ended are stored, and blocks."""

    def __init__(self, database: Database, traces: TraceStore, flush: Callable[[float], bool]) -> None:
        self._database, self._traces, self._flush = database, traces, flush

    async def requests(self, project_id: str, route: str) -> int:
        return await self._traces.count(TraceFilter(project=project_id, metadata={semconv.ROUTE: route}))

    async def figures(
        self, project_id: str, route: str, model: str, *, since: float, slower_than_s: float | None, score_below: float | None
    ) -> LiveFigures:
        await asyncio.to_thread(self._flush, _FLUSH_S)
        labels = {semconv.ROUTE: route, semconv.ROUTE_VARIANT: model}
        wanted = TraceFilter(project=project_id, from_ns=int(since * 1e9), metadata=labels)
        rows = await self._traces.stats(wanted)
        feedback, negative = await self._feedback(project_id, model, since, score_below)
        if not rows:
            return LiveFigures(feedback=feedback, negative=negative)
        slow = 0
        if slower_than_s is not None:
            slow = await self._traces.count(
                TraceFilter(project=project_id, from_ns=int(since * 1e9), metadata=labels, min_latency_s=slower_than_s)
            )
        row = rows[0]
        return LiveFigures(row.requests, row.errors, slow, row.latency_p95_s, feedback, negative)

    async def _feedback(self, project_id: str, model: str, since: float, score_below: float | None) -> tuple[int, int]:
        """How much was said, and how much of it against the answer: a thumb down, a correction, a low score."""
        against: list[ColumnElement[bool]] = [Feedback.rating == -1, Feedback.correction.is_not(None)]
        if score_below is not None:
            against.append(Feedback.score < score_below)
        judged = or_(Feedback.rating.is_not(None), Feedback.correction.is_not(None), Feedback.score.is_not(None))
        query = select(func.count(), func.count().filter(or_(*against))).where(
            Feedback.project_id == project_id, Feedback.model == model, Feedback.created_at >= int(since), judged
        )
        async with self._database.read() as session:
            total, negative = (await session.execute(query)).one()
        return int(total), int(negative)


async def count_feedback(database: Database, project_id: str, models: list[str], since: float) -> int:
    """How much feedback of these models came since then."""
    query = select(func.count()).where(
        Feedback.project_id == project_id, Feedback.model.in_(models), Feedback.created_at >= int(since)
    )
    async with database.read() as session:
        return int(await session.scalar(query) or 0)
