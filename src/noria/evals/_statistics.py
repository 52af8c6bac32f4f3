"""What can be said of results with how much certainty: intervals, paired tests, agreement, confusion. Numpy only.

Every function is deterministic: where it draws at random, the seed is fixed. Sources: Wilson 1927 and Brown, Cai & DasGupta 2001
(https://doi.org/10.1214/ss/1009213286) for proportions; McNemar 1947, exact; Bonett & Price 2012
(https://doi.org/10.3102/1076998611411919) for the difference of paired proportions; Efron's percentile bootstrap, over clusters
where rows belong together (Miller 2024, https://arxiv.org/abs/2411.00640); Fleiss, Cohen & Everitt 1969 for kappa. Knows nothing
about evals.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

__all__ = [
    "Interval",
    "Kappa",
    "PairedTest",
    "cohen_kappa",
    "confusion",
    "mcnemar",
    "mean_interval",
    "paired_proportions",
    "paired_scores",
    "wilson",
]

Floats = np.ndarray[Any, np.dtype[np.float64]]
_RESAMPLES = 4000
_PERMUTATIONS = 10_000
_LARGE = 5000
"""Rows above which the mean's normal interval replaces the bootstrap: the two agree there, and one is instant."""
_SEED = 20_27
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % interval over `n` rows. All three are None where there are no rows."""

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    method: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PairedTest:
    """The second's mean less the first's, with its interval, and the p-value of there being no difference (two-sided)."""

    difference: Interval
    p_value: float
    test: str

    def to_dict(self) -> dict[str, Any]:
        return {"difference": self.difference.to_dict(), "p_value": self.p_value, "test": self.test}


@dataclass(frozen=True, slots=True)
class Kappa:
    """Agreement beyond chance: 1 all, 0 no more than chance gives."""

    agreement: Interval
    kappa: Interval


def wilson(successes: int, n: int) -> Interval:
    """A proportion with Wilson's score interval."""
    if n == 0:
        return Interval(None, None, None, 0, "wilson")
    share, square = successes / n, _Z * _Z
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = _Z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return Interval(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)), n, "wilson")


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Interval:
    """A mean with its bootstrap interval. With `clusters` (one a value) whole clusters are drawn."""
    given = np.asarray(values, dtype=np.float64)
    if given.size == 0:
        return Interval(None, None, None, 0, "bootstrap")
    mean = float(given.mean())
    if clusters is None and given.size > _LARGE:
        half = _Z * float(given.std(ddof=1)) / math.sqrt(given.size)
        return Interval(mean, mean - half, mean + half, given.size, "normal")
    sums, sizes = (given, np.ones_like(given)) if clusters is None else _by_cluster(given, clusters)
    means = _resampled_means(sums, sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    method = "bootstrap" if clusters is None else "cluster bootstrap"
    return Interval(mean, min(float(low), mean), max(float(high), mean), given.size, method)


def _by_cluster(values: Floats, clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    places: dict[Hashable, int] = {}
    index = np.array([places.setdefault(cluster, len(places)) for cluster in clusters])
    return np.bincount(index, weights=values).astype(np.float64), np.bincount(index).astype(np.float64)


def _resampled_means(sums: Floats, sizes: Floats) -> Floats:
    random = np.random.default_rng(_SEED)
    means = np.empty(_RESAMPLES)
    step = max(1, 2_000_000 // sums.size)  # a bounded piece of memory at a time
    for start in range(0, _RESAMPLES, step):
        count = min(step, _RESAMPLES - start)
        drawn = random.integers(0, sums.size, size=(count, sums.size))
        means[start : start + count] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test: the rows that only one of two got right, as a fair coin's."""
    n = only_first + only_second
    if n == 0:
        return 1.0
    tail = _binomial_tail(min(only_first, only_second), n)
    return min(1.0, 2 * tail)


def _binomial_tail(most: int, n: int) -> float:
    """P(X ≤ most) for n tosses of a fair coin, through logarithms."""
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2) for k in range(most + 1)]
    top = max(logs)
    return math.exp(top) * math.fsum(math.exp(each - top) for each in logs)


def paired_proportions(only_first: int, only_second: int, n: int) -> PairedTest:
    """Two shares over the same `n` rows: their difference (second less first) and McNemar's exact test."""
    if n == 0:
        return PairedTest(Interval(None, None, None, 0, "bonett-price"), 1.0, "mcnemar_exact")
    first, second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    centre = second - first
    half = _Z * math.sqrt((first + second - centre * centre) / (n + 2))
    estimate = (only_second - only_first) / n
    low, high = max(-1.0, min(centre - half, estimate)), min(1.0, max(centre + half, estimate))
    return PairedTest(Interval(estimate, low, high, n, "bonett-price"), mcnemar(only_first, only_second), "mcnemar_exact")


def paired_scores(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Two scores of the same rows: the mean difference with its bootstrap interval, and a sign-flip permutation test."""
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    interval = mean_interval(differences.tolist())
    nonzero = differences[differences != 0]
    return PairedTest(interval, _sign_flip(nonzero), "permutation")


def _sign_flip(differences: Floats) -> float:
    """Exact for few differences, else by draws (never 0: the observed signs count as one of them)."""
    if differences.size == 0:
        return 1.0
    observed = abs(float(differences.sum())) - 1e-12 * float(np.abs(differences).sum())
    if differences.size <= 13:
        sums = np.zeros(1)
        for difference in differences:
            sums = np.concatenate([sums + difference, sums - difference])
        return float((np.abs(sums) >= observed).mean())
    random = np.random.default_rng(_SEED)
    hits, step = 0, max(1, 4_000_000 // differences.size)
    for start in range(0, _PERMUTATIONS, step):
        count = min(step, _PERMUTATIONS - start)
        signs = random.integers(0, 2, size=(count, differences.size), dtype=np.int8) * 2 - 1
        hits += int((np.abs(signs @ differences) >= observed).sum())
    return (hits + 1) / (_PERMUTATIONS + 1)


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> Kappa:
    """How far two raters of the same rows agree."""
    n = len(first)
    agreed = wilson(sum(one == other for one, other in zip(first, second, strict=True)), n)
    if n == 0:
        return Kappa(agreed, Interval(None, None, None, 0, "asymptotic"))
    labels = {label: place for place, label in enumerate(dict.fromkeys([*first, *second]))}
    table = np.zeros((len(labels), len(labels)))
    for one, other in zip(first, second, strict=True):
        table[labels[one], labels[other]] += 1 / n
    rows, columns, same = table.sum(axis=1), table.sum(axis=0), np.diag(table)
    chance = float(rows @ columns)
    if chance >= 1 - 1e-12:  # both gave one and the same label throughout: there is nothing to agree on
        return Kappa(agreed, Interval(0.0, 0.0, 0.0, n, "undefined"))
    kappa = (float(same.sum()) - chance) / (1 - chance)
    on = float((same * (1 - (rows + columns) * (1 - kappa)) ** 2).sum())
    off = table * (columns[:, None] + rows[None, :]) ** 2
    beside = (1 - kappa) ** 2 * float(off.sum() - np.diag(off).sum())
    variance = max(0.0, on + beside - (kappa - chance * (1 - kappa)) ** 2) / (n * (1 - chance) ** 2)
    half = _Z * math.sqrt(variance)
    return Kappa(agreed, Interval(kappa, max(-1.0, kappa - half), min(1.0, kappa + half), n, "asymptotic"))


def confusion(expected: Sequence[str], given: Sequence[str]) -> dict[str, Any]:
    """A classification's report. Answers that are none of the expected labels are counted under None."""
    labels = sorted(set(expected))
    places = {label: place for place, label in enumerate(labels)}
    other = len(labels)
    table = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    for wanted, got in zip(expected, given, strict=True):
        table[places[wanted], places.get(got, other)] += 1
    per_label = {label: _one_against_rest(table, place) for label, place in places.items()}
    scores = [facts["f1"]["estimate"] or 0.0 for facts in per_label.values()]
    correct = int(np.diag(table[:, :other]).sum())
    return {
        "labels": [*labels, None],
        "matrix": table.tolist(),
        "accuracy": wilson(correct, len(expected)).to_dict(),
        "macro_f1": sum(scores) / len(scores) if scores else None,
        "per_label": per_label,
    }


def _one_against_rest(table: np.ndarray[Any, np.dtype[np.int64]], place: int) -> dict[str, Any]:
    hit = int(table[place, place])
    support, made, total = int(table[place].sum()), int(table[:, place].sum()), int(table.sum())
    return {
        "support": support,
        "precision": wilson(hit, made).to_dict(),
        "recall": wilson(hit, support).to_dict(),
        "f1": _f1(hit, made - hit, support - hit, total).to_dict(),
        "false_positive_rate": wilson(made - hit, total - support).to_dict(),
    }


def _f1(hit: int, false_alarms: int, missed: int, total: int) -> Interval:
    if hit + false_alarms + missed == 0:
        return Interval(None, None, None, total, "bootstrap")
    shares = np.array([hit, false_alarms, missed, total - hit - false_alarms - missed]) / total
    drawn = np.random.default_rng(_SEED).multinomial(total, shares, size=_RESAMPLES)
    bottom = 2 * drawn[:, 0] + drawn[:, 1] + drawn[:, 2]
    found = np.where(bottom > 0, 2 * drawn[:, 0] / np.maximum(bottom, 1), 0.0)
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(2 * hit / (2 * hit + false_alarms + missed), float(low), float(high), total, "bootstrap")
