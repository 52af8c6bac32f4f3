"""What people said of answers: kept with its target, listed by filters, summed by model over time.

Feedback belongs to what it is about: it cannot be given for what is not there, and goes when its trace is deleted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from sqlalchemy import func, literal_column, select
from sqlalchemy.exc import IntegrityError

from noria.errors import InvalidRequest, NotFound
from noria.store import DEFAULT_PROJECT, Cursor, Database, Feedback, Page, new_id, page
from noria.tracing import TraceStore

from ._feedback_targets import Found, Target, TargetFinder, missing, parse_target
from ._wellformed import check_answer, check_json, clean_message

__all__ = ["FeedbackFilter", "FeedbackStats", "FeedbackStore", "Opinion", "check_opinion"]

Rating = Literal["up", "down"]
_RATINGS = {"up": 1, "down": -1}
_SAID = ("rating", "score", "label", "correction", "comment")
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Opinion:
    """What is said; at least one of rating, score, label, correction and comment."""

    rating: Rating | None = None
    score: float | None = None
    label: str | None = None
    correction: Mapping[str, Any] | None = None
    comment: str | None = None
    author: str | None = None
    external_id: str | None = None
    source: str = "api"
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class FeedbackFilter:
    """Which feedback; every condition given must hold.

    Times are Unix seconds, `since` included, `until` not: of when it was given, or where `apply` says so, last changed.
    """

    target: str | None = None
    trace_id: str | None = None
    models: Sequence[str] = ()
    label: str | None = None
    rating: Rating | None = None
    author: str | None = None
    source: str | None = None
    corrected: bool | None = None
    since: float | None = None
    until: float | None = None

    def apply(self, query: Any, project_id: str, *, by: Literal["created_at", "updated_at"] = "created_at") -> Any:
        at = getattr(Feedback, by)
        query = query.where(Feedback.project_id == project_id)
        equal = {"target_id": self.target, "trace_id": self.trace_id, "label": self.label}
        equal |= {"author": self.author, "source": self.source}
        for name, value in equal.items():
            if value is not None:
                query = query.where(getattr(Feedback, name) == value)
        if self.models:
            query = query.where(Feedback.model.in_(self.models))
        if self.rating is not None:
            query = query.where(Feedback.rating == _RATINGS[self.rating])
        if self.corrected is not None:
            query = query.where(Feedback.correction.is_not(None) if self.corrected else Feedback.correction.is_(None))
        if self.since is not None:
            query = query.where(at >= self.since)
        return query if self.until is None else query.where(at < self.until)


@dataclass(frozen=True, slots=True)
class FeedbackStats:
    """Sums of one model in one stretch of time; `start` is None where all time is one."""

    model: str | None
    start: int | None
    count: int
    up: int
    down: int
    corrections: int
    scores: int
    mean_score: float | None
    labels: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def up_share(self) -> float | None:
        """Of those rated, how many were for it."""
        return self.up / (self.up + self.down) if self.up + self.down else None


def check_opinion(opinion: Opinion) -> None:
    """Raises InvalidRequest where nothing is said or it cannot be kept."""
    if all(getattr(opinion, name) in (None, "") for name in _SAID):
        raise InvalidRequest("The feedback says nothing.", hint=f"Give at least one of {', '.join(_SAID)}.")
    _check_parts({each.name: getattr(opinion, each.name) for each in fields(opinion)})


def _check_parts(said: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for what could not be shown again, or not be made a row of a dataset."""
    score, correction = said.get("score"), said.get("correction")
    if score is not None and not abs(score) < 1e12:
        raise InvalidRequest(f"score = {score} is not a number that can be kept.", param="score")
    if correction is not None:
        check_answer(clean_message(correction), "correction")
    for name, value in said.items():
        check_json(value, name, name)


