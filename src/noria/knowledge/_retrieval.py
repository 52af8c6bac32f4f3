"""Search over vector stores: what their indexes find, as hits made of live rows only.

A hit is a row that is live when it is read: what an index still remembers of a deleted or changed file never comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import and_, select
from sqlalchemy.orm import defer

from noria.store import Database, StoredPassage, StoreFile, VectorStore

from ._filters import parse_filter
from ._ingest import Embedder
from ._open_stores import OpenStore, OpenStores
from ._search import Hit, Query, RankingOptions
from ._split import Place

__all__ = ["FoundPassage", "Retrieval", "as_result", "explanation"]

_QUERY_CACHE = 256


@dataclass(frozen=True, slots=True)
class FoundPassage:
    """A live passage and where it stands: `text` is `[start, end)` of the file's canonical text."""

    passage_id: int
    store_id: str
    file_id: str
    filename: str
    text: str
    context: str
    start: int
    end: int
    page: int | None
    last_page: int | None
    heading_path: tuple[str, ...]
    attributes: dict[str, Any]
    places: tuple[Place, ...] = ()

    def place_of(self, offset: int) -> Place:
        """The page and the headings of the passage's character `offset`."""
        before = [place for place in self.places if place.offset <= offset]
        return before[-1] if before else Place(0, self.page, self.heading_path)


def as_result(hit: Hit[FoundPassage]) -> dict[str, Any]:
    """As OpenAI's `file_search_call.results` shows it."""
    passage = hit.passage
    return {
        "file_id": passage.file_id,
        "filename": passage.filename,
        "score": hit.score,
        "text": passage.text,
        "attributes": passage.attributes,
        "vector_store_id": passage.store_id,
    }


def explanation(hit: Hit[FoundPassage]) -> dict[str, Any]:
    """Where it stands in its file, and what each index said of it."""
    passage = hit.passage
    return {
        "passage_id": passage.passage_id,
        "start": passage.start,
        "end": passage.end,
        "page": passage.page,
        "last_page": passage.last_page,
        "heading_path": list(passage.heading_path),
        "context": passage.context,
        "dense": {"rank": hit.dense.rank, "score": hit.dense.score} if hit.dense else None,
        "text": {"rank": hit.text.rank, "score": hit.text.score} if hit.text else None,
        "matched_words": list(hit.matched_words),
    }


class Retrieval:
    def __init__(self, database: Database, embedder: Embedder, stores: OpenStores) -> None:
        self._database, self._embedder, self._stores = database, embedder, stores
        self._queries: dict[tuple[str, str], np.ndarray[Any, np.dtype[np.float32]]] = {}

    async def search(
        self,
        stores: Sequence[VectorStore],
        queries: Sequence[str],
        *,
        k: int,
        filters: Mapping[str, Any] | None,
        ranking: Mapping[str, Any] | None,
    ) -> list[Hit[FoundPassage]]:
        options = RankingOptions.from_openai(ranking)
        wanted = parse_filter(filters) if filters is not None else None
        best: dict[tuple[str, int], Hit[FoundPassage]] = {}
        for store in stores:
            vectors = {
                text: await self.embed_query(store.embedding_model, text) if options.embedding_weight > 0 else None
                for text in queries
            }
            async with self._stores.use(store.id) as opened:
                allowed = opened.files.attributes.allowed(wanted) if wanted is not None else None
                for text, vector in vectors.items():
                    query = Query(text, vector, k, allowed, options)
                    for hit in await opened.hybrid.search(query, lambda ids, at=opened, of=store: self._fetch(of, at, ids)):
                        key = (store.id, hit.id)
                        if key not in best or best[key].score < hit.score:
                            best[key] = hit
        return sorted(best.values(), key=lambda hit: -hit.score)[:k]

    async def embed_query(self, model: str, query: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The query's vector; the last few are remembered, for people search the same thing again."""
        if (known := self._queries.get((model, query))) is not None:
            return known
        vector = (await self._embedder.embed([query], model=model, kind="query"))[0]
        if len(self._queries) >= _QUERY_CACHE:
            self._queries.pop(next(iter(self._queries)))
        self._queries[model, query] = vector
        return vector

    async def _fetch(self, store: VectorStore, opened: OpenStore, ids: Sequence[int]) -> dict[int, FoundPassage]:
        """Rows of passages by their index ids; whatever is not live any more is left out."""
        query = (
            select(StoredPassage)
            .join(
                StoreFile, and_(StoreFile.ordinal == StoredPassage.file_ordinal, StoreFile.generation == StoredPassage.generation)
            )
            .options(defer(StoredPassage.vector))
            .where(StoredPassage.id.in_(list(ids)), StoreFile.store_id == store.id)
        )
        async with self._database.read() as session:
            rows = list(await session.scalars(query))
        found: dict[int, FoundPassage] = {}
        for row in rows:
            file = opened.files.named.get(row.file_ordinal)
            if file is not None:
                found[row.id] = FoundPassage(
                    passage_id=row.id,
                    store_id=store.id,
                    file_id=file.file_id,
                    filename=file.filename,
                    text=row.text,
                    context=row.context,
                    start=row.start,
                    end=row.end,
                    page=row.page,
                    last_page=row.last_page,
                    heading_path=tuple(map(str, row.heading_path)),
                    places=tuple(Place(offset, page, tuple(path)) for offset, page, path in row.places),
                    attributes=file.attributes,
                )
        return found
