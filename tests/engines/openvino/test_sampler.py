"""The sampler against its slow reference, and what its distributions must satisfy."""

from __future__ import annotations

import numpy as np
import pytest
from decoder_reference import distribution, draw, log_softmax
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.engines.openvino import _sampler
from noria.engines.openvino._sampler import likeliest, logprobs_of, note_tokens, sample, uniform
from noria.engines.openvino._sequence import Sampling, Sequence

VOCAB = 600

samplings = st.builds(
    Sampling,
    max_tokens=st.just(10),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.0]),
    top_k=st.sampled_from([0, 1, 5, 299, 1000]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.7, -1.0]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    logit_bias=st.sampled_from([(), ((3, 5.0), (7, -100.0))]),
    seed=st.integers(-(2**63), 2**63),
    top_logprobs=st.sampled_from([None, 0, 3]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(samplings, min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.sampled_from([0.3, 3.0, 9.0]))
def test_every_row_is_drawn_as_the_reference_draws_it(rows: list[Sampling], seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (len(rows), VOCAB)).astype(np.float32).round(2)  # with ties
    before = logits.copy()
    sequences: list[Sequence] = []
    for sampling in rows:
        sequence = Sequence(rng.integers(0, VOCAB, 5).tolist(), sampling)
        for token in rng.integers(0, 20, 6).tolist():
            sequence.tokens.append(token)
            note_tokens(sequence, (token,), VOCAB)
        sequences.append(sequence)
    got = [sample(row, sequence) for row, sequence in zip(logits, sequences, strict=True)]
    assert (logits == before).all()
    for row, sequence, one in zip(logits, sequences, got, strict=True):
        sampling = sequence.sampling
        generated = sequence.tokens[5:]
        expected = distribution(row, sampling, sequence.tokens[:5], generated)
        assert expected[one.token] > 0
        filtered = bool(sampling.top_p < 1 or sampling.top_k or sampling.min_p)
        token = draw(expected, filtered, sampling.seed, len(generated))
        # A draw within float32's rounding of a boundary may fall on its neighbour.
        if sampling.temperature == 0 or _margin(expected, filtered, sampling.seed, len(generated)) > 1e-4:
            assert one.token == token
        if sampling.top_logprobs is None:
            assert one.logprobs is None
        else:
            assert one.logprobs is not None
            assert one.logprobs.logprob == pytest.approx(log_softmax(row)[one.token], abs=1e-3)
            assert len(one.logprobs.top) == sampling.top_logprobs


def _margin(probabilities: np.ndarray, filtered: bool, seed: int, position: int) -> float:
    order = np.lexsort((np.arange(len(probabilities)), -probabilities)) if filtered else np.arange(len(probabilities))
    return float(np.abs(np.cumsum(probabilities[order]) - uniform(seed, position)).min())


@given(st.integers(-(2**64), 2**64), st.integers(0, 10**6))
def test_uniform_is_in_range_and_repeatable(seed: int, position: int) -> None:
    assert 0 <= uniform(seed, position) < 1
    assert uniform(seed, position) == uniform(seed, position)


def test_uniform_is_uniform() -> None:
    for draws in ([uniform(7, i) for i in range(4000)], [uniform(i, 0) for i in range(4000)]):
        counts = np.histogram(draws, 10, (0, 1))[0]
        assert ((counts - 400) ** 2 / 400).sum() < 40


def test_frequencies_follow_the_distribution() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    counts = np.zeros(4)
    for seed in range(3000):
        counts[sample(logits, Sequence([0], Sampling(1, temperature=1.0, top_p=0.9, seed=seed))).token] += 1
    assert counts[3] == 0
    assert counts[:3] / 3000 == pytest.approx(np.array([0.5, 0.3, 0.15]) / 0.95, abs=0.03)


def test_top_logprobs_are_the_likeliest_in_order() -> None:
    row = np.random.default_rng(1).normal(0, 2, 100).astype(np.float32)
    numbers = logprobs_of(row, 5, 20)
    exact = log_softmax(row)
    assert [t for t, _ in numbers.top] == np.argsort(-row)[:20].tolist()
    assert [p for _, p in numbers.top] == pytest.approx(sorted(exact, reverse=True)[:20], abs=1e-4)


def test_a_draw_at_the_very_end_falls_on_a_token_that_has_weight() -> None:
    cumulative = np.cumsum(np.array([0.1, 0.2, 0.3, 0.0], np.float64))
    assert _sampler._at(cumulative, 1.0) == 2  # pyright: ignore[reportPrivateUsage]


@given(st.integers(1, 700), st.sampled_from([64, 600, 5000]), st.integers(0, 99), st.booleans())
def test_the_likeliest_are_those_of_a_whole_sort(count: int, size: int, seed: int, masked: bool) -> None:
    row = np.random.default_rng(seed).normal(0, 2, size).astype(np.float32).round(1)
    if masked:
        row[seed % 7 :] = -np.inf
    whole = [int(i) for i in np.lexsort((np.arange(size), -row)) if np.isfinite(row[i])]
    assert likeliest(row, min(count, size)).tolist() == whole[:count]


def test_a_large_vocabulary_is_drawn_as_by_one_long_sum() -> None:
    rng = np.random.default_rng(4)
    row = rng.normal(0, 2.5, 49152).astype(np.float32)
    cumulative = np.cumsum(np.exp(row.astype(np.float64) - row.max()))
    for seed in range(200):
        token = sample(row, Sequence([0], Sampling(1, seed=seed))).token
        target = uniform(seed, 0) * cumulative[-1]
        near = np.abs(cumulative[max(token - 1, 0) : token + 1] - target).min() < 1e-5 * cumulative[-1]
        assert token == int(np.searchsorted(cumulative, target, side="right")) or near


def test_a_row_that_allows_nothing_is_an_error() -> None:
    for value in (-np.inf, np.nan, np.inf):
        for temperature in (0.0, 1.0):
            with pytest.raises(ArithmeticError):
                sample(np.full(300, value, np.float32), Sequence([0], Sampling(1, temperature=temperature)))