class FeedbackStore:
    """Keeps feedback. `flush` waits until the spans that have ended are stored, and blocks.

    `gate` is held from finding a target to keeping what is said of it, so that a deletion in between cannot be missed.
    """

    def __init__(
        self, database: Database, traces: TraceStore, flush: Callable[[float], bool], gate: asyncio.Lock | None = None
    ) -> None:
        self._database, self._gate = database, gate or asyncio.Lock()
        self.targets = TargetFinder(database, traces, flush)

    async def create(self, project_id: str, target: str, opinion: Opinion, *, span_id: str | None = None) -> Feedback:
        """Keeps an opinion; the same `external_id` again gives what is there. Raises NotFound for a target that is not there."""
        check_opinion(opinion)
        if opinion.external_id is not None and (known := await self._by_external(project_id, [opinion.external_id])):
            return known[opinion.external_id]
        wanted = parse_target(target, span_id)
        row = await self._keep(project_id, wanted, opinion)
        if row is None:  # perhaps not stored yet
            await self.targets.find(project_id, wanted)
            row = await self._keep(project_id, wanted, opinion, pending=True)
        if row is None:
            raise missing(wanted)
        return row

    async def _keep(self, project_id: str, wanted: Target, opinion: Opinion, *, pending: bool = False) -> Feedback | None:
        async with self._gate:
            found = (await self.targets.find_all(project_id, [wanted]))[0]
            if found is None or (found.pending and not pending):
                return None
            row = _row(project_id, found, opinion)
            try:
                async with self._database.write() as session:
                    session.add(row)
            except IntegrityError:  # the same external id came twice at once
                return (await self._by_external(project_id, [opinion.external_id or ""])).get(opinion.external_id or "")
        return row

    async def create_all(
        self, project_id: str, given: Sequence[tuple[Target, Opinion]]
    ) -> tuple[list[Feedback], list[Exception | None]]:
        """Keeps many at once: what was made, and for each given one what was wrong with it. Those known by `external_id` are not
        made again and nothing is wrong with them."""
        async with self._gate:
            found = await self.targets.find_all(project_id, [target for target, _ in given])
            tries = 0
            while True:
                made, problems = await self._fresh(project_id, given, found)
                try:
                    async with self._database.write() as session:
                        session.add_all(made)
                except IntegrityError:  # another process has kept one of them meanwhile
                    tries += 1
                    if tries == _TRIES:
                        raise
                else:
                    return made, problems

    async def _fresh(
        self, project_id: str, given: Sequence[tuple[Target, Opinion]], found: Sequence[Found | None]
    ) -> tuple[list[Feedback], list[Exception | None]]:
        """Rows for what is not there yet, none of them kept, and what is wrong with each given opinion."""
        known = set(await self._by_external(project_id, [said.external_id for _, said in given if said.external_id]))
        made: list[Feedback] = []
        problems: list[Exception | None] = []
        for (target, opinion), at in zip(given, found, strict=True):
            fresh = opinion.external_id not in known
            problems.append(missing(target) if fresh and at is None else None)
            if fresh and at is not None:
                made.append(_row(project_id, at, opinion))
                if opinion.external_id is not None:
                    known.add(opinion.external_id)
        return made, problems

    async def _by_external(self, project_id: str, ids: Sequence[str]) -> dict[str, Feedback]:
        if not ids:
            return {}
        query = select(Feedback).where(Feedback.project_id == project_id, Feedback.external_id.in_(ids))
        async with self._database.read() as session:
            return {row.external_id or "": row for row in await session.scalars(query)}

    async def get(self, feedback_id: str, project_id: str = DEFAULT_PROJECT) -> Feedback:
        """Raises NotFound."""
        async with self._database.read() as session:
            row = await session.get(Feedback, feedback_id)
        if row is None or row.project_id != project_id:
            raise NotFound(f"No feedback {feedback_id!r}.", param="feedback_id")
        return row

    async def list(self, wanted: FeedbackFilter, cursor: Cursor, project_id: str = DEFAULT_PROJECT) -> Page[Feedback]:
        async with self._database.read() as session:
            return await page(session, wanted.apply(select(Feedback), project_id), Feedback.id, cursor)

    async def update(self, feedback_id: str, changes: Mapping[str, Any], project_id: str = DEFAULT_PROJECT) -> Feedback:
        """Changes what was said; `changes` has names of `Opinion`. Raises NotFound, InvalidRequest."""
        await self.get(feedback_id, project_id)
        _check_parts(changes)
        async with self._database.write() as session:
            row = await session.get(Feedback, feedback_id)
            if row is None:
                raise NotFound(f"No feedback {feedback_id!r}.", param="feedback_id")
            for name, value in changes.items():
                setattr(row, "meta" if name == "metadata" else name, _RATINGS.get(value) if name == "rating" else value)
            row.updated_at = int(time.time())
            if all(getattr(row, name) in (None, "") for name in _SAID):
                raise InvalidRequest("The feedback would say nothing.", hint="Delete it instead.")
        return row

    async def stats(
        self, wanted: FeedbackFilter, *, interval_s: int | None = None, project_id: str = DEFAULT_PROJECT
    ) -> list[FeedbackStats]:
        """Sums by model and, with `interval_s`, by stretches of that many seconds since 1970, oldest first."""
        # Written out: PostgreSQL takes two placeholders of the same value for two expressions.
        start: Any = Feedback.created_at - Feedback.created_at % literal_column(str(int(interval_s))) if interval_s else None
        keys = [Feedback.model] if start is None else [Feedback.model, start]
        sums = (
            func.count(),
            func.count().filter(Feedback.rating == 1),
            func.count().filter(Feedback.rating == -1),
            func.count(Feedback.correction),
            func.count(Feedback.score),
            func.avg(Feedback.score),
        )
        async with self._database.read() as session:
            rows: Sequence[Any] = (await session.execute(wanted.apply(select(*keys, *sums), project_id).group_by(*keys))).all()
            named = wanted.apply(select(*keys, Feedback.label, func.count()), project_id).where(Feedback.label.is_not(None))
            labels: Sequence[Any] = (await session.execute(named.group_by(*keys, Feedback.label))).all()
        width = len(keys)
        by_key: dict[Any, dict[str, int]] = {}
        for row in labels:
            by_key.setdefault(tuple(row[:width]), {})[row[width]] = row[width + 1]
        found = [
            FeedbackStats(row[0], row[1] if width == 2 else None, *row[width:], labels=by_key.get(tuple(row[:width]), {}))
            for row in rows
        ]
        return sorted(found, key=lambda each: (each.start or 0, each.model or ""))


def _row(project_id: str, found: Found, opinion: Opinion) -> Feedback:
    now = int(time.time())
    return Feedback(
        id=new_id("fb_"),
        project_id=project_id,
        target_kind=found.target.kind,
        target_id=found.target.id,
        trace_id=found.trace_id,
        span_id=found.span_id,
        model=found.model,
        rating=_RATINGS[opinion.rating] if opinion.rating else None,
        score=opinion.score,
        label=opinion.label,
        correction=dict(opinion.correction) if opinion.correction is not None else None,
        comment=opinion.comment,
        author=opinion.author,
        source=opinion.source,
        external_id=opinion.external_id,
        meta=dict(opinion.metadata),
        created_at=now,
        updated_at=now,
    )
