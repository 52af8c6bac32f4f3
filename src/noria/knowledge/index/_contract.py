"""What every index promises, and how a filter costs next to nothing.

With each passage an index keeps the dense ordinal of its file. A filter is a boolean array over *files*, so that whether
a passage is allowed is one array look-up, whichever index asks. Indexes hold no truth: they can be rebuilt from the
database at any time, and say so when their files are damaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from noria.errors import InvalidRequest, Unavailable

__all__ = [
    "AllowedFiles",
    "Bools",
    "Floats",
    "Ints",
    "Ranking",
    "RebuildNeeded",
    "TextIndex",
    "VectorIndex",
    "unit_vectors",
]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


class RebuildNeeded(Unavailable):
    """An index's files are missing or torn. Build it again from the database; nothing is lost."""

    default_code = "index_rebuild_needed"


@dataclass(frozen=True, slots=True)
class AllowedFiles:
    """The files a search may look at: `mask[ordinal]`. Ordinals beyond the mask are not allowed.

    `share` is the part of the index's files that is allowed, where the caller knows it better than the mask does (ordinals
    may be scattered): indexes choose their way by it.
    """

    mask: Bools
    share: float | None = None

    @classmethod
    def only(cls, ordinals: Sequence[int]) -> AllowedFiles:
        mask = np.zeros(max(ordinals, default=-1) + 1, dtype=np.bool_)
        mask[list(ordinals)] = True
        return cls(mask)

    def allow(self, ordinals: npt.NDArray[np.integer]) -> Bools:
        """For each file ordinal, whether it is allowed."""
        if not self.mask.size:
            return np.zeros(ordinals.shape, dtype=np.bool_)
        if ordinals.size and int(ordinals.max()) >= self.mask.size:
            return (ordinals < self.mask.size) & self.mask[np.minimum(ordinals, self.mask.size - 1)]
        return self.mask[ordinals]

    def estimated_share(self) -> float:
        """The part of the files that is allowed, 0 to 1; exactly 0 when none is."""
        if not self.mask.any():
            return 0.0
        return float(np.mean(self.mask)) if self.share is None else max(self.share, 1e-9)

    def ordinals(self) -> Ints:
        return np.flatnonzero(self.mask).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Passage ids with their scores, best first."""

    ids: Ints
    scores: Floats

    @classmethod
    def empty(cls) -> Ranking:
        return cls(np.empty(0, np.int64), np.empty(0, np.float32))


class VectorIndex(Protocol):
    """Nearest passages by cosine. Every method blocks (call it from a worker thread); one writer, any number of readers."""

    def add(self, ids: Ints, files: Ints, vectors: Floats) -> None:
        """Add or replace passages by id; `files[n]` are their files' ordinals, `vectors[n, dimensions]` of any length."""
        ...

    def remove(self, ids: Ints) -> None:
        """At once: no search that begins later finds them. Unknown ids are ignored."""
        ...

    def ids(self, files: Ints | None = None) -> Ints:
        """The ids of the passages that it holds, of these files or of all, in no order."""
        ...

    def search(self, vector: Floats, k: int, allowed: AllowedFiles | None = None) -> Ranking:
        """The `k` nearest of the allowed passages, by cosine."""
        ...


class TextIndex(Protocol):
    """Passages by their words. The same rules as for VectorIndex; `add` and `remove` are durable when they return."""

    def add(self, ids: Ints, files: Ints, texts: Sequence[str]) -> None: ...

    def remove(self, ids: Ints) -> None: ...

    def ids(self, files: Ints | None = None) -> Ints: ...

    def search(self, query: str, k: int, allowed: AllowedFiles | None = None) -> Ranking:
        """The `k` best allowed passages that share a term with `query`, by BM25."""
        ...


def is_usable(vector: bytes, dimensions: int) -> bool:
    """Whether an index takes a stored vector (little-endian float32): of its length, not zero, finite."""
    if len(vector) != 4 * dimensions:
        return False
    length = float(np.linalg.norm(np.frombuffer(vector, dtype="<f4")))
    return 0 < length < np.inf


def unit_vectors(vectors: Floats, dimensions: int) -> Floats:
    """A contiguous float32 copy, each row of length 1. Raises InvalidRequest for a wrong shape, zero, NaN or infinity."""
    rows = np.array(vectors, dtype=np.float32, ndmin=2, order="C")
    if rows.ndim != 2 or rows.shape[1] != dimensions:
        raise InvalidRequest(
            f"The vectors have {rows.shape[-1]} dimensions, this index has {dimensions}.",
            hint="Was the embedding model changed? Then the store must be indexed again.",
        )
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths)) or not np.all(lengths > 0):
        raise InvalidRequest("A vector is zero or not finite.", hint="The embedding model gave no usable vector.")
    rows /= lengths
    return rows
