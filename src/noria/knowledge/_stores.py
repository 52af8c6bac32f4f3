"""Vector stores and their files as rows: create, list, change, delete, expire. OpenAI's nouns and rules.

The SQL database is the truth; indexes are told afterwards and rebuilt from it. Source:
https://platform.openai.com/docs/api-reference/vector-stores
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from noria.errors import InvalidRequest, NotFound
from noria.store import Cursor, Database, File, FileBatch, Page, StoredPassage, StoreFile, VectorStore, new_id, page

__all__ = ["FileCounts", "StoreView", "VectorStores"]

STATUSES = ("in_progress", "completed", "cancelled", "failed")


@dataclass(frozen=True, slots=True)
class FileCounts:
    in_progress: int = 0
    completed: int = 0
    cancelled: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        return self.in_progress + self.completed + self.cancelled + self.failed


@dataclass(frozen=True, slots=True)
class StoreView:
    """A vector store with what is counted over its files."""

    row: VectorStore
    counts: FileCounts
    usage_bytes: int

    @property
    def expires_at(self) -> int | None:
        days = self.row.expires_after_days
        return None if days is None else self.row.last_active_at + days * 86400

    @property
    def status(self) -> str:
        if self.expires_at is not None and self.expires_at < time.time():
            return "expired"
        return "in_progress" if self.counts.in_progress else "completed"


class VectorStores:
    """Rows only: what happens to passages and indexes is `Knowledge`'s."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, project_id: str, values: Mapping[str, Any]) -> VectorStore:
        """`values`: name, description, meta, embedding_model, dimensions, expires_after_days."""
        row = VectorStore(id=new_id("vs_"), project_id=project_id, **values)
        async with self._database.write() as session:
            session.add(row)
        return row

    async def get(self, project_id: str, store_id: str) -> VectorStore:
        """By id, or by name when exactly one store of the project has it. Raises NotFound, or InvalidRequest when several do."""
        async with self._database.read() as session:
            row = await session.get(VectorStore, store_id)
            if row is not None and row.project_id == project_id:
                return row
            named = await session.scalars(
                select(VectorStore).where(VectorStore.project_id == project_id, VectorStore.name == store_id).limit(2)
            )
            rows = list(named)
        if len(rows) == 1:
            return rows[0]
        if rows:
            raise InvalidRequest(
                f"Several vector stores are called {store_id!r}.", param="vector_store_id", hint="Use the id (vs_…)."
            )
        raise NotFound(f"No vector store {store_id!r}.", param="vector_store_id", hint="`noria stores list` shows them.")

    async def view(self, row: VectorStore) -> StoreView:
        return (await self._views([row]))[0]

    async def list(self, project_id: str, cursor: Cursor) -> Page[StoreView]:
        async with self._database.read() as session:
            found = await page(session, select(VectorStore).where(VectorStore.project_id == project_id), VectorStore.id, cursor)
        return Page(await self._views(found.data), found.has_more)

    async def _views(self, rows: Sequence[VectorStore]) -> list[StoreView]:
        query = (
            select(StoreFile.store_id, StoreFile.status, func.count(), func.sum(StoreFile.usage_bytes))
            .where(StoreFile.store_id.in_([row.id for row in rows]))
            .group_by(StoreFile.store_id, StoreFile.status)
        )
        counts: dict[str, dict[str, int]] = {row.id: {} for row in rows}
        sizes = dict.fromkeys(counts, 0)
        async with self._database.read() as session:
            for store_id, status, count, size in await session.execute(query):
                counts[store_id][status] = count
                sizes[store_id] += int(size or 0)
        return [StoreView(row, FileCounts(**counts[row.id]), sizes[row.id]) for row in rows]

    async def update(self, row: VectorStore, values: Mapping[str, Any]) -> VectorStore:
        async with self._database.write() as session:
            live = await session.get_one(VectorStore, row.id)
            for name, value in values.items():
                setattr(live, name, value)
        return live

    async def touch(self, store_ids: Sequence[str]) -> None:
        """Notes use, from which expiry counts; at most once a minute."""
        now = int(time.time())
        async with self._database.read() as session:
            query = select(VectorStore.id).where(VectorStore.id.in_(store_ids), VectorStore.last_active_at < now - 60)
            stale = list(await session.scalars(query))
        if stale:
            async with self._database.write() as session:
                for row in await session.scalars(select(VectorStore).where(VectorStore.id.in_(stale))):
                    row.last_active_at = now

    async def delete(self, row: VectorStore) -> None:
        async with self._database.write() as session:
            await session.execute(delete(StoredPassage).where(StoredPassage.store_id == row.id))
            await session.execute(delete(StoreFile).where(StoreFile.store_id == row.id))
            await session.execute(delete(FileBatch).where(FileBatch.store_id == row.id))
            await session.execute(delete(VectorStore).where(VectorStore.id == row.id))

    # --- files --------------------------------------------------------------------------------------------------------

    async def attach(
        self, store: VectorStore, entries: Sequence[Mapping[str, Any]], *, batch: bool = False
    ) -> tuple[list[StoreFile], FileBatch | None]:
        """Puts files in, `in_progress`. Each entry: file_id, attributes, chunking. One that is there already starts over."""
        async with self._database.write() as session:
            await self._check_files(session, store.project_id, [str(entry["file_id"]) for entry in entries])
            made: FileBatch | None = None
            if batch:
                made = FileBatch(id=new_id("vsfb_"), project_id=store.project_id, store_id=store.id)
                session.add(made)
            rows: list[StoreFile] = []
            for entry in {str(entry["file_id"]): entry for entry in entries}.values():
                query = select(StoreFile).where(StoreFile.store_id == store.id, StoreFile.file_id == entry["file_id"])
                row = await session.scalar(query)
                if row is None:
                    row = StoreFile(
                        project_id=store.project_id, store_id=store.id, file_id=entry["file_id"], created_at=int(time.time())
                    )
                    session.add(row)
                row.status, row.error_code, row.error_message = "in_progress", None, None
                row.attributes, row.chunking = dict(entry.get("attributes") or {}), dict(entry.get("chunking") or {})
                row.batch_id = made.id if made else None
                rows.append(row)
            await session.flush()
        return rows, made

    @staticmethod
    async def _check_files(session: AsyncSession, project_id: str, file_ids: Sequence[str]) -> None:
        known: set[str] = set()
        for start in range(0, len(file_ids), 500):
            query = select(File.id).where(File.project_id == project_id, File.id.in_(file_ids[start : start + 500]))
            known |= set(await session.scalars(query))
        for file_id in file_ids:
            if file_id not in known:
                raise NotFound(f"No file {file_id!r}.", param="file_id", hint="Upload it first: POST /v1/files.")

    async def file(self, store: VectorStore, file_id: str) -> StoreFile:
        async with self._database.read() as session:
            row = await session.scalar(select(StoreFile).where(StoreFile.store_id == store.id, StoreFile.file_id == file_id))
        if row is None:
            raise NotFound(f"No file {file_id!r} in the vector store {store.id}.", param="file_id")
        return row

    async def files(
        self, store: VectorStore, cursor: Cursor, *, status: str | None = None, batch_id: str | None = None
    ) -> Page[tuple[StoreFile, File]]:
        """A page of the store's files, each with its uploaded file; the cursor is a file id."""
        query = select(StoreFile).where(StoreFile.store_id == store.id)
        if status is not None:
            query = query.where(StoreFile.status == status)
        if batch_id is not None:
            query = query.where(StoreFile.batch_id == batch_id)
        async with self._database.read() as session:
            found = await page(session, query, StoreFile.file_id, cursor)
            files = await session.scalars(select(File).where(File.id.in_([row.file_id for row in found.data])))
            by_id = {file.id: file for file in files}
        return Page([(row, by_id[row.file_id]) for row in found.data], found.has_more)

    async def set_attributes(self, row: StoreFile, attributes: Mapping[str, Any]) -> StoreFile:
        async with self._database.write() as session:
            live = await session.get_one(StoreFile, row.ordinal)
            live.attributes = dict(attributes)
        return live

    async def detach(self, row: StoreFile) -> str | None:
        """Takes a file out with its passages; returns the SHA-256 of its text, which it may be the last to name."""
        async with self._database.write() as session:
            await session.execute(delete(StoredPassage).where(StoredPassage.file_ordinal == row.ordinal))
            gone = delete(StoreFile).where(StoreFile.ordinal == row.ordinal).returning(StoreFile.text_sha256)
            return await session.scalar(gone)

    async def batch(self, store: VectorStore, batch_id: str) -> tuple[FileBatch, FileCounts]:
        async with self._database.read() as session:
            row = await session.get(FileBatch, batch_id)
            if row is None or row.store_id != store.id:
                raise NotFound(f"No file batch {batch_id!r} in the vector store {store.id}.", param="batch_id")
            query = select(StoreFile.status, func.count()).where(StoreFile.batch_id == batch_id).group_by(StoreFile.status)
            counts = {str(row[0]): int(row[1]) for row in await session.execute(query)}
        return row, FileCounts(**counts)

    async def cancel_batch(self, batch_id: str) -> None:
        async with self._database.write() as session:
            query = select(StoreFile).where(StoreFile.batch_id == batch_id, StoreFile.status == "in_progress")
            for row in await session.scalars(query):
                row.status = "cancelled"
