"""Two runs on the same rows, side by side: who won which row, and whether that could be chance.

Rows are matched by their id (a dataset's row, a stored call, or the hash of the item); the same row twice is matched in order.
A row that one run could not answer or grade counts as not passed there: else a model would gain by failing where it is hard.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from noria.errors import InvalidRequest
from noria.store import Database, EvalItem, EvalRun

from ._statistics import PairedTest, paired_proportions, paired_scores
from ._summary import items_of

__all__ = ["Comparison", "Pair", "compare"]

Winner = Literal["win", "loss", "tie"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One row in both runs. `outcome` is the second run's: it wins where it passed and the first did not."""

    row_id: str
    item_a: str
    item_b: str
    passed_a: bool
    passed_b: bool
    score_a: float | None
    score_b: float | None
    outcome: Winner
    errored_a: bool
    errored_b: bool

    @property
    def errored(self) -> bool:
        return self.errored_a or self.errored_b


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second run (b) beside the first (a).

    `passes` is McNemar's test of pass rates, `scores` the paired test of scores where these say more than pass and fail.
    `can_gate` is False where a judge without measured agreement had a say.
    """

    run_a: str
    run_b: str
    criterion: str | None
    pairs: Sequence[Pair]
    only_a: int
    only_b: int
    passes: PairedTest
    scores: PairedTest | None
    can_gate: bool
    left_out: int = 0
    """Rows that the first run could not answer, where those were to be left out."""

    def count(self, outcome: Winner) -> int:
        return sum(pair.outcome == outcome for pair in self.pairs)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rows."""
        n = len(self.pairs)
        return {
            "object": "noria.eval.comparison",
            "run_a": self.run_a,
            "run_b": self.run_b,
            "criterion": self.criterion,
            "num_pairs": n,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "wins": self.count("win"),
            "losses": self.count("loss"),
            "ties": self.count("tie"),
            "errored": sum(pair.errored for pair in self.pairs),
            "pass_rate_a": sum(pair.passed_a for pair in self.pairs) / n if n else None,
            "pass_rate_b": sum(pair.passed_b for pair in self.pairs) / n if n else None,
            **self.passes.to_dict(),
            "scores": self.scores.to_dict() if self.scores else None,
            "can_gate": self.can_gate,
        }


@dataclass(frozen=True, slots=True)
class _Seen:
    item: str
    row_id: str
    passed: bool
    score: float | None
    errored: bool


async def compare(
    database: Database, run_a: EvalRun, run_b: EvalRun, criterion: str | None, *, answered_by_a: bool = False
) -> Comparison:
    """`answered_by_a`: on the rows alone that the first run could answer; its accidents would else be the second's gain.

    Raises InvalidRequest where a run has no such criterion or has not ended.
    """
    for run in (run_a, run_b):
        if run.status in {"queued", "in_progress"}:
            raise InvalidRequest(f"The run {run.id} is {run.status}.", code="run_not_finished", hint="Compare when it has ended.")
    seen_a, seen_b = await _seen(database, run_a, criterion), await _seen(database, run_b, criterion)
    every = _pair(seen_a, seen_b)
    pairs = [pair for pair in every if not (answered_by_a and pair.errored_a)]
    judged = (run_a.statistics, run_b.statistics)
    can_gate = all(
        stats.get("can_gate", False) if criterion is None else criterion not in stats.get("uncalibrated", ()) for stats in judged
    )
    passes, scores = await asyncio.to_thread(_tests, pairs)
    return Comparison(
        run_a=run_a.id,
        run_b=run_b.id,
        criterion=criterion,
        pairs=pairs,
        only_a=len(seen_a) - len(every),
        only_b=len(seen_b) - len(every),
        left_out=len(every) - len(pairs),
        passes=passes,
        scores=scores,
        can_gate=can_gate,
    )


async def _seen(database: Database, run: EvalRun, criterion: str | None) -> list[_Seen]:
    found: list[_Seen] = []
    known = criterion is None
    async for item in items_of(database, run.id, EvalItem.id, EvalItem.row_id, EvalItem.status, EvalItem.results):
        results = [each for each in item.results if criterion is None or each["name"] == criterion]
        known = known or bool(results)
        errored = item.status == "error" if criterion is None else not results or any("error" in each for each in results)
        passed = not errored and all(each["passed"] for each in results) and bool(results)
        score = sum(float(each["score"]) for each in results) / len(results) if results and not errored else None
        found.append(_Seen(item.id, item.row_id or item.id, passed, score, errored))
    if not known and found:
        raise InvalidRequest(f"The run {run.id} has no criterion {criterion!r}.", param="criterion")
    return found


def _pair(first: Sequence[_Seen], second: Sequence[_Seen]) -> list[Pair]:
    places: dict[str, list[_Seen]] = defaultdict(list)
    for seen in reversed(second):
        places[seen.row_id].append(seen)
    pairs: list[Pair] = []
    for one in first:
        if not (others := places.get(one.row_id)):
            continue
        other = others.pop()
        pairs.append(
            Pair(
                row_id=one.row_id,
                item_a=one.item,
                item_b=other.item,
                passed_a=one.passed,
                passed_b=other.passed,
                score_a=one.score,
                score_b=other.score,
                outcome=_outcome(one, other),
                errored_a=one.errored,
                errored_b=other.errored,
            )
        )
    return pairs


def _outcome(one: _Seen, other: _Seen) -> Winner:
    if one.passed != other.passed:
        return "win" if other.passed else "loss"
    return "tie"


def _tests(pairs: Sequence[Pair]) -> tuple[PairedTest, PairedTest | None]:
    wins, losses = sum(pair.outcome == "win" for pair in pairs), sum(pair.outcome == "loss" for pair in pairs)
    passes = paired_proportions(losses, wins, len(pairs))
    given = [score for pair in pairs for score in (pair.score_a, pair.score_b) if score is not None]
    worst = min([0.0, *given])  # of a row that could not be answered or graded
    scored = [
        (worst if pair.score_a is None else pair.score_a, worst if pair.score_b is None else pair.score_b) for pair in pairs
    ]
    if all(score in {0.0, 1.0} for both in scored for score in both):
        return passes, None
    return passes, paired_scores([one for one, _ in scored], [other for _, other in scored])
