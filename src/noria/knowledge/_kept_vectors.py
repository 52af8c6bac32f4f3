"""Where a store's vectors are indexed: in files beside the server, or in PostgreSQL with pgvector."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from noria.store import VectorStore

from .index import FaissVectorIndex, PgVectorIndex, VectorIndex

__all__ = ["KeptVectors", "OpenVectors", "embedded_vectors", "pgvector_vectors"]


class KeptVectors(VectorIndex, Protocol):
    """A vector index that lasts, as of its last `save`."""

    def save(self) -> None: ...

    def close(self) -> None: ...


class OpenVectors(Protocol):
    """Opens a store's vectors; knows what of them lies elsewhere than in the store's folder. Every method blocks."""

    def __call__(self, store: VectorStore, folder: Path) -> KeptVectors: ...

    def elsewhere(self) -> list[str]:
        """Ids, in lower case, of the stores that have something there."""
        ...

    def drop(self, store_id: str) -> None:
        """Deletes what a store has there, which must not be open."""
        ...


class _Embedded:
    def __call__(self, store: VectorStore, folder: Path) -> KeptVectors:
        return FaissVectorIndex.open(folder / "vectors", store.dimensions)

    def elsewhere(self) -> list[str]:
        return []

    def drop(self, store_id: str) -> None:
        """All of it is in the folder."""


class _InPostgres:
    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def __call__(self, store: VectorStore, folder: Path) -> KeptVectors:
        return PgVectorIndex(self._dsn, name=store.id.lower(), dimensions=store.dimensions)

    def elsewhere(self) -> list[str]:
        return PgVectorIndex.names(self._dsn)

    def drop(self, store_id: str) -> None:
        PgVectorIndex.drop_named(self._dsn, store_id.lower())


embedded_vectors: OpenVectors = _Embedded()


def pgvector_vectors(dsn: str) -> OpenVectors:
    """Tables in this database, one a store; needs the `postgres` extra and the server's `vector` extension."""
    return _InPostgres(dsn)
