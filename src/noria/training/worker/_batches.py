"""Which examples make a step, in which order, and how a step is cut into pieces that fit the memory.

The order depends on the seed and the epoch alone, so that a training that was killed goes on with the very examples that were
next. Cutting a step changes what is computed at once, never what is learned: losses are sums over a step's learned tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from ._tokens import Ints, Tokens

__all__ = ["EpochOrder", "StepCollator", "cut", "pack", "pad"]

IGNORED = -100


class EpochOrder(Sampler[int]):
    """A permutation for each epoch; accelerate calls `set_epoch`."""

    def __init__(self, num_examples: int, seed: int) -> None:
        self._num_examples, self._seed, self.epoch = num_examples, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self._num_examples

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng([self._seed, self.epoch]).permutation(self._num_examples).tolist())


class StepCollator:
    """Makes of a step's examples the pieces to be computed one after the other."""

    def __init__(self, tokens: Tokens, micro_tokens: int, *, packing: bool, pad_id: int) -> None:
        self._tokens, self._micro_tokens, self._packing, self._pad_id = tokens, micro_tokens, packing, pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        examples = [self._tokens[int(row["index"])] for row in rows]
        # By length, so that a padded piece wastes little, and pieces are alike; within a step the order does not matter.
        examples.sort(key=lambda example: -len(example[0]))
        pieces = cut([len(ids) for ids, _ in examples], self._micro_tokens, packing=self._packing)
        groups = [examples[start:end] for start, end in pieces]
        make = [pack(group) if self._packing else pad(group, self._pad_id) for group in groups]
        return {"pieces": make, "num_learned": sum(int(learned[1:].sum()) for _, learned in examples)}


def cut(lengths: Sequence[int], most: int, *, packing: bool) -> list[tuple[int, int]]:
    """`[start, end)` of consecutive examples whose tokens (padding included, where there is one) are at most `most`.

    `lengths` fall. An example longer than `most` is a piece of its own.
    """
    pieces: list[tuple[int, int]] = []
    start, total = 0, 0
    for i, length in enumerate(lengths):
        size = total + length if packing else (i - start + 1) * lengths[start]
        if i > start and size > most:
            pieces.append((start, i))
            start, total = i, 0
        total += length
    return [*pieces, (start, len(lengths))]


def pack(examples: Sequence[tuple[Ints, Ints]]) -> dict[str, Any]:
    """One row `[1, T]`; `keep` are the positions whose next token is learned, `targets` those tokens."""
    lengths = [len(ids) for ids, _ in examples]
    ids = np.concatenate([ids for ids, _ in examples])
    learned = np.concatenate([learned for _, learned in examples]).astype(bool)
    learned[np.cumsum([0, *lengths[:-1]])] = False  # nothing predicts an example's first token
    places = np.flatnonzero(learned)
    return {
        "input_ids": torch.from_numpy(ids.astype(np.int64))[None],
        "position_ids": torch.from_numpy(np.concatenate([np.arange(n) for n in lengths]))[None],
        "segment_lengths": lengths,
        "keep": torch.from_numpy(places - 1),
        "targets": torch.from_numpy(ids[places].astype(np.int64)),
    }


def pad(examples: Sequence[tuple[Ints, Ints]], pad_id: int) -> dict[str, Any]:
    """Rows `[B, T]` with a mask; the plain way."""
    longest = max(len(ids) for ids, _ in examples)
    input_ids = torch.full((len(examples), longest), pad_id)
    mask, labels = torch.zeros_like(input_ids), torch.full_like(input_ids, IGNORED)
    for row, (ids, learned) in enumerate(examples):
        values, size = torch.from_numpy(ids.astype(np.int64)), len(ids)
        input_ids[row, :size], mask[row, :size] = values, 1
        labels[row, 1:size] = torch.where(torch.from_numpy(learned[1:].astype(bool)), values[1:], IGNORED)
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}
