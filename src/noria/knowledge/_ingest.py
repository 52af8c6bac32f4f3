"""Ingestion: a file becomes live passages. Extract, split, embed what is new, switch over in one transaction.

A durable job per batch of files. Each file is a resumable piece: its passages are written under the next generation, in
batches, and become visible when the file's `generation` is switched; a crash before that leaves rows that the next attempt finds
and keeps (so nothing is embedded twice) or sweeps. A vector is looked up by the passage's hash before it is computed, so a
changed file costs only its changed passages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np
from opentelemetry import trace
from sqlalchemy import and_, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from noria.errors import (
    DatabaseUnavailable,
    InvalidRequest,
    NoriaError,
    NotFound,
    RateLimited,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from noria.jobs import JobContext
from noria.messages import estimate_tokens
from noria.store import Blobs, Database, File, StoredPassage, StoreFile, VectorStore

from ._document import Document
from ._extractor import ExtractorPool
from ._split import Chunking, CountTokens, Passage, split
from ._unused_blobs import release
from .index import is_usable

__all__ = ["Embedder", "Ingestor", "Vectors"]

_log = logging.getLogger("noria.knowledge")
_tracer = trace.get_tracer("noria.knowledge")

Vectors = np.ndarray[Any, np.dtype[np.float32]]
_BATCH = 64
_SQL_BATCH = 400
_ATTEMPTS = 6
_PASSING = (Unavailable, UpstreamError, UpstreamTimeout, RateLimited)


class Embedder(Protocol):
    """Texts to vectors by a model's name; token counts as that model counts."""

    @property
    def model(self) -> str: ...

    async def dimensions(self, model: str) -> int: ...

    async def embed(self, texts: list[str], *, model: str, kind: str) -> Vectors: ...

    async def count_tokens(self, model: str) -> CountTokens | None: ...


