"""The guard's statistics: exact tests against known values, and how often it errs when it looks again and again."""

from __future__ import annotations

import math
import random
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.wheel import LiveFigures
from noria.wheel._guard import Watch, binomial_p, fisher_p, latency_bound_s, look_alpha
from noria.wheel._spec import Guard


def test_fishers_test_against_known_values() -> None:
    # The lady tasting tea (Fisher 1935): all 4 of 4 right, 1 in 70; at least 3 of 4, 17 in 70.
    assert fisher_p(4, 4, 0, 4) == pytest.approx(1 / 70)
    assert fisher_p(3, 4, 1, 4) == pytest.approx(17 / 70)


def test_the_binomial_test_against_known_values() -> None:
    assert binomial_p(10, 10, 0.5) == pytest.approx(0.5**10)
    assert binomial_p(0, 7, 0.2) == 1.0
    assert binomial_p(1, 7, 0.2) == pytest.approx(1 - 0.8**7)


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_fishers_test_agrees_with_counting(total: int, base_total: int, data: st.DataObject) -> None:
    hits, base_hits = data.draw(st.integers(0, total)), data.draw(st.integers(0, base_total))
    all_hits, everything = hits + base_hits, total + base_total
    ways = sum(
        math.comb(all_hits, k) * math.comb(everything - all_hits, total - k)
        for k in range(hits, min(total, all_hits) + 1)
        if total - k <= everything - all_hits
    )
    assert fisher_p(hits, total, base_hits, base_total) == pytest.approx(ways / math.comb(everything, total), abs=1e-9)


def test_the_levels_of_all_looks_sum_to_alpha() -> None:
    total = list(accumulate(look_alpha(0.01, look) for look in range(1, 20_000)))[-1]
    assert 0.0099 < total <= 0.01


def _traffic(generator: random.Random, rate: float, base_rate: float, looks: int, each: int) -> bool:
    """Whether a watch breaks off at any of many looks."""
    watch = Watch(Guard(alpha=0.05, max_latency_ratio=None))
    counts = [0, 0]
    for look in range(1, looks + 1):
        for place, chance in enumerate((rate, base_rate)):
            counts[place] += sum(generator.random() < chance for _ in range(each))
        total = look * each
        candidate = LiveFigures(total, 0, feedback=total, negative=counts[0])
        base = LiveFigures(total, 0, feedback=total, negative=counts[1])
        if watch.breach(candidate, base) is not None:
            return True
    return False


def test_looking_often_rolls_back_few_candidates_that_are_as_good_and_all_that_are_much_worse() -> None:
    generator = random.Random(1)
    false_alarms = sum(_traffic(generator, 0.2, 0.2, 60, 5) for _ in range(200))
    assert false_alarms <= 10  # α = .05; the union bound and exact tests keep it far below
    assert all(_traffic(generator, 0.7, 0.2, 60, 5) for _ in range(30))


def test_a_restart_counts_its_looks_on() -> None:
    guard = Guard()
    watch = Watch(guard)
    figures = LiveFigures(100, 3, feedback=100, negative=10)
    assert watch.breach(figures, figures) is None
    again = Watch.resumed(guard, watch.state)
    assert again.state == watch.state and again.looks
    assert again.breach(figures, figures) is None
    assert again.state == watch.state  # nothing new: no look was spent


def test_the_latency_bound_is_the_tighter_one() -> None:
    base = LiveFigures(100, 0, latency_p95_s=1.0)
    assert latency_bound_s(Guard(max_latency_ratio=1.5, max_latency_p95_s=1.2), base) == 1.2
    assert latency_bound_s(Guard(max_latency_ratio=1.5), base) == 1.5
    assert latency_bound_s(Guard(max_latency_ratio=1.5), LiveFigures(3, 0, latency_p95_s=1.0)) is None


@pytest.mark.parametrize(
    ("guard", "candidate", "said"),
    [
        (Guard(max_error_rate=0.1, errors=False), LiveFigures(50, 30), "error rate is 30 of 50, above the bound of 0.1"),
        (Guard(max_negative_rate=0.2, negatives=False), LiveFigures(50, 0, feedback=50, negative=40), "negative feedback"),
        (Guard(max_latency_p95_s=1.0), LiveFigures(50, 0, slow=30), "share of requests above 1.00 s is 30 of 50"),
        (Guard(), LiveFigures(50, 25), "error rate is 25 of 50, the base's 1 of 100"),
    ],
)
def test_what_is_out_of_bounds_is_said(guard: Guard, candidate: LiveFigures, said: str) -> None:
    base = LiveFigures(100, 1, feedback=100, negative=2)
    assert said in (Watch(guard).breach(candidate, base) or "")
