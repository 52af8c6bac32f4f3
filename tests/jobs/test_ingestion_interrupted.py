"""Ingestion on a database that goes away at any moment: the job is run again, and nothing fails, is lost or is there twice."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from noria.jobs import JobContext, Jobs
from noria.knowledge import ExtractorPool
from noria.knowledge._ingest import Ingestor
from noria.store import Blobs, Database, File, StoredPassage, StoreFile, VectorStore, explain_failure

FILES = 3


class Leaving:
    """A database that is away for one call, the `at`-th."""

    def __init__(self, database: Database, at: int) -> None:
        self._database, self._at, self.calls = database, at, 0

    def _refuse(self) -> None:
        self.calls += 1
        if self.calls == self._at:
            raise explain_failure(ConnectionRefusedError()) or AssertionError

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        self._refuse()
        async with self._database.read() as session:
            yield session

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        self._refuse()
        async with self._database.write() as session:
            yield session

    async def ping(self) -> None:
        await self._database.ping()


class Embedder:
    model = "e"

    async def dimensions(self, model: str) -> int:
        return 2

    async def embed(self, texts: list[str], *, model: str, kind: str) -> Any:
        return np.ones((len(texts), 2), np.float32)

    async def count_tokens(self, model: str) -> None:
        return None


async def fill(database: Database, blobs: Blobs) -> None:
    async with database.write() as session:
        session.add(VectorStore(id="vs", project_id="proj_default", embedding_model="e", dimensions=2, meta={}))
        await session.flush()
        for number in range(FILES):
            blob = await blobs.put(f"File {number}. Water lifts the wheel.".encode())
            facts = {"purpose": "assistants", "bytes": blob.size, "sha256": blob.sha256}
            session.add(File(id=f"f{number}", project_id="proj_default", filename=f"{number}.txt", **facts))
            await session.flush()
            session.add(
                StoreFile(
                    project_id="proj_default",
                    store_id="vs",
                    file_id=f"f{number}",
                    status="in_progress",
                    attributes={},
                    chunking={},
                )
            )


async def begin_anew(database: Database) -> list[int]:
    async with database.write() as session:
        await session.execute(delete(StoredPassage))
        await session.execute(update(StoreFile).values(status="in_progress", generation=0))
        return list(await session.scalars(select(StoreFile.ordinal).order_by(StoreFile.ordinal)))


async def test_a_database_that_goes_away_at_any_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noria.jobs._jobs.waits_s", lambda: iter([0.0, 0.0]))
    database, blobs = await Database.open(f"sqlite:///{tmp_path / 'noria.db'}"), Blobs(str(tmp_path / "blobs"))
    await fill(database, blobs)

    async def on_switch(*_: object) -> None:
        return

    at, away = 0, True
    async with ExtractorPool(size=1) as pool:
        while away:
            at += 1
            leaving: Any = Leaving(database, at)
            jobs = Jobs(leaving, tmp_path)
            jobs.register("ingest", Ingestor(leaving, blobs, Embedder(), pool, on_switch).run)
            arguments = {"ordinals": await begin_anew(database)}
            await jobs._carry_out("ingest", JobContext("job_none", "proj_default", jobs), arguments)
            away = leaving.calls >= at
            async with database.read() as session:
                assert [row.status for row in await session.scalars(select(StoreFile))] == ["completed"] * FILES, at
                texts = [row.text for row in await session.scalars(select(StoredPassage).order_by(StoredPassage.file_ordinal))]
            assert texts == [f"File {number}. Water lifts the wheel." for number in range(FILES)], at
    await database.aclose()
    assert at > 4 * FILES