class Ingestor:
    """`on_switch` tells the indexes which files of a store have changed, after the database has committed."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        embedder: Embedder,
        extractors: ExtractorPool,
        on_switch: Callable[[str, Sequence[int]], Awaitable[None]],
    ) -> None:
        self._database, self._blobs, self._embedder = database, blobs, embedder
        self._extractors, self._on_switch = extractors, on_switch
        self._counters: dict[str, CountTokens] = {}
        self._reading: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def run(self, context: JobContext, arguments: Mapping[str, Any]) -> None:
        """The job: every file of `ordinals` that is still `in_progress`, one after the other."""
        ordinals: list[int] = list(arguments["ordinals"])
        try:
            await self._run(ordinals, context)
        except asyncio.CancelledError:
            if context.cancelled:
                await asyncio.shield(self._cancel(ordinals))
            raise

    async def _run(self, ordinals: Sequence[int], context: JobContext) -> None:
        failed = 0
        for number, ordinal in enumerate(ordinals):
            context.check()
            # A file that was put in twice has two jobs: together they would write its passages twice.
            lock = self._reading.setdefault(ordinal, asyncio.Lock())
            async with lock:
                async with self._database.read() as session:
                    row = await session.get(StoreFile, ordinal)
                    file = await session.get(File, row.file_id) if row is not None else None
                if row is not None and row.status == "completed":  # by an attempt that may have ended before it said so
                    await self._on_switch(row.store_id, [row.ordinal])
                if row is None or file is None or row.status != "in_progress":
                    continue
                await context.progress(number, len(ordinals), "files", file=file.filename, failed=failed)
                if not await self._ingest(row, file, context, number, len(ordinals)):
                    failed += 1
                    await context.progress(number, len(ordinals), "files", failed=failed)
        await context.progress(len(ordinals), len(ordinals), "files", file=None, failed=failed)

    async def _cancel(self, ordinals: Sequence[int]) -> None:
        """What the job did not get to is cancelled; what it had begun to write goes."""
        for start in range(0, len(ordinals), _SQL_BATCH):
            async with self._database.write() as session:
                query = select(StoreFile).where(StoreFile.ordinal.in_(ordinals[start : start + _SQL_BATCH]))
                for row in await session.scalars(query.where(StoreFile.status == "in_progress")):
                    row.status = "cancelled"
                    await _sweep(session, row)

    async def _ingest(self, row: StoreFile, file: File, context: JobContext, number: int, total: int) -> bool:
        with _tracer.start_as_current_span("ingest file", attributes={"noria.file": file.filename}) as span:
            try:
                passages = await self._patiently(row, file, context, number, total)
            except DatabaseUnavailable:  # the job is run again, and what the file has already is found
                raise
            except NoriaError as error:
                span.set_attribute("error.type", error.code or type(error).__name__)
                await self._fail(row, error)
                return False
            except Exception as error:  # one file must not stop the others
                span.set_attribute("error.type", type(error).__name__)
                if await self._is_gone(row):
                    return True
                _log.exception("Ingesting %s failed", file.filename)
                await self._fail(row, Unavailable(f"{file.filename}: {type(error).__name__} while it was read."))
                return False
            span.set_attribute("noria.passages", passages)
        return True

    async def _is_gone(self, row: StoreFile) -> bool:
        """Whether the file was taken out of its store, or the store deleted, while we worked on it."""
        async with self._database.read() as session:
            return await session.get(StoreFile, row.ordinal) is None

    async def _patiently(self, row: StoreFile, file: File, context: JobContext, number: int, total: int) -> int:
        """Tries again while the embedder is away (an engine restarts, a remote one is busy); what was embedded is kept."""
        for attempt in range(_ATTEMPTS):
            try:
                return await self._file(row, file, context, number, total)
            except DatabaseUnavailable:
                raise
            except _PASSING as error:
                if attempt == _ATTEMPTS - 1 or error.code in {"weights_missing", "missing_credential"}:
                    raise
                await asyncio.sleep(max(error.retry_after_s or 0, min(30, 2**attempt)))
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _fail(self, row: StoreFile, error: NoriaError) -> None:
        if isinstance(error, _PASSING):
            code = "server_error"
        else:
            code = "invalid_file" if error.code == "unreadable_file" else "unsupported_file"
        async with self._database.write() as session:
            live = await session.get(StoreFile, row.ordinal)
            if live is not None and live.status == "in_progress":
                live.status, live.error_message = "failed", str(error)
                live.error_code = code
                await _sweep(session, live)

    async def _file(self, row: StoreFile, file: File, context: JobContext, number: int, total: int) -> int:
        async with self._database.read() as session:
            store = await session.get(VectorStore, row.store_id)
        if store is None:
            raise NotFound(f"The vector store {row.store_id} is gone.")
        document = await self._extract(file)
        counter = await self._counter(store.embedding_model)
        chunking = Chunking.from_openai(row.chunking or None)
        with _tracer.start_as_current_span("split"):
            passages = await asyncio.to_thread(lambda: list(split(document, chunking, counter)))
        if not passages:
            raise InvalidRequest(f"{file.filename} holds no text.", code="unreadable_file")
        generation = row.generation + 1
        kept = await self._kept(row, generation, passages)
        todo = [position for position in range(len(passages)) if position not in kept]
        for start in range(0, len(todo), _BATCH):
            context.check()
            await self._write(
                store, row, generation, [(position, passages[position]) for position in todo[start : start + _BATCH]]
            )
            share = (len(kept) + min(start + _BATCH, len(todo))) / len(passages)
            await context.progress(number + share, total, "files", file=file.filename)
        try:
            async with self._blobs.references:  # until the row names the text, nobody may take it for unused
                text = await self._blobs.put(document.text.encode())
                await self._switch(row, generation, text.sha256)
                # The text before this one; or this one, where the file was taken away.
                await release(self._database, self._blobs, {row.text_sha256, text.sha256})
        finally:  # whatever failed, it may have been committed before
            await self._on_switch(row.store_id, [row.ordinal])
        return len(passages)

    async def _extract(self, file: File) -> Document:
        with _tracer.start_as_current_span("extract"):
            data = await self._blobs.get(file.sha256)
            return await self._extractors.extract(data, filename=file.filename)

    async def _counter(self, model: str) -> CountTokens:
        if model not in self._counters:
            self._counters[model] = await self._embedder.count_tokens(model) or estimate_tokens
        return self._counters[model]

    async def _kept(self, row: StoreFile, generation: int, passages: Sequence[Passage]) -> set[int]:
        """Positions that an interrupted attempt wrote already; what it wrote otherwise is swept."""
        query = select(StoredPassage.id, StoredPassage.position, StoredPassage.sha256).where(
            StoredPassage.file_ordinal == row.ordinal, StoredPassage.generation == generation
        )
        kept: set[int] = set()
        stale: list[int] = []
        async with self._database.write() as session:
            for identity, position, sha256 in await session.execute(query):
                same = position < len(passages) and passages[position].hash == sha256 and position not in kept
                (kept.add if same else stale.append)(position if same else identity)
            for start in range(0, len(stale), _SQL_BATCH):
                await session.execute(delete(StoredPassage).where(StoredPassage.id.in_(stale[start : start + _SQL_BATCH])))
        return kept

    async def _write(self, store: VectorStore, row: StoreFile, generation: int, batch: Sequence[tuple[int, Passage]]) -> None:
        vectors = await self._vectors(store, [passage for _, passage in batch])
        async with self._database.write() as session:
            session.add_all(
                StoredPassage(
                    store_id=store.id,
                    file_ordinal=row.ordinal,
                    generation=generation,
                    position=position,
                    sha256=passage.hash,
                    text=passage.text,
                    context=passage.context,
                    start=passage.start,
                    end=passage.end,
                    page=passage.page,
                    last_page=passage.last_page,
                    heading_path=list(passage.heading_path),
                    places=[[place.offset, place.page, list(place.heading_path)] for place in passage.places],
                    num_tokens=passage.num_tokens,
                    vector=vectors[passage.hash],
                )
                for position, passage in batch
            )

    async def _vectors(self, store: VectorStore, passages: Sequence[Passage]) -> dict[str, bytes]:
        """Vectors by passage hash: those that the store has, and fresh ones for the rest."""
        query = select(StoredPassage.sha256, StoredPassage.vector).where(
            StoredPassage.store_id == store.id, StoredPassage.sha256.in_({passage.hash for passage in passages})
        )
        async with self._database.read() as session:
            found = {row.sha256: row.vector for row in await session.execute(query) if is_usable(row.vector, store.dimensions)}
        missing = {passage.hash: passage.text_to_embed for passage in passages if passage.hash not in found}
        if missing:
            vectors = await self._embedder.embed(list(missing.values()), model=store.embedding_model, kind="passage")
            if vectors.shape[1] != store.dimensions:
                raise InvalidRequest(
                    f"{store.embedding_model} gave vectors of {vectors.shape[1]} dimensions, the store has {store.dimensions}.",
                    hint="The model behind the name has changed: make a new store.",
                )
            fresh = {sha256: vector.astype("<f4").tobytes() for sha256, vector in zip(missing, vectors, strict=True)}
            for sha256, vector in fresh.items():
                if not is_usable(vector, store.dimensions):
                    raise InvalidRequest(
                        f"{store.embedding_model} gave no usable vector (zero or not finite) for {missing[sha256][:60]!r}.",
                        hint="Search needs a vector of each passage: try another embedding model, or take the passage out.",
                    )
            found |= fresh
        return found

    async def _switch(self, row: StoreFile, generation: int, text_sha256: str) -> None:
        """Makes the new generation live and the old one gone, at once for every reader; neither where that is not wanted now."""
        of_file = StoredPassage.file_ordinal == row.ordinal
        async with self._database.write() as session:
            live = await session.get(StoreFile, row.ordinal)
            if live is None:  # taken out of the store meanwhile
                await session.execute(delete(StoredPassage).where(of_file))
                return
            if live.status != "in_progress" or live.chunking != row.chunking:  # cancelled, or put in otherwise
                await _sweep(session, live)
                return
            live.generation, live.status = generation, "completed"
            await _sweep(session, live)
            live.text_sha256 = text_sha256
            rows = await session.execute(select(StoredPassage.text, func.length(StoredPassage.vector)).where(of_file))
            sizes = [len(text.encode()) + length for text, length in rows]
            live.num_passages, live.usage_bytes = len(sizes), sum(sizes)


async def _sweep(session: AsyncSession, row: StoreFile) -> None:
    """Removes what was written for a file beyond its live generation."""
    unfinished = and_(StoredPassage.file_ordinal == row.ordinal, StoredPassage.generation != row.generation)
    await session.execute(delete(StoredPassage).where(unfinished))
