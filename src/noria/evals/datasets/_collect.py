"""Rows out of what has happened: feedback, traces, stored completions. Provenance goes with every row.

What feedback means for a row is decided by `judge`, from all that was said of one answer. What is said anew replaces what earlier
collections made of the same answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import func, or_, select

from noria.errors import InvalidRequest
from noria.evals._answers import Answer, answer_in, answer_of_completion, read_judged
from noria.evals._feedback import FeedbackFilter
from noria.evals._wellformed import clean_message
from noria.store import Completion, Database, Dataset, DatasetRow, Feedback, RowSource, has_entries
from noria.tracing import TraceFilter, TraceStore

from ._content import NewRow, Source, answer_key, check_content, row_id_of
from ._progress import Report, Told
from ._versions import Staging, Versions, alive

__all__ = ["Collector", "CompletionFilter", "Expect", "FeedbackPolicy", "judge"]

_PAGE = 100
_EVALS = "noria.evals"
"""The tracer of evals. Their traces are taken only when they are asked for by name."""
Expect = Literal["answer", "nothing"]


@dataclass(frozen=True, slots=True)
class FeedbackPolicy:
    """What counts as good. A correction is always taken before a label, a label before the answer that was given.

    `min_agreement`: the share of an answer's labels that must be the same for that label to count. `route` and `metadata`: only
    answers to requests that asked for this name, and that carried all of this metadata.
    """

    thumbs_up: bool = True
    corrections: bool = True
    label_as_expected: bool = False
    pairs: bool = True
    min_score: float | None = None
    min_agreement: float = 0.5
    route: str | None = None
    metadata: Mapping[str, str] | None = None

    def covers(self, answer: Answer) -> bool:
        """Whether the answer is of the requests that are meant."""
        given = answer.metadata or {}
        return self.route in {None, answer.route} and all(
            str(given.get(key)) == value for key, value in (self.metadata or {}).items()
        )


@dataclass(frozen=True, slots=True)
class CompletionFilter:
    """Which stored completions; times are Unix seconds, `since` included, `until` not."""

    model: str | None = None
    metadata: Mapping[str, str] | None = None
    since: float | None = None
    until: float | None = None

    def apply(self, query: Any, project_id: str) -> Any:
        query = query.where(Completion.project_id == project_id)
        if self.model is not None:
            query = query.where(Completion.model == self.model)
        query = query.where(*has_entries(Completion.meta, self.metadata))
        if self.since is not None:
            query = query.where(Completion.created_at >= self.since)
        return query if self.until is None else query.where(Completion.created_at < self.until)


def judge(said: Sequence[Feedback], answer: Answer, policy: FeedbackPolicy) -> dict[str, Any] | str:
    """What a row gets from all that was said of one answer (newest last), or the reason why it gets nothing."""
    labels = Counter(row.label for row in said if row.label)
    net = sum(row.rating or 0 for row in said)
    corrections = [row.correction for row in said if row.correction is not None]
    found: dict[str, Any] = {}
    if policy.corrections and corrections:
        found["expected"] = corrections[-1]
        worse = answer_key(answer.output)
        if policy.pairs and net < 0 and worse is not None and worse != answer_key(corrections[-1]):
            found |= {"chosen": corrections[-1], "rejected": answer.output}
    elif policy.label_as_expected and labels:
        (label, most), *others = labels.most_common()
        if most / labels.total() < policy.min_agreement or (others and others[0][1] == most):
            return "labels_disagree"
        found["expected"] = {"role": "assistant", "content": label}
    elif _liked(said, net, policy):
        if answer.output is None:
            return "no_answer"
        found["expected"] = answer.output
    elif policy.thumbs_up and any(row.rating == 1 for row in said):
        return "ratings_disagree"
    else:
        return "nothing_expected"
    if labels:
        found["label"] = labels.most_common(1)[0][0]
    return found


def _liked(said: Sequence[Feedback], net: int, policy: FeedbackPolicy) -> bool:
    if policy.thumbs_up and net > 0:
        return True
    scores = [row.score for row in said if row.score is not None]
    return policy.min_score is not None and bool(scores) and net >= 0 and sum(scores) / len(scores) >= policy.min_score


@dataclass(slots=True)
class _Case:
    """One answer that something is known of."""

    answer: Answer
    sources: tuple[Source, ...]
    said: list[Feedback]

    def of(self, known: Sequence[RowSource]) -> list[RowSource]:
        """Those sources that are this answer, or something said of it."""
        first, said = self.sources[0], {source.feedback_id for source in self.sources}
        call = (first.trace_id, self.answer.span_id or first.span_id)
        return [
            source
            for source in known
            if source.feedback_id in said
            or (source.completion_id is not None and source.completion_id == first.completion_id)
            or (source.trace_id is not None and (source.trace_id, source.span_id) == call)
        ]


class Collector:
    """Stages rows. `gate` is held from reading a piece to staging it, so that a deletion in between is not undone."""

    def __init__(self, database: Database, traces: TraceStore, versions: Versions, gate: asyncio.Lock) -> None:
        self._database, self._traces, self._versions, self._gate = database, traces, versions, gate

    async def from_feedback(
        self, staging: Staging, wanted: FeedbackFilter, policy: FeedbackPolicy, report: Report, told: Told
    ) -> None:
        project_id = staging.dataset.project_id
        report.total = await self.count_feedback(project_id, wanted)
        last, seen = "", set[str]()
        while True:
            async with self._gate:
                query = wanted.apply(select(Feedback), project_id, by="updated_at").where(Feedback.id > last)
                query = query.order_by(Feedback.id).limit(_PAGE)
                async with self._database.read() as session:
                    page = list(await session.scalars(query))
                if not page:
                    return
                last = page[-1].id
                report.considered += len(page)
                cases = await self._cases(project_id, page, wanted, seen, report)
                covered = [case for case in cases if policy.covers(case.answer)]
                if other := len(cases) - len(covered):
                    report.skipped["other_traffic"] += other
                judged = [(case, self._judged(case, policy, report)) for case in covered]
                rows = await self._replacing(staging, judged, wanted, report)
                await self._versions.stage(staging, rows)
            await told(report)

    async def _replacing(
        self, staging: Staging, judged: Sequence[tuple[_Case, NewRow | None]], wanted: FeedbackFilter, report: Report
    ) -> list[NewRow]:
        """The rows to stage. What was made of the same answers and differs is withdrawn.

        A row that is not there although all that is said of its answer was collected was taken out or edited by curation or a
        person: a collection of what is new does not bring it back, and none brings it beside its edited self.
        """
        known, answered = await self._made_before(staging.dataset, [case for case, _ in judged])
        rows: list[NewRow] = []
        for case, row in judged:
            mine, row_id = case.of(known), row_id_of(row.content) if row else None
            others = [source for source in mine if source.row_id != row_id]
            noted = {source.feedback_id for source in mine if source.row_id == row_id}
            is_out = row_id not in answered and all(each.feedback_id in noted for each in case.sources)
            if row and is_out and (wanted.since is not None or any(source.row_id in answered for source in others)):
                report.skipped["taken_out"] += 1
                continue
            # Feedback that makes no row takes back what feedback made; rows of traces that nobody judged stay.
            staging.withdrawn.update(
                source.id for source in others if source.feedback_id or (row is not None and source.row_id in answered)
            )
            if row is not None:
                rows.append(row)
        return rows

    async def _made_before(self, dataset: Dataset, cases: Sequence[_Case]) -> tuple[list[RowSource], set[str]]:
        """The sources that stand for these answers, and which of their rows the newest version holds with an answer."""
        trace_ids = {source.trace_id for case in cases for source in case.sources if source.trace_id}
        completion_ids = {source.completion_id for case in cases for source in case.sources if source.completion_id}
        about = or_(RowSource.trace_id.in_(trace_ids), RowSource.completion_id.in_(completion_ids))
        query = select(RowSource).where(
            RowSource.dataset_id == dataset.id, RowSource.staged.is_(None), RowSource.withdrawn.is_(False), about
        )
        answer = or_(*(DatasetRow.content[name]["role"].as_string().is_not(None) for name in ("expected", "chosen")))
        async with self._database.read() as session:
            known = list(await session.scalars(query))
            ids = {source.row_id for source in known}
            held = select(DatasetRow.row_id).where(DatasetRow.dataset_id == dataset.id, DatasetRow.row_id.in_(ids))
            answered = set(await session.scalars(held.where(alive(dataset.head), answer)))
        return known, answered

    async def count_feedback(self, project_id: str, wanted: FeedbackFilter) -> int:
        query = wanted.apply(select(func.count(Feedback.id)), project_id, by="updated_at")
        async with self._database.read() as session:
            return await session.scalar(query) or 0

    async def _cases(
        self, project_id: str, page: list[Feedback], wanted: FeedbackFilter, seen: set[str], report: Report
    ) -> list[_Case]:
        """The answers that a page of feedback is about, each with all that was said of it, each once."""
        keys = list(dict.fromkeys(key for row in page if (key := _key(row)) not in seen))
        seen.update(keys)
        if not keys:
            return []
        everything = replace(wanted, since=None)  # what was said earlier of the same answers counts too
        trace_ids = {row.trace_id for row in page if row.trace_id}
        about = or_(Feedback.trace_id.in_(trace_ids), Feedback.target_id.in_({row.target_id for row in page}))
        query = everything.apply(select(Feedback), project_id, by="updated_at").where(about).order_by(Feedback.id)
        async with self._database.read() as session:
            found = list(await session.scalars(query))
        said: dict[str, list[Feedback]] = {key: [] for key in keys}
        for row in found:
            if _key(row) in said:
                said[_key(row)].append(row)
        firsts = [rows[0] for rows in said.values() if rows]
        given = await read_judged(self._database, self._traces, project_id, firsts)
        cases: list[_Case] = []
        for first in firsts:
            answer, completion, rows = given.answer(first), given.completion(first), said[_key(first)]
            if isinstance(answer, str):
                report.skipped[answer] += 1
                continue
            newest_last = sorted(rows, key=lambda row: (row.updated_at, row.id))
            cases.append(_Case(answer, tuple(_source(row, completion) for row in rows), newest_last))
        return cases

    def _judged(self, case: _Case, policy: FeedbackPolicy, report: Report) -> NewRow | None:
        found = judge(case.said, case.answer, policy)
        if isinstance(found, str):
            report.skipped[found] += 1
            return None
        metadata = {"label": found.pop("label")} if "label" in found else {}
        return _row(case.answer, found, case.sources, metadata, report)

    async def from_traces(self, staging: Staging, wanted: TraceFilter, expect: Expect, report: Report, told: Told) -> None:
        if wanted.project != staging.dataset.project_id:
            raise InvalidRequest("The traces and the dataset belong to different projects.", param="project")
        report.total = await self._traces.count(wanted)
        after: str | None = None
        while True:
            async with self._gate:
                page = await self._traces.list(wanted, order="oldest", after=after, limit=_PAGE)
                spans = await self._traces.spans_of([trace.trace_id for trace in page.traces], project=wanted.project)
                rows: list[NewRow] = []
                for trace_id, inside in spans.items():
                    report.considered += 1
                    answer = answer_in(inside)
                    source = Source(trace_id=trace_id, span_id=answer.span_id if answer else None)
                    if answer is None:
                        report.skipped["no_model_call"] += 1
                    elif wanted.name is None and any(span.scope == _EVALS for span in inside):
                        report.skipped["eval"] += 1  # a test is not traffic
                    elif (row := _answered(answer, expect, source, report)) is not None:
                        rows.append(row)
                await self._versions.stage(staging, rows)
            await told(report)
            after = page.next_cursor
            if after is None:
                return

    async def count_completions(self, project_id: str, wanted: CompletionFilter) -> int:
        async with self._database.read() as session:
            return await session.scalar(wanted.apply(select(func.count(Completion.id)), project_id)) or 0

    async def count_traces(self, wanted: TraceFilter) -> int:
        return await self._traces.count(wanted)

    async def from_completions(
        self, staging: Staging, wanted: CompletionFilter, expect: Expect, report: Report, told: Told
    ) -> None:
        query = wanted.apply(select(Completion), staging.dataset.project_id)
        report.total = await self.count_completions(staging.dataset.project_id, wanted)
        last = ""
        while True:
            async with self._gate:
                async with self._database.read() as session:
                    page = list(await session.scalars(query.where(Completion.id > last).order_by(Completion.id).limit(_PAGE)))
                rows: list[NewRow] = []
                for completion in page:
                    report.considered += 1
                    source = Source(trace_id=completion.trace_id, completion_id=completion.id)
                    if (row := _answered(answer_of_completion(completion), expect, source, report)) is not None:
                        rows.append(row)
                await self._versions.stage(staging, rows)
            await told(report)
            if len(page) < _PAGE:
                return
            last = page[-1].id


def _key(row: Feedback) -> str:
    """What makes two pieces of feedback be about one answer."""
    if row.target_kind == "span":
        return f"{row.trace_id}/{row.span_id}"
    return row.trace_id or row.target_id


def _source(row: Feedback, completion: Completion | None) -> Source:
    completion_id = completion.id if completion else None
    return Source(row.trace_id, row.span_id, feedback_id=row.id, completion_id=completion_id)


def _answered(answer: Answer, expect: Expect, source: Source, report: Report) -> NewRow | None:
    if expect == "nothing":
        return _row(answer, {}, (source,), {}, report)
    if answer.output is None:
        report.skipped["no_answer"] += 1
        return None
    return _row(answer, {"expected": answer.output}, (source,), {}, report)


def _row(
    answer: Answer, found: Mapping[str, Any], sources: tuple[Source, ...], metadata: Mapping[str, Any], report: Report
) -> NewRow | None:
    given: dict[str, Any] = {"messages": [clean_message(message) for message in answer.messages], "tools": answer.tools}
    given |= {name: clean_message(message) for name, message in found.items()}
    known = {"model": answer.model, "route": answer.route}
    given["metadata"] = {**(answer.metadata or {}), **{key: value for key, value in known.items() if value}, **metadata}
    try:
        return NewRow(check_content(given), sources)
    except InvalidRequest as error:
        report.skipped["unreadable"] += 1
        report.fail(sources[0].trace_id or sources[0].completion_id or "?", str(error))
        return None
