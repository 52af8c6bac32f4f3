"""The guard: do the candidate's live figures hold their bounds, however often one looks?

Each look k tests at level α·6/(π²k²), whose sum over all looks is α, so that looking again and again rolls back a candidate
that is as good with a chance of at most α (a union bound: it holds for any dependence between the looks). A look counts
only when the candidate has a quarter more evidence than at the last one. Thousands of good requests must not hide what
breaks after them: so there are two watches, each with half of α, one over the whole time and one over what came of late.

Tests: Fisher's exact test, one-sided, between the candidate's and the base's rates; the exact binomial test between a rate
and a bound. Knows nothing about where figures come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ._parts import LiveFigures
from ._spec import Guard

__all__ = ["Watch", "binomial_p", "fisher_p", "look_alpha"]


_FIRST_LOOK = 5
_GROWTH = 1.25
_ENOUGH = 20
_UNNOTICED_S = 0.25
"""Nobody notices so much more, however many times the base's it is."""


def look_alpha(alpha: float, look: int) -> float:
    """The level of the look-th look (from 1); the levels of all looks sum to `alpha`."""
    return alpha * 6.0 / (math.pi**2 * look**2)


def binomial_p(hits: int, total: int, rate: float) -> float:
    """P(at least `hits` of `total`) when each has the chance `rate`."""
    if hits <= 0:
        return 1.0
    log = math.log
    terms = (
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) + k * log(rate) + (total - k) * math.log1p(-rate)
        for k in range(hits, total + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))


def fisher_p(hits: int, total: int, base_hits: int, base_total: int) -> float:
    """P(at least `hits` in the first sample) given the margins, when both samples have one rate (hypergeometric)."""
    if hits <= 0 or total == 0 or base_total == 0:
        return 1.0
    all_hits, everything = hits + base_hits, total + base_total

    def choose(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    whole = choose(everything, total)
    terms = (
        choose(all_hits, k) + choose(everything - all_hits, total - k) - whole
        for k in range(hits, min(total, all_hits) + 1)
        if total - k <= everything - all_hits
    )
    return min(1.0, math.fsum(map(math.exp, terms)))


@dataclass(slots=True)
class Watch:
    """The looks of one canary step or of the time after promotion; `state` survives a restart. `share` is this watch's of α."""

    guard: Guard
    share: float = 1.0
    looks: dict[str, int] = field(default_factory=dict[str, int])
    seen: dict[str, int] = field(default_factory=dict[str, int])
    _last: bool = False

    @classmethod
    def resumed(cls, guard: Guard, state: Mapping[str, Any] | None, share: float = 1.0) -> Watch:
        found = state or {}
        return cls(guard, share, dict(found.get("looks", {})), dict(found.get("seen", {})))

    @property
    def state(self) -> dict[str, Any]:
        return {"looks": dict(self.looks), "seen": dict(self.seen)}

    def breach(self, candidate: LiveFigures, base: LiveFigures, *, last: bool = False) -> str | None:
        """What is out of bounds, in words; None while all holds. Counts as one look at each figure with new evidence; `last`:
        however little is new."""
        self._last = last
        guard = self.guard
        rates = (
            ("errors", guard.errors, guard.max_error_rate, _Rate("error rate", candidate.errors, candidate.requests),
             (base.errors, base.requests)),
            ("negatives", guard.negatives, guard.max_negative_rate,
             _Rate("rate of negative feedback", candidate.negative, candidate.feedback), (base.negative, base.feedback)),
        )  # fmt: skip
        for name, compared, bound, rate, beside in rates:
            if compared and (found := self._beside(f"{name}:base", rate, beside)) is not None:
                return found
            if bound is not None and (found := self._above(f"{name}:bound", rate, bound)) is not None:
                return found
        return self._slow(candidate, base)

    def _slow(self, candidate: LiveFigures, base: LiveFigures) -> str | None:
        bound = latency_bound_s(self.guard, base)
        if bound is None:
            return None
        rate = _Rate(f"share of requests above {bound:.2f} s", candidate.slow, candidate.requests)
        return self._above("latency", rate, 0.05)  # p95 above the bound: more than 5 % are slower than it

    def _beside(self, key: str, rate: _Rate, base: tuple[int, int]) -> str | None:
        level = self._look(key, rate.total)
        if level is None or (p := fisher_p(rate.hits, rate.total, *base)) >= level:
            return None
        return f"The {rate.name} is {rate.hits} of {rate.total}, the base's {base[0]} of {base[1]} (p = {p:.2g})."

    def _above(self, key: str, rate: _Rate, bound: float) -> str | None:
        level = self._look(key, rate.total)
        if level is None or (p := binomial_p(rate.hits, rate.total, bound)) >= level:
            return None
        return f"The {rate.name} is {rate.hits} of {rate.total}, above the bound of {bound:.3g} (p = {p:.2g})."

    def _look(self, key: str, total: int) -> float | None:
        """The level of this look; None when there is too little new to count as one."""
        seen = self.seen.get(key, 0)
        if total < max(_FIRST_LOOK, seen + 1 if self._last else seen * _GROWTH):
            return None
        self.seen[key] = total
        self.looks[key] = self.looks.get(key, 0) + 1
        return look_alpha(self.share * self.guard.alpha / self._tests, self.looks[key])

    @property
    def _tests(self) -> int:
        """How many figures are tested: the chance of a false alarm is shared among them."""
        guard = self.guard
        given = (guard.errors, guard.negatives, guard.max_error_rate, guard.max_negative_rate)
        slow = guard.max_latency_p95_s is not None or guard.max_latency_ratio is not None
        return max(1, sum(bool(each) for each in given) + slow)


@dataclass(frozen=True, slots=True)
class _Rate:
    name: str
    hits: int
    total: int


def latency_bound_s(guard: Guard, base: LiveFigures) -> float | None:
    """What 95 % of requests must stay below: the absolute bound or a multiple of the base's p95, whichever is tighter."""
    ratio = guard.max_latency_ratio
    beside = None
    if ratio is not None and base.latency_p95_s and base.requests >= _ENOUGH:
        beside = max(base.latency_p95_s * ratio, base.latency_p95_s + _UNNOTICED_S)
    bounds = [bound for bound in (guard.max_latency_p95_s, beside) if bound is not None]
    return min(bounds) if bounds else None
