"""Search over vector stores: the indexes of each store, kept in step with the rows, and hits made of live rows only.

Indexes are opened when first searched and saved a little after the last change. A hit is a row that is live when it is read: what
an index still remembers of a deleted or changed file never comes out.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import and_, select
from sqlalchemy.orm import defer

from noria.errors import NoriaError
from noria.store import Database, File, StoredPassage, StoreFile, VectorStore

from ._filters import FileAttributes, parse_filter
from ._ingest import Embedder, Switched
from ._kept_vectors import KeptVectors, OpenVectors
from ._search import Hit, HybridSearch, Query, RankingOptions
from ._split import Place
from .index import PgVectorIndex, RebuildNeeded, TantivyTextIndex

__all__ = ["FoundPassage", "Retrieval", "as_result", "explanation"]

_SAVE_AFTER_S = 5.0
_READ_ROWS = 2000
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


@dataclass(frozen=True, slots=True)
class _NamedFile:
    file_id: str
    filename: str
    attributes: dict[str, Any]


class _Files:
    """The live files of a store by ordinal, and their attributes ready to be filtered."""

    def __init__(self) -> None:
        self.named: dict[int, _NamedFile] = {}
        self.attributes = FileAttributes()

    def set(self, ordinal: int, file: _NamedFile) -> None:
        self.named[ordinal] = file
        self.attributes.set(ordinal, file.attributes)

    def drop(self, ordinal: int) -> None:
        self.named.pop(ordinal, None)
        self.attributes.drop(ordinal)


@dataclass(slots=True)
class _Open:
    """One store's indexes. `lock` is held while they change or are saved; readers do not take it."""

    vectors: KeptVectors
    texts: TantivyTextIndex
    hybrid: HybridSearch
    version: int
    files: _Files = field(default_factory=_Files)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    saver: asyncio.Task[None] | None = None
    dirty: bool = False


