"""Vector stores on a database of their own, whose files are put in row by row, and an embedder that counts words."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from noria.knowledge import CountTokens, embedded_vectors
from noria.knowledge._knowledge import Knowledge
from noria.knowledge._open_stores import OpenStores
from noria.store import DEFAULT_PROJECT, Blobs, Database, File, StoredPassage, StoreFile, VectorStore, new_id

DIMENSIONS = 64


class WordEmbedder:
    model = "words"

    async def dimensions(self, model: str) -> int:
        return DIMENSIONS

    async def embed(self, texts: list[str], *, model: str, kind: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.stack([vector_of(text) for text in texts])

    async def count_tokens(self, model: str) -> CountTokens | None:
        return None


class IdleJobs:
    """Takes jobs and does none of them."""

    def register(self, kind: str, work: Any) -> None:
        self.work = work

    async def start(self, *_: Any, **__: Any) -> None: ...


def vector_of(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    vector = np.full(DIMENSIONS, 0.01, np.float32)
    for word in text.lower().split():
        vector[zlib.crc32(word.encode()) % DIMENSIONS] += 1
    return vector


class Shelf:
    """A home: a database, blobs, and knowledge that may be closed and opened again (as a restart does)."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        self.blobs = Blobs(str(folder / "blobs"))
        self.jobs = IdleJobs()
        self.restart()

    def restart(self) -> None:
        self.indexes = OpenStores(self.database, self.folder / "indexes", embedded_vectors)
        self.knowledge = Knowledge(self.database, self.blobs, self.jobs, WordEmbedder(), None, self.indexes)  # type: ignore[arg-type]

    async def store(self, name: str = "s") -> VectorStore:
        return await self.knowledge.create(DEFAULT_PROJECT, name=name)

    async def upload(self) -> str:
        async with self.database.write() as session:
            file = File(
                id=new_id("file-"), project_id=DEFAULT_PROJECT, filename="f.txt", purpose="assistants", bytes=1, sha256=new_id("")
            )
            session.add(file)
        return file.id

    async def put(self, store: VectorStore, texts: Sequence[str], **attributes: Any) -> StoreFile:
        """A file that is completed with these passages; the indexes are told as ingestion tells them."""
        entry = {"file_id": await self.upload(), "attributes": attributes}
        (row,), _ = await self.knowledge.stores.attach(store, [entry])
        return await self.switch(row, texts)

    async def switch(self, row: StoreFile, texts: Sequence[str]) -> StoreFile:
        """The file's passages become these."""
        async with self.database.write() as session:
            live = await session.get_one(StoreFile, row.ordinal)
            live.generation, live.status = live.generation + 1, "completed"
            session.add_all(
                StoredPassage(
                    store_id=row.store_id, file_ordinal=row.ordinal, generation=live.generation, position=position,
                    sha256=f"{position}", text=text, context="", start=0, end=len(text), heading_path=[], places=[],
                    num_tokens=1, vector=vector_of(text).tobytes(),
                )
                for position, text in enumerate(texts)
            )  # fmt: skip
        await self.indexes.reconcile(row.store_id, [row.ordinal])
        return live

    async def found(self, store: VectorStore, query: str, *, k: int = 10, **attributes: Any) -> list[str]:
        wanted = [{"type": "eq", "key": key, "value": value} for key, value in attributes.items()]
        filters = {"type": "and", "filters": wanted} if wanted else None
        hits = await self.knowledge.search(DEFAULT_PROJECT, [store.id], [query], k=k, filters=filters)
        return [hit.passage.text for hit in hits]
