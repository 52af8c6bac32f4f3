"""Live figures of a route's variants, from what was recorded: traces say errors and latency, feedback what people think."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from sqlalchemy import ColumnElement, func, not_, or_, select

from noria.evals import read_judged
from noria.evals.datasets import answer_key
from noria.store import Database, Feedback
from noria.tracing import TraceFilter, TraceStore, semconv

from ._parts import Against, LiveFigures

__all__ = ["RecordedLive"]

_FLUSH_S = 1.0
_PAGE, _KNOWN = 200, 100_000


class RecordedLive:
    """`flush` waits until the spans that have ended are stored, and blocks."""

    def __init__(self, database: Database, traces: TraceStore, flush: Callable[[float], bool]) -> None:
        self._database, self._traces, self._flush = database, traces, flush
        self._known: dict[str, bool] = {}  # an answer and a label do not change: a look every second reads the new ones only

    async def requests(self, project_id: str, route: str) -> int:
        return await self._traces.count(TraceFilter(project=project_id, metadata={semconv.ROUTE: route}))

    async def figures(
        self, project_id: str, route: str, model: str, *, since: float, slower_than_s: float | None, against: Against
    ) -> LiveFigures:
        await asyncio.to_thread(self._flush, _FLUSH_S)
        labels = {semconv.ROUTE: route, semconv.ROUTE_VARIANT: model}
        wanted = TraceFilter(project=project_id, from_ns=int(since * 1e9), metadata=labels)
        rows = await self._traces.stats(wanted)
        feedback, negative = await self._feedback(project_id, model, since, against)
        if not rows:
            return LiveFigures(feedback=feedback, negative=negative)
        slow = 0
        if slower_than_s is not None:
            slow = await self._traces.count(
                TraceFilter(project=project_id, from_ns=int(since * 1e9), metadata=labels, min_latency_s=slower_than_s)
            )
        row = rows[0]
        return LiveFigures(row.requests, row.errors, slow, row.latency_p95_s, feedback, negative)

    async def _feedback(self, project_id: str, model: str, since: float, against: Against) -> tuple[int, int]:
        """How much was said, and how much of it against the answer: a thumb down, a correction, a low score, another label."""
        negative: list[ColumnElement[bool]] = [Feedback.rating == -1, Feedback.correction.is_not(None)]
        if against.score_below is not None:
            negative.append(func.coalesce(Feedback.score, against.score_below) < against.score_below)
        judged = or_(Feedback.rating.is_not(None), Feedback.correction.is_not(None), Feedback.score.is_not(None))
        here = Feedback.project_id == project_id, Feedback.model == model, Feedback.created_at >= int(since)
        query = select(func.count(), func.count().filter(or_(*negative))).where(*here, judged)
        bare = select(Feedback.id).where(*here, Feedback.label.is_not(None), not_(judged))
        async with self._database.read() as session:
            total, bad = (await session.execute(query)).one()
            labelled = list(await session.scalars(bare)) if against.labels else []
        right = await self._right(project_id, labelled)
        return int(total) + len(right), int(bad) + right.count(False)

    async def _right(self, project_id: str, labelled: Sequence[str]) -> list[bool]:
        """Of each label whose answer is still there, whether it is what was answered."""
        if len(self._known) > _KNOWN:
            self._known.clear()
        new = [identity for identity in labelled if identity not in self._known]
        for start in range(0, len(new), _PAGE):
            async with self._database.read() as session:
                rows = list(await session.scalars(select(Feedback).where(Feedback.id.in_(new[start : start + _PAGE]))))
            judged = await read_judged(self._database, self._traces, project_id, rows)
            for row in rows:
                answer = judged.answer(row)
                said = None if isinstance(answer, str) else answer_key(answer.output)
                if said is not None:
                    self._known[row.id] = said == answer_key({"content": row.label})
        return [self._known[identity] for identity in labelled if identity in self._known]


async def count_feedback(database: Database, project_id: str, models: list[str], since: float) -> int:
    """How much feedback of these models came or was changed since then."""
    query = select(func.count()).where(
        Feedback.project_id == project_id, Feedback.model.in_(models), Feedback.updated_at >= int(since)
    )
    async with database.read() as session:
        return int(await session.scalar(query) or 0)
