"""Turns logits into tokens for a whole batch at once, in numpy.

Knows nothing about the model or scheduling. Order of operations, fixed and tested against a slow reference:
repetition penalty → frequency and presence penalties → logit_bias → grammar mask → temperature → top_k → top_p (of
what top_k left) → min_p (relative to the likeliest). Log-probabilities reported are the model's own: of the raw logits.

A random number is a function of (seed, position in the answer) alone, so that a seeded request is reproducible whatever
else is in the batch and however often it was pre-empted.

Shapes: R rows (sequences sampled in this step), V vocabulary, C candidates kept for the filters.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np

from noria.engines.openvino._sequence import Sampling, Sequence, TokenLogprobs

__all__ = ["Sampled", "logprobs_of", "note_tokens", "sample", "uniform"]

Array = np.ndarray[Any, Any]

CANDIDATES = 1024
"""Filters look at this many likeliest tokens; a row whose filters reach further is sorted whole."""

_MASK64 = (1 << 64) - 1


@dataclass(frozen=True)
class Sampled:
    token: int
    logprobs: TokenLogprobs | None


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on nothing else (SplitMix64, Steele et al. 2014)."""
    x = (seed * 0x9E3779B97F4A7C15 + position * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & _MASK64
    for _ in range(2):
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
        x ^= x >> 31
    return (x >> 11) / (1 << 53)


def note_tokens(sequence: Sequence, tokens: Seq[int], vocab_size: int) -> None:
    """Counts newly generated tokens for the penalties; a no-op for sequences without any."""
    if not sequence.sampling.counts_tokens:
        return
    if sequence.counts is None or sequence.seen is None:
        sequence.counts = np.zeros(vocab_size, np.int32)
        sequence.seen = np.zeros(vocab_size, bool)
        sequence.seen[sequence.tokens[: sequence.num_prompt]] = True
    np.add.at(sequence.counts, list(tokens), 1)
    sequence.seen[list(tokens)] = True


def logprobs_of(row: Array, token: int, num_top: int) -> TokenLogprobs:
    """Log-probabilities of `token` and of the `num_top` likeliest, from one row of raw logits [V]."""
    peak = float(row.max())
    log_total = peak + float(np.log(np.exp(row - peak).sum(dtype=np.float64)))
    top: list[tuple[int, float]] = []
    if num_top:
        likeliest = np.argpartition(row, -num_top)[-num_top:]
        likeliest = likeliest[np.lexsort((likeliest, -row[likeliest]))]
        top = [(int(i), float(row[i]) - log_total) for i in likeliest]
    return TokenLogprobs(float(row[token]) - log_total, tuple(top))


def sample(logits: Array, sequences: Seq[Sequence]) -> list[Sampled]:
    """One token a row. `logits` [R, V] float32 is read, never written."""
    work = logits
    altered = [i for i, s in enumerate(sequences) if _alters(s)]
    if altered:
        work = logits.copy()
        for i in altered:
            _alter(work[i], sequences[i])
    tokens = work.argmax(axis=1)
    random = [i for i, s in enumerate(sequences) if s.sampling.temperature > 0]
    if random:
        whole = len(random) == len(sequences)
        rows = work if whole else work[random]
        tokens[random] = _sample_random(rows, [sequences[i] for i in random])
    chosen: list[Sampled] = []
    for i, sequence in enumerate(sequences):
        token, top = int(tokens[i]), sequence.sampling.top_logprobs
        chosen.append(Sampled(token, None if top is None else logprobs_of(logits[i], token, top)))
    return chosen


def _alters(sequence: Sequence) -> bool:
    return bool(sequence.sampling.counts_tokens or sequence.sampling.logit_bias or sequence.constraint)


def _alter(row: Array, sequence: Sequence) -> None:
    """Applies penalties, biases and the grammar to one row [V], in place."""
    sampling = sequence.sampling
    if sampling.counts_tokens:
        note_tokens(sequence, (), row.shape[0])
        assert sequence.counts is not None
        if sampling.repetition_penalty != 1.0:
            scale = np.where(row > 0, 1 / sampling.repetition_penalty, sampling.repetition_penalty)
            np.multiply(row, scale, out=row, where=sequence.seen, casting="same_kind")
        row -= sampling.frequency_penalty * sequence.counts + sampling.presence_penalty * (sequence.counts > 0)
    for token, bias in sampling.logit_bias:
        row[token] += bias
    if sequence.constraint is not None:
        words = np.zeros((row.shape[0] + 31) // 32, np.int32)
        sequence.constraint.fill_mask(words)
        allowed = np.unpackbits(words.view(np.uint8), bitorder="little")[: row.shape[0]]
        row[allowed == 0] = -np.inf


def _sample_random(logits: Array, sequences: Seq[Sequence]) -> Array:
    """Tokens [n] for rows [n, V] whose temperature is above zero."""
    temperature = np.array([s.sampling.temperature for s in sequences], np.float32)[:, None]
    weights = logits - logits.max(axis=1, keepdims=True)
    weights /= np.maximum(temperature, 1e-4)
    np.exp(weights, out=weights)  # [n, V], the likeliest is 1
    draws = [uniform(s.sampling.seed, s.num_generated) for s in sequences]
    tokens = np.empty(len(sequences), np.int64)
    for i, sequence in enumerate(sequences):
        if _filters(sequence.sampling):
            tokens[i] = _draw_filtered(weights[i], sequence.sampling, draws[i])
        else:
            cumulative = np.cumsum(weights[i], dtype=np.float64)
            tokens[i] = _at(cumulative, draws[i])
    return tokens


def _filters(sampling: Sampling) -> bool:
    return sampling.top_p < 1.0 or sampling.top_k > 0 or sampling.min_p > 0.0


def _at(cumulative: Array, draw: float) -> int:
    """The index that a draw falls on; never one of zero weight."""
    total = cumulative[-1]
    if not 0 < total < np.inf:
        raise ArithmeticError(f"The tokens' weights add up to {total}: the logits are not numbers, or nothing is allowed.")
    # A draw that is rounded up to the total falls on the last index of any weight.
    return int(min(np.searchsorted(cumulative, draw * total, side="right"), np.searchsorted(cumulative, total)))


def _draw_filtered(weights: Array, sampling: Sampling, draw: float) -> int:
    """One token of a row of unnormalised probabilities [V] after top_k, top_p and min_p."""
    order = _likeliest(weights, sampling)
    kept = weights[order].astype(np.float64)
    total = float(weights.sum(dtype=np.float64))
    if 0 < sampling.top_k < len(kept):
        order, kept = order[: sampling.top_k], kept[: sampling.top_k]
    if sampling.top_k > 0:
        total = float(kept.sum())
    cumulative = np.cumsum(kept)
    count = len(kept)
    if sampling.top_p < 1.0:
        count = int(np.searchsorted(cumulative, sampling.top_p * total, side="left")) + 1
    if sampling.min_p > 0.0:
        count = min(count, int(np.count_nonzero(kept >= sampling.min_p * kept[0])))
    return int(order[_at(cumulative[: max(count, 1)], draw)])


def _likeliest(weights: Array, sampling: Sampling) -> Array:
    """Token ids, likeliest first (ties by id), far enough down for the row's filters."""
    size = weights.shape[0]
    if size > CANDIDATES and sampling.top_k <= CANDIDATES:
        some = np.argpartition(weights, size - CANDIDATES)[size - CANDIDATES :]
        reach_k = sampling.top_k > 0
        reach_p = sampling.top_p < 1.0 and weights[some].sum() >= sampling.top_p * weights.sum()
        reach_m = sampling.min_p > 0.0 and weights[some].min() < sampling.min_p
        if reach_k or reach_p or reach_m:
            return some[np.lexsort((some, -weights[some]))]
    return np.lexsort((np.arange(size), -weights))