class Retrieval:
    def __init__(self, database: Database, embedder: Embedder, folder: Path, open_vectors: OpenVectors) -> None:
        self._database, self._embedder, self._folder, self._open_vectors = database, embedder, folder, open_vectors
        self._open: dict[str, _Open] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._queries: dict[tuple[str, str], np.ndarray[Any, np.dtype[np.float32]]] = {}

    # --- searching ----------------------------------------------------------------------------------------------------

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
            opened = await self._opened(store)
            allowed = opened.files.attributes.allowed(wanted) if wanted is not None else None
            for text in queries:
                vector = await self.embed_query(store.embedding_model, text) if options.embedding_weight > 0 else None
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

    async def _fetch(self, store: VectorStore, opened: _Open, ids: Sequence[int]) -> dict[int, FoundPassage]:
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

    # --- keeping in step ----------------------------------------------------------------------------------------------

    async def changed(self, switched: Switched) -> None:
        """A file's passages have become live: the indexes are told, if they are open (else they catch up when opened)."""
        async with self._opening.setdefault(switched.store_id, asyncio.Lock()):
            opened = self._open.get(switched.store_id)
        if opened is None:
            return
        async with opened.lock:
            await asyncio.to_thread(_put, opened, switched.passages)
            await asyncio.to_thread(_drop, opened, switched.removed)
            await self._name_files(switched.store_id, opened, switched.file_ordinal)
            opened.version = max(opened.version, switched.version)
            self._save_soon(switched.store_id, opened)

    async def file_removed(self, store_id: str, ordinal: int, ids: Sequence[int]) -> None:
        """The file's rows are gone, so it is out of every search already; the indexes let go of it here."""
        opened = self._open.get(store_id)
        if opened is None:
            return
        opened.files.drop(ordinal)
        async with opened.lock:
            await asyncio.to_thread(_drop, opened, ids)
            self._save_soon(store_id, opened)

    async def attributes_changed(self, store_id: str, ordinal: int) -> None:
        if (opened := self._open.get(store_id)) is not None:
            await self._name_files(store_id, opened, ordinal)

    async def _name_files(self, store_id: str, opened: _Open, ordinal: int | None = None) -> None:
        """Reads names and attributes of one live file, or of all."""
        query = (
            select(StoreFile.ordinal, StoreFile.file_id, File.filename, StoreFile.attributes)
            .join(File, File.id == StoreFile.file_id)
            .where(StoreFile.store_id == store_id, StoreFile.generation > 0)
        )
        if ordinal is not None:
            query = query.where(StoreFile.ordinal == ordinal)
        async with self._database.read() as session:
            for number, file_id, filename, attributes in await session.execute(query):
                opened.files.set(number, _NamedFile(file_id, filename, attributes))

    async def dropped(self, store_id: str) -> None:
        """The store is gone: so are its indexes."""
        opened = self._open.pop(store_id, None)
        if opened is not None:
            if isinstance(opened.vectors, PgVectorIndex):
                await asyncio.to_thread(opened.vectors.drop)
            await self._close(store_id, opened, save=False)
        await asyncio.to_thread(shutil.rmtree, self._folder / store_id, ignore_errors=True)

    async def _opened(self, store: VectorStore) -> _Open:
        opened = self._open.get(store.id)
        if opened is None:
            async with self._opening.setdefault(store.id, asyncio.Lock()):
                opened = self._open.get(store.id)
                if opened is None:
                    opened = await self._load(store)
                    self._open[store.id] = opened
        return opened

    async def _load(self, store: VectorStore) -> _Open:
        folder = self._folder / store.id
        try:
            opened = await asyncio.to_thread(_open_indexes, store, folder, self._open_vectors)
        except RebuildNeeded:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            opened = await asyncio.to_thread(_open_indexes, store, folder, self._open_vectors)
        await self._name_files(store.id, opened)
        await self._catch_up(store.id, opened)
        return opened

    async def _catch_up(self, store_id: str, opened: _Open) -> None:
        """Adds what changed since the indexes were saved."""
        async with self._database.read() as session:
            row = await session.get(VectorStore, store_id)
            version = row.version if row is not None else 0
            changed = list(
                await session.scalars(
                    select(StoreFile.ordinal).where(StoreFile.store_id == store_id, StoreFile.changed_version > opened.version)
                )
            )
        for ordinal in changed:
            after = -1
            while True:
                query = (
                    select(StoredPassage)
                    .join(StoreFile, StoreFile.ordinal == StoredPassage.file_ordinal)
                    .where(
                        StoredPassage.file_ordinal == ordinal,
                        StoredPassage.generation == StoreFile.generation,
                        StoredPassage.position > after,
                    )
                    .order_by(StoredPassage.position)
                    .limit(_READ_ROWS)
                )
                async with self._database.read() as session:
                    rows = list(await session.scalars(query))
                if not rows:
                    break
                await asyncio.to_thread(_put, opened, rows)
                after = rows[-1].position
        opened.version = version
        if changed:
            self._save_soon(store_id, opened)

    def _save_soon(self, store_id: str, opened: _Open) -> None:
        opened.dirty = True
        if opened.saver is None or opened.saver.done():
            opened.saver = asyncio.ensure_future(self._save(store_id, opened))

    async def _save(self, store_id: str, opened: _Open) -> None:
        await asyncio.sleep(_SAVE_AFTER_S)
        async with opened.lock:
            with contextlib.suppress(NoriaError, OSError):  # a full disk: the rows are the truth, and we catch up later
                await asyncio.to_thread(opened.vectors.save, str(opened.version))
                opened.dirty = False

    async def _close(self, store_id: str, opened: _Open, *, save: bool) -> None:
        if opened.saver is not None:
            opened.saver.cancel()
            await asyncio.gather(opened.saver, return_exceptions=True)
        async with opened.lock:
            if save and opened.dirty:
                with contextlib.suppress(NoriaError, OSError):
                    await asyncio.to_thread(opened.vectors.save, str(opened.version))
            await asyncio.to_thread(opened.texts.close)
            await asyncio.to_thread(opened.vectors.close)

    async def aclose(self) -> None:
        for store_id, opened in self._open.items():
            await self._close(store_id, opened, save=True)
        self._open.clear()


def _open_indexes(store: VectorStore, folder: Path, open_vectors: OpenVectors) -> _Open:
    vectors = open_vectors(store, folder)
    try:
        texts = TantivyTextIndex(folder / "texts")
    except NoriaError:
        vectors.close()
        raise
    return _Open(vectors, texts, HybridSearch(vectors, texts), int(vectors.watermark or 0))


def _put(opened: _Open, rows: Sequence[StoredPassage]) -> None:
    if not rows:
        return
    ids = np.array([row.id for row in rows], dtype=np.int64)
    files = np.array([row.file_ordinal for row in rows], dtype=np.int64)
    opened.vectors.add(ids, files, np.stack([np.frombuffer(row.vector, dtype="<f4") for row in rows]))
    opened.texts.add(ids, files, [f"{row.context}\n{row.text}" if row.context else row.text for row in rows])


def _drop(opened: _Open, ids: Sequence[int]) -> None:
    if ids:
        gone = np.array(ids, dtype=np.int64)
        opened.vectors.remove(gone)
        opened.texts.remove(gone)
