"""Known values (statsmodels 0.15, scipy 1.17) and properties of the statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.evals import _statistics as statistics

SCORES = st.lists(st.floats(-5, 5, allow_nan=False, width=32), min_size=1, max_size=60)
LABELS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1, max_size=80)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(8, 10, 0.49016247153664183, 0.9433178485456247), (0, 20, 0.0, 0.1611251580528194), (0, 0, None, None)],
)
def test_wilson(successes: int, n: int, low: float | None, high: float | None) -> None:
    found = statistics.wilson(successes, n)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(("b", "c", "p"), [(6, 2, 0.2890625), (30, 12, 0.007915897334896727), (0, 0, 1.0), (5, 5, 1.0)])
def test_mcnemar(b: int, c: int, p: float) -> None:
    assert statistics.mcnemar(b, c) == pytest.approx(p)
    assert statistics.mcnemar(c, b) == pytest.approx(p)


def test_mcnemar_of_many_rows_does_not_overflow() -> None:
    assert 0 < statistics.mcnemar(40_000, 39_000) < 0.01


def test_kappa() -> None:
    first = [0] * 60 + [1] * 40
    second = [0] * 45 + [1] * 15 + [0] * 25 + [1] * 15
    found = statistics.cohen_kappa(first, second).kappa
    assert found.estimate == pytest.approx(0.1304348, abs=1e-6)
    assert (found.low, found.high) == (pytest.approx(-0.0629, abs=1e-4), pytest.approx(0.3238, abs=1e-4))


def test_permutation_is_exact_for_few_rows_and_near_for_many() -> None:
    differences = [0.3, -0.1, 0.2, 0.5, 0.4, -0.2, 0.1, 0.6]
    assert statistics.paired_scores([0.0] * 8, differences).p_value == pytest.approx(0.0859375)
    random = np.random.default_rng(1)
    none, some = random.normal(0, 1, 400), random.normal(0.3, 1, 400)
    assert statistics.paired_scores([0.0] * 400, none.tolist()).p_value > 0.01
    assert statistics.paired_scores([0.0] * 400, some.tolist()).p_value < 0.001


def test_intervals_cover_as_often_as_they_say() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(60):
        found = statistics.mean_interval(random.exponential(1.0, 80).tolist())
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 1.0 <= found.high
    assert covered >= 50  # P(fewer) < 0.01 at a true coverage of .93


def test_clusters_widen_the_interval_where_rows_belong_together() -> None:
    values = [float(cluster % 2) for cluster in range(20) for _ in range(10)]
    clusters = [cluster for cluster in range(20) for _ in range(10)]
    apart, together = statistics.mean_interval(values), statistics.mean_interval(values, clusters)
    assert apart.high is not None
    assert together.high is not None
    assert together.high - 0.5 > 2 * (apart.high - 0.5)


def test_many_rows_take_little_time_and_memory() -> None:
    found = statistics.mean_interval(np.random.default_rng(0).normal(0, 1, 200_000).tolist())
    assert found.method == "normal"


@given(SCORES)
def test_a_mean_lies_in_its_interval(values: list[float]) -> None:
    found = statistics.mean_interval(values)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= (found.estimate or 0.0) <= found.high
    assert found == statistics.mean_interval(values)  # the same each time


@given(SCORES)
def test_a_run_beside_itself_is_no_different(values: list[float]) -> None:
    found = statistics.paired_scores(values, values)
    assert (found.difference.estimate, found.p_value) == (0.0, 1.0)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 100))
def test_paired_proportions_are_antisymmetric(b: int, c: int, ties: int) -> None:
    n = b + c + ties
    there, back = statistics.paired_proportions(b, c, n), statistics.paired_proportions(c, b, n)
    assert there.p_value == back.p_value
    if n:
        assert there.difference.low == pytest.approx(-(back.difference.high or 0.0))
        assert (there.difference.low or 0) <= (c - b) / n <= (there.difference.high or 0)


@given(LABELS)
def test_confusion_agrees_with_counting(pairs: list[tuple[str, str]]) -> None:
    expected, got = [one for one, _ in pairs], [other for _, other in pairs]
    report = statistics.confusion(expected, got)
    assert report["accuracy"]["estimate"] == pytest.approx(sum(one == other for one, other in pairs) / len(pairs))
    assert sum(map(sum, report["matrix"])) == len(pairs)
    for label, facts in report["per_label"].items():
        hits = sum(one == other == label for one, other in pairs)
        assert facts["recall"]["estimate"] == pytest.approx(hits / expected.count(label))
        if got.count(label):
            assert facts["precision"]["estimate"] == pytest.approx(hits / got.count(label))
        f1 = facts["f1"]
        if f1["estimate"] is not None:
            assert f1["estimate"] == pytest.approx(2 * hits / (expected.count(label) + got.count(label)))
            assert 0 <= f1["low"] <= f1["high"] <= 1


@given(LABELS)
def test_kappa_stays_in_its_range(pairs: list[tuple[str, str]]) -> None:
    found = statistics.cohen_kappa([one for one, _ in pairs], [other for _, other in pairs]).kappa
    assert found.estimate is not None
    assert -1 <= found.estimate <= 1 + 1e-9
    assert math.isfinite(found.low or 0.0)
