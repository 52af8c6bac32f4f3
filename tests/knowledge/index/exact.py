"""The slow, obvious vector index: every allowed row is compared. The reference that the others are held to."""

from __future__ import annotations

import threading

import numpy as np

from noria.errors import InvalidRequest
from noria.knowledge.index import AllowedFiles, Floats, Ints, Ranking


class ExactVectorIndex:
    """A dictionary of rows."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._rows: dict[int, tuple[int, Floats]] = {}
        self._lock = threading.Lock()

    def add(self, ids: Ints, files: Ints, vectors: Floats) -> None:
        added = [self._unit(vector) for vector in vectors]
        with self._lock:
            self._rows |= {int(number): (int(file), row) for number, file, row in zip(ids, files, added, strict=True)}

    def remove(self, ids: Ints) -> None:
        with self._lock:
            for number in ids.tolist():
                self._rows.pop(number, None)

    def ids(self, files: Ints | None = None) -> Ints:
        with self._lock:
            return np.array([number for number, (file, _) in self._rows.items() if files is None or file in files], np.int64)

    def search(self, vector: Floats, k: int, allowed: AllowedFiles | None = None) -> Ranking:
        query = self._unit(vector)
        with self._lock:
            rows = list(self._rows.items())
        if not rows:
            return Ranking.empty()
        ids = np.array([number for number, _ in rows], np.int64)
        scores = np.stack([row for _, (_, row) in rows]) @ query
        if allowed is not None:
            passes = allowed.allow(np.array([file for _, (file, _) in rows], np.int64))
            ids, scores = ids[passes], scores[passes]
        order = np.lexsort((ids, -scores))[:k]
        return Ranking(ids[order], scores[order])

    def _unit(self, vector: Floats) -> Floats:
        length = np.linalg.norm(vector)
        if vector.shape != (self._dimensions,) or not np.isfinite(length) or length == 0:
            raise InvalidRequest("No usable vector.")
        return (vector / length).astype(np.float32)
