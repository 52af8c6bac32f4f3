"""Knowledge as the layers above see it: stores, files in and out, search; rows and indexes kept in step."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opentelemetry import trace
from sqlalchemy import delete, select

from noria.errors import InvalidRequest, NotFound
from noria.jobs import Jobs
from noria.store import Blobs, Database, File, FileBatch, Job, StoreFile, VectorStore
from noria.tracing import attach_payload, semconv

from ._extractor import ExtractorPool
from ._filters import parse_filter
from ._ingest import Embedder, Ingestor, Vectors
from ._kept_vectors import OpenVectors, embedded_vectors
from ._open_stores import OpenStores
from ._retrieval import FoundPassage, Retrieval
from ._search import Hit, RankingOptions
from ._stores import FileCounts, StoreView, VectorStores
from ._unused_blobs import collect, release

__all__ = ["Knowledge"]

_log = logging.getLogger("noria.knowledge")
_tracer = trace.get_tracer("noria.knowledge")
_JOB = "ingest"
_SWEEP_S = 60.0
_CALIBRATED_EMBEDDER = "multilingual-e5-small"


class Knowledge:
    """Use `async with Knowledge.opened(…)`, before the jobs start (it registers its kind of job)."""

    def __init__(
        self, database: Database, blobs: Blobs, jobs: Jobs, embedder: Embedder, extractors: ExtractorPool, indexes: OpenStores
    ) -> None:
        self._database, self._blobs, self._jobs, self._embedder, self._indexes = database, blobs, jobs, embedder, indexes
        self.stores = VectorStores(database)
        self.retrieval = Retrieval(database, embedder, indexes)
        ingestor = Ingestor(database, blobs, embedder, extractors, indexes.reconcile)
        jobs.register(_JOB, ingestor.run)

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls,
        database: Database,
        blobs: Blobs,
        jobs: Jobs,
        embedder: Embedder,
        indexes: Path,
        *,
        open_vectors: OpenVectors = embedded_vectors,
    ) -> AsyncGenerator[Knowledge, None]:
        async with ExtractorPool(size=1) as extractors:
            knowledge = cls(database, blobs, jobs, embedder, extractors, OpenStores(database, indexes, open_vectors))
            sweeper = asyncio.ensure_future(knowledge._sweep())
            try:
                yield knowledge
            finally:
                sweeper.cancel()
                await asyncio.gather(sweeper, return_exceptions=True)
                await knowledge._indexes.aclose()

    async def create(
        self,
        project_id: str,
        *,
        name: str,
        description: str | None = None,
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
    ) -> VectorStore:
        """A store for the default embedder, which stays the store's."""
        model = self._embedder.model
        values = {
            "name": name,
            "description": description,
            "meta": dict(metadata or {}),
            "embedding_model": model,
            "dimensions": await self._embedder.dimensions(model),
            "expires_after_days": expires_after_days,
        }
        return await self.stores.create(project_id, values)

    async def add_files(
        self, store: VectorStore, entries: Sequence[Mapping[str, Any]], *, batch: bool = False
    ) -> tuple[list[StoreFile], FileBatch | None]:
        """Attaches files and starts the job that ingests them."""
        _require_live(store)
        rows, made = await self.stores.attach(store, entries, batch=batch)
        # Those that are there already have their new attributes at once, whatever becomes of their passages.
        await self._indexes.reconcile(store.id, [row.ordinal for row in rows if row.generation])
        if rows:
            ordinals = {"ordinals": [row.ordinal for row in rows]}
            await self._jobs.start(_JOB, store.id, ordinals, project_id=store.project_id)
        return rows, made

    async def set_attributes(self, row: StoreFile, attributes: Mapping[str, Any]) -> StoreFile:
        changed = await self.stores.set_attributes(row, attributes)
        await self._indexes.reconcile(row.store_id, [row.ordinal])
        return changed

    async def remove_file(self, row: StoreFile) -> None:
        """Takes a file out of a store; its passages are gone for every search that starts after this."""
        try:
            async with self._blobs.references:
                await release(self._database, self._blobs, {await self.stores.detach(row)})
        finally:  # whatever failed, it may have been taken out before
            await self._indexes.reconcile(row.store_id, [row.ordinal])

    async def forget_unused(self, file_id: str) -> bool:
        """Deletes an uploaded file that no store has any more; whether it did."""
        async with self._blobs.references:
            async with self._database.write() as session:
                in_a_store = select(StoreFile.ordinal).where(StoreFile.file_id == file_id).exists()
                unused = delete(File).where(File.id == file_id, ~in_a_store).returning(File.sha256)
                sha256 = await session.scalar(unused)
            await release(self._database, self._blobs, {sha256})
        return sha256 is not None

    async def delete(self, store: VectorStore) -> None:
        async with contextlib.AsyncExitStack() as afterwards, self._blobs.references:
            async with self._database.read() as session:
                query = select(StoreFile.text_sha256).where(StoreFile.store_id == store.id).distinct()
                texts = set(await session.scalars(query))
            await self.stores.delete(store)
            afterwards.push_async_callback(self._indexes.drop, store.id)  # also where the texts cannot be released
            await release(self._database, self._blobs, texts)

    async def forget_file(self, file: File) -> None:
        """Deletes an uploaded file, from every store too; the blob goes when nothing else needs it."""
        async with self._database.read() as session:
            rows = list(await session.scalars(select(StoreFile).where(StoreFile.file_id == file.id)))
        for row in rows:
            await self.remove_file(row)
        async with self._blobs.references:
            async with self._database.write() as session:
                await session.execute(delete(File).where(File.id == file.id))
            await release(self._database, self._blobs, {file.sha256})

    async def resume(self) -> None:
        """Files that wait for a job that was never started (the server was killed in between) get one."""
        async with self._database.read() as session:
            running = select(Job.subject).where(Job.kind == _JOB, Job.status.in_(("queued", "running")))
            query = select(StoreFile).where(StoreFile.status == "in_progress", StoreFile.store_id.not_in(running))
            waiting = list(await session.scalars(query.order_by(StoreFile.ordinal)))
        for (store_id, project_id), rows in itertools.groupby(
            sorted(waiting, key=lambda row: row.store_id), key=lambda row: (row.store_id, row.project_id)
        ):
            await self._jobs.start(_JOB, store_id, {"ordinals": [row.ordinal for row in rows]}, project_id=project_id)

    async def file_text(self, row: StoreFile) -> str:
        """The canonical text of an ingested file; passages' spans point into it."""
        if row.text_sha256 is None:
            raise NotFound(f"The file {row.file_id} has not been read yet.", param="file_id", hint=f"Its status is {row.status}.")
        return (await self._blobs.get(row.text_sha256)).decode()

    async def check(
        self,
        project_id: str,
        store_ids: Sequence[str],
        filters: Mapping[str, Any] | None,
        ranking: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises NotFound or InvalidRequest as `search` would, without searching."""
        for store_id in store_ids:
            _require_live(await self.stores.get(project_id, store_id))
        RankingOptions.from_openai(ranking)
        if filters is not None:
            parse_filter(filters)

    async def search(
        self,
        project_id: str,
        store_ids: Sequence[str],
        queries: Sequence[str],
        *,
        k: int = 10,
        filters: Mapping[str, Any] | None = None,
        ranking: Mapping[str, Any] | None = None,
    ) -> list[Hit[FoundPassage]]:
        """The best passages over all stores and queries, best first, each once."""
        rows = [await self.stores.get(project_id, store_id) for store_id in store_ids]
        for row in rows:
            _require_live(row)
        with _tracer.start_as_current_span("retrieval") as span:
            span.set_attributes({semconv.OPERATION: semconv.RETRIEVAL, semconv.DATA_SOURCE_ID: ",".join(row.id for row in rows)})
            hits = await self.retrieval.search(rows, queries, k=k, filters=filters, ranking=ranking)
            content = [{"filename": hit.passage.filename, "score": hit.score, "text": hit.passage.text} for hit in hits]
            attach_payload(span, input={"queries": list(queries), "filters": filters}, output={"passages": content})
        await self.stores.touch([row.id for row in rows])
        return hits

    async def judges_by_vectors(self, project_id: str, store_id: str) -> bool:
        """Whether the store's embedder is the one whose cosines the relevance threshold was measured on."""
        return (await self.stores.get(project_id, store_id)).embedding_model == _CALIBRATED_EMBEDDER

    async def query_vector(self, project_id: str, store_id: str, query: str) -> Vectors:
        """The query as it is embedded for this store."""
        store = await self.stores.get(project_id, store_id)
        return await self.retrieval.embed_query(store.embedding_model, query)

    async def embed_passages(self, project_id: str, store_id: str, texts: list[str]) -> Vectors:
        """Texts embedded as this store's passages are."""
        store = await self.stores.get(project_id, store_id)
        return await self._embedder.embed(texts, model=store.embedding_model, kind="passage")

    async def _sweep(self) -> None:
        """Deletes expired files, and the files of expired stores, now and then; once, what deletions and crashes left."""
        leftovers = True
        while True:
            await asyncio.sleep(_SWEEP_S)
            try:
                await self._sweep_once(int(time.time()))
                if leftovers:
                    await self.collect()
                    leftovers = False
            except Exception:  # a full disk, a database that is away: the next time may do
                _log.exception("Expired files could not be removed")

    async def collect(self) -> None:
        """Deletes what no row names any more: indexes of stores that are gone, and old blobs."""
        await self._indexes.drop_unknown()
        await collect(self._database, self._blobs)

    async def _sweep_once(self, now: int) -> None:
        async with self._database.read() as session:
            expired = list(await session.scalars(select(File).where(File.expires_at < now).limit(100)))
            stores = await session.scalars(select(VectorStore).where(VectorStore.expires_after_days.is_not(None)))
            gone = [row for row in stores if row.last_active_at + (row.expires_after_days or 0) * 86400 < now]
        for file in expired:
            await self.forget_file(file)
        for store in gone:
            async with self._database.read() as session:
                rows = list(await session.scalars(select(StoreFile).where(StoreFile.store_id == store.id)))
            for row in rows:
                await self.remove_file(row)


def _require_live(store: VectorStore) -> None:
    """An expired store's files are gone, or about to be: it takes none and is not searched."""
    if StoreView(store, FileCounts(), 0).status == "expired":
        raise InvalidRequest(f"The vector store {store.id} has expired.", param="vector_store_id", code="vector_store_expired")
