"""The gate: is the candidate better than the base on rows that neither was trained on?

Knows nothing about how rows were graded or compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ._parts import Comparison
from ._spec import Gate

__all__ = ["Verdict", "decide"]

_MOST_UNANSWERED = 0.1


@dataclass(frozen=True, slots=True)
class Verdict:
    passed: bool
    why: str


def decide(gate: Gate, compared: Sequence[Comparison], *, forgetting: float | None) -> Verdict:
    """Passes when the first grader's gain is significant and large enough, no other grader is significantly worse, and not too
    much was forgotten. A grader that cannot gate, or too few rows, never passes."""
    if not compared:
        return Verdict(False, "Nothing was graded.")
    main, *others = compared
    for each in compared:
        if not each.can_gate:
            return Verdict(
                False,
                f"The grader {each.grader!r} is a model whose agreement with people was not measured: it cannot gate. "
                "Calibrate it first.",
            )
        every = each.rows + each.unanswered
        if each.unanswered > _MOST_UNANSWERED * every:
            return Verdict(
                False,
                f"The base could not answer, or {each.grader!r} not grade, {each.unanswered} of {every} rows: that is no fair "
                "comparison. See the run's errors, and turn again.",
            )
        if each.rows < gate.min_rows:
            return Verdict(False, f"{each.rows} rows were graded by {each.grader!r}, fewer than min_rows = {gate.min_rows}.")
    if main.difference <= 0:
        return Verdict(False, f"The candidate is not better: {_figures(main)}.")
    if main.p >= gate.alpha:
        return Verdict(False, f"The gain is not significant at {gate.alpha:g}: {_figures(main)}.")
    if main.difference < gate.min_gain:
        return Verdict(False, f"The gain is below min_gain = {gate.min_gain:g}: {_figures(main)}.")
    for each in others:
        if each.difference < 0 and each.p < gate.alpha:
            return Verdict(False, f"The candidate is worse by {each.grader!r}: {_figures(each)}.")
    if forgetting is not None and forgetting > gate.max_forgetting:
        return Verdict(
            False,
            f"The candidate forgot {forgetting:.3f} of the general set, more than max_forgetting = {gate.max_forgetting:g}.",
        )
    return Verdict(True, f"The candidate is better: {_figures(main)}.")


def _figures(found: Comparison) -> str:
    return (
        f"{found.base:.3f} → {found.candidate:.3f} on {found.rows} rows, {found.wins} won and {found.losses} lost, "
        f"difference {found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}], p = {found.p:.2g}"
    )
