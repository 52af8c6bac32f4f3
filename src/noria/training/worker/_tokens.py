"""Examples as token ids, and files of them: flat arrays, so that a million rows cost no Python objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Example", "Ints", "Tokens"]

Ints = np.ndarray[Any, np.dtype[Any]]


class Example(tuple[list[int], list[int]]):
    """`(ids, learned)`: `learned[i]` is 1 where token i is to be learned."""

    __slots__ = ()

    @property
    def ids(self) -> list[int]:
        return self[0]

    @property
    def learned(self) -> list[int]:
        return self[1]


class Tokens:
    """Examples one behind the other; example i is `[offsets[i], offsets[i + 1])`."""

    def __init__(self, ids: Ints, learned: Ints, offsets: Ints) -> None:
        self.ids, self.learned, self.offsets = ids, learned, offsets

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Tokens:
        offsets = np.zeros(len(examples) + 1, np.int64)
        np.cumsum([len(example.ids) for example in examples], out=offsets[1:])
        ids = np.fromiter((token for example in examples for token in example.ids), np.int32, int(offsets[-1]))
        learned = np.fromiter((mark for example in examples for mark in example.learned), np.uint8, int(offsets[-1]))
        return cls(ids, learned, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> tuple[Ints, Ints]:
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.ids[start:end], self.learned[start:end]

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    def save(self, path: Path) -> None:
        with path.open("wb") as out:
            np.savez(out, ids=self.ids, learned=self.learned, offsets=self.offsets)

    @classmethod
    def load(cls, path: Path) -> Tokens:
        with np.load(path) as found:
            return cls(found["ids"], found["learned"], found["offsets"])
