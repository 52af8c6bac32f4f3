"""The slow, obvious vector index: every allowed row is compared. The reference that the others are held to."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from noria.knowledge.index._contract import AllowedFiles, Bools, Floats, Ints, Ranking, unit_vectors

__all__ = ["ExactVectorIndex", "best"]


@dataclass(frozen=True)
class _Rows:
    ids: Ints
    files: Ints
    vectors: Floats

    def where(self, mask: Bools) -> _Rows:
        return _Rows(self.ids[mask], self.files[mask], self.vectors[mask])

    def without(self, ids: Ints) -> _Rows:
        return self.where(~np.isin(self.ids, ids))


class ExactVectorIndex:
    """Keeps everything in memory and persists nothing. Good to some 10,000 passages (1.5 ms each search at 384 dimensions)."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        nothing = np.empty(0, np.int64)
        self._rows = _Rows(nothing, nothing, np.empty((0, dimensions), np.float32))
        self._writing = threading.Lock()

    def add(self, ids: Ints, files: Ints, vectors: Floats) -> None:
        added = unit_vectors(vectors, self._dimensions)
        with self._writing:
            old = self._rows.without(ids)
            self._rows = _Rows(
                np.concatenate([old.ids, ids]),
                np.concatenate([old.files, files]),
                np.concatenate([old.vectors, added]),
            )

    def remove(self, ids: Ints) -> None:
        with self._writing:
            self._rows = self._rows.without(ids)

    def search(self, vector: Floats, k: int, allowed: AllowedFiles | None = None) -> Ranking:
        rows = self._rows
        query = unit_vectors(vector, self._dimensions)[0]
        if allowed is not None:
            rows = rows.where(allowed.allow(rows.files))
        return best(rows.ids, rows.vectors @ query, k)


def best(ids: Ints, scores: Floats, k: int) -> Ranking:
    """The `k` highest, best first; equal scores by id, so that a search is deterministic."""
    if scores.size > 4 * k:
        chosen = np.argpartition(-scores, k)[:k]
        ids, scores = ids[chosen], scores[chosen]
    order = np.lexsort((ids, -scores))[:k]
    return Ranking(ids[order], scores[order].astype(np.float32))
