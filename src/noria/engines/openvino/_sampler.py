"""Turns a row of logits into a token, in numpy. It runs between two steps, so every microsecond a row counts.

Knows nothing about the model or scheduling. Order of operations, fixed and tested against a slow reference:
repetition penalty → frequency and presence penalties → logit_bias → grammar mask → temperature → top_k → top_p (of
what top_k left) → min_p (relative to the likeliest). Log-probabilities reported are the model's own: of the raw logits.

A random number is a function of (seed, position in the answer) alone, so that a seeded request is reproducible whatever
else is in the batch and however often it was pre-empted.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np

from noria.engines.openvino._sequence import Sampling, Sequence, TokenLogprobs

__all__ = ["Sampled", "likeliest", "logprobs_of", "note_tokens", "sample", "uniform"]

Array = np.ndarray[Any, Any]

BLOCK = 256
"""Tokens whose weights are added up first when one is drawn: the draw then looks into one block alone."""

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


def likeliest(row: Array, count: int) -> Array:
    """Ids of the `count` largest finite values of a row [V], largest first, equal ones by id; fewer if there are fewer."""
    size = row.shape[0]
    floor = np.finfo(np.float32).min
    # Of `columns` groups each has a largest; the count-th of those largest is no more than the count-th of all.
    columns = next((c for c in (size // 64, size // 8) if count * 4 <= c), 0)
    if columns:
        peaks = row[: size // columns * columns].reshape(-1, columns).max(axis=0)
        floor = max(floor, np.partition(peaks, columns - count)[columns - count])
    ids = np.flatnonzero(row >= floor)
    return ids[np.argsort(-row[ids], kind="stable")[:count]]


def logprobs_of(row: Array, token: int, num_top: int) -> TokenLogprobs:
    """Log-probabilities of `token` and of the `num_top` likeliest, from one row of raw logits [V]."""
    weights = _weights(row, 1.0)
    log_total = float(row.max()) + float(np.log(weights.sum()))
    top = [(int(i), float(row[i]) - log_total) for i in likeliest(row, num_top)] if num_top else []
    return TokenLogprobs(float(row[token]) - log_total, tuple(top))


def sample(row: Array, sequence: Sequence) -> Sampled:
    """The sequence's next token. `row` [V] float32 is read, never written. Raises ArithmeticError when nothing can be drawn."""
    sampling = sequence.sampling
    altered = _altered(row, sequence)
    token = int(altered.argmax())
    if not np.isfinite(altered[token]):
        raise ArithmeticError(f"The likeliest token's logit is {altered[token]}: a number overflowed, or nothing is allowed.")
    if sampling.temperature > 0:
        token = _draw(altered, sampling, uniform(sampling.seed, sequence.num_generated))
    return Sampled(token, None if sampling.top_logprobs is None else logprobs_of(row, token, sampling.top_logprobs))


def _altered(row: Array, sequence: Sequence) -> Array:
    """The row after penalties, biases and the grammar; the row itself where there are none."""
    sampling = sequence.sampling
    if sampling.counts_tokens or sampling.logit_bias:
        row = row.copy()
    if sampling.counts_tokens:
        note_tokens(sequence, (), row.shape[0])
        assert sequence.counts is not None
        assert sequence.seen is not None
        if sampling.repetition_penalty != 1.0:
            seen = np.flatnonzero(sequence.seen)
            values = row[seen]
            row[seen] = np.where(values > 0, values / sampling.repetition_penalty, values * sampling.repetition_penalty)
        generated = np.flatnonzero(sequence.counts)
        row[generated] -= sampling.frequency_penalty * sequence.counts[generated] + sampling.presence_penalty
    if sampling.logit_bias:
        tokens, biases = sampling.bias_arrays
        row[tokens] += biases
    if sequence.constraint is not None:
        words = np.zeros((row.shape[0] + 31) // 32, np.int32)
        sequence.constraint.fill_mask(words)
        allowed = np.unpackbits(words.view(np.uint8), bitorder="little")[: row.shape[0]].view(bool)
        row = np.where(allowed, row, np.float32(-np.inf))
    return row


def _weights(logits: Array, temperature: float) -> Array:
    """exp(logits / temperature), the likeliest 1."""
    weights = logits - logits.max()
    weights *= np.float32(1 / max(temperature, 1e-4))
    return np.exp(weights, out=weights)


def _draw(row: Array, sampling: Sampling, draw: float) -> int:
    """One token of a row of logits [V] after temperature, top_k, top_p and min_p."""
    if sampling.top_k > 0:
        ids = likeliest(row, min(sampling.top_k, row.shape[0]))
        weights = _weights(row[ids], sampling.temperature)
        total = weights.sum(dtype=np.float64)
    elif sampling.top_p < 1.0 or sampling.min_p > 0.0:
        weights = _weights(row, sampling.temperature)
        total = float(weights.sum())
        ids = _within_reach(weights, sampling, total)
        ids = ids[np.argsort(-row[ids], kind="stable")]
        weights = weights[ids]
    else:
        return _draw_any(_weights(row, sampling.temperature), draw)
    cumulative = np.cumsum(weights, dtype=np.float64)
    count = len(ids)
    if sampling.top_p < 1.0:
        count = min(count, int(np.searchsorted(cumulative, sampling.top_p * total, side="left")) + 1)
    if sampling.min_p > 0.0:
        count = min(count, int(np.count_nonzero(weights >= sampling.min_p)))
    return int(ids[_at(cumulative[: max(count, 1)], draw)])


def _within_reach(weights: Array, sampling: Sampling, total: float) -> Array:
    """Ids of all tokens that top_p and min_p may keep, and few others, of weights [V] whose likeliest is 1."""
    # Tokens below this weigh less than 1 - top_p together, however many they are; often a higher floor does as well.
    floor = (1 - sampling.top_p) * total / weights.shape[0]
    for times in (64, 1):
        ids = np.flatnonzero(weights >= max(times * floor, sampling.min_p))
        if times * floor <= sampling.min_p or weights[ids].sum() > sampling.top_p * total:
            break
    return ids


def _draw_any(weights: Array, draw: float) -> int:
    """The index in weights [V] that a draw falls on: first the block, then the place in it."""
    sums = np.add.reduceat(weights, np.arange(0, weights.shape[0], BLOCK), dtype=np.float32)
    cumulative = np.cumsum(sums, dtype=np.float64)
    block = _at(cumulative, draw)
    before = cumulative[block - 1] if block else 0.0
    return block * BLOCK + _at(
        np.cumsum(weights[block * BLOCK :][:BLOCK], dtype=np.float64), (draw * cumulative[-1] - before) / sums[block]
    )


def _at(cumulative: Array, draw: float) -> int:
    """The index that a draw falls on; never one of zero weight."""
    total = cumulative[-1]
    # A draw that is rounded up to the total falls on the last index of any weight.
    return int(min(np.searchsorted(cumulative, draw * total, side="right"), np.searchsorted(cumulative, total)))
