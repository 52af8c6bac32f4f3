"""Where a store's vectors are indexed: in files beside the server, or in PostgreSQL with pgvector.

Both remember up to which version of the store they know its passages (the watermark), so that one that was not told of the last
changes catches up from the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from noria.store import VectorStore

from .index import FaissVectorIndex, PgVectorIndex, VectorIndex

__all__ = ["KeptVectors", "OpenVectors", "embedded_vectors", "pgvector_vectors"]


class KeptVectors(VectorIndex, Protocol):
    """A vector index that lasts. `watermark` is what `save` was given last, None for a new one."""

    @property
    def watermark(self) -> str | None: ...

    def save(self, watermark: str = "") -> None: ...

    def close(self) -> None: ...


OpenVectors = Callable[[VectorStore, Path], KeptVectors]


def embedded_vectors(store: VectorStore, folder: Path) -> KeptVectors:
    return FaissVectorIndex.open(folder / "vectors", store.dimensions)


def pgvector_vectors(dsn: str) -> OpenVectors:
    """Tables in this database, one a store; needs the `postgres` extra and the server's `vector` extension."""

    def open_one(store: VectorStore, folder: Path) -> KeptVectors:
        return _InPostgres(dsn, store, folder / "pgvector-version")

    return open_one


class _InPostgres(PgVectorIndex):
    """Rows are durable when they are added; only the watermark is kept beside the server."""

    def __init__(self, dsn: str, store: VectorStore, note: Path) -> None:
        super().__init__(dsn, name=store.id.lower(), dimensions=store.dimensions)
        self._note = note
        self.watermark = note.read_text() if note.exists() else None

    def save(self, watermark: str = "") -> None:
        self._note.parent.mkdir(parents=True, exist_ok=True)
        part = self._note.with_suffix(".part")
        part.write_text(watermark)
        part.rename(self._note)
        self.watermark = watermark
