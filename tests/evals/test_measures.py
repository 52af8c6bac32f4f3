"""Measures of likeness beside sacrebleu 2.6 (BLEU, `exp`), NLTK 3.10 (GLEU, METEOR without WordNet) and rouge-score 0.1."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.evals.graders._measures import measure, tokens

METRICS = ["fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"]
CAT = ("the cat sat on the mat", "the cat is on the mat")
FOX = ("A quick brown fox jumps over the lazy dog", "The quick brown foxes jumped over a lazy dog")
GUIDE = (
    "It is a guide to action which ensures that the military always obeys the commands of the party",
    "It is a guide to action that ensures that the military will forever heed Party commands",
)


@pytest.mark.parametrize(
    ("pair", "values"),
    [
        (CAT, (0.3799178428257963, 0.5, 0.8066666666666668, 0.8333333333333334, 0.6, 0.25, 0.8333333333333334)),
        (FOX, (0.15510080985035, 0.3, 0.9561042524005487, 0.7777777777777778, 0.25, 0.0, 0.5555555555555556)),
        (GUIDE, (0.42085980695240915, 0.45454545454545453, 0.6944444444444445, 0.7058823529411765, 0.5, 0.4, 0.6470588235294118)),
        (("hello", "hello world"), (0.3678794411714425, 1 / 3, 0.2631578947368421, 2 / 3, 0.0, 0.0, 2 / 3)),
        (("one two three four", "five six seven eight"), (0.0,) * 7),
    ],
)
def test_english(pair: tuple[str, str], values: tuple[float, ...]) -> None:
    metrics = ("bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_l")
    assert [measure(metric, *pair) for metric in metrics] == pytest.approx(values)


def test_chinese_by_characters() -> None:
    pair = ("今天天气很好", "今天的天气非常好")
    assert measure("bleu", *pair) == pytest.approx(0.1739350277271197)  # sacrebleu, tokenize="zh"
    assert measure("gleu", *pair) == pytest.approx(0.2692307692307692)
    assert measure("rouge_1", *pair) == pytest.approx(2 * 5 / (6 + 8))
    assert tokens("用GPT-4o答。") == ["用", "gpt", "-", "4o", "答", "。"]


def test_fuzzy_match() -> None:
    assert measure("fuzzy_match", "fuzzy wuzzy", "wuzzy fuzzy") == pytest.approx(2 * 9 / 22)  # "uzzy uzzy" is common


@pytest.mark.parametrize("metric", METRICS)
def test_edges(metric: str) -> None:
    assert measure(metric, "same words here and there, always", "same words here and there, always") == pytest.approx(1, abs=0.01)
    assert measure(metric, "", "text") == 0
    assert measure(metric, "text", "") == 0


@given(st.text(max_size=60), st.text(max_size=60), st.sampled_from(METRICS))
def test_every_measure_is_from_0_to_1(text: str, reference: str, metric: str) -> None:
    assert 0 <= measure(metric, text, reference) <= 1 + 1e-9


@pytest.mark.parametrize("metric", METRICS)
def test_long_texts_take_no_minutes(metric: str) -> None:
    text = " ".join(f"word{number % 997}" for number in range(20_000))
    begun = time.perf_counter()
    measure(metric, text, text[1000:])
    assert time.perf_counter() - begun < 5
