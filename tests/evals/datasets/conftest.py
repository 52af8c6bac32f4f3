"""Datasets on a database of their own: SQLite, and with the marker `postgres` PostgreSQL."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from noria.evals.datasets import Datasets
from noria.store import Blobs, Database
from noria.tracing import Tracing, TracingOptions, configure


@dataclass
class Bench:
    """What datasets need, without a server."""

    database: Database
    blobs: Blobs
    tracing: Tracing
    datasets: Datasets


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database to copy: migrating takes longer than most of these tests."""
    path = tmp_path_factory.mktemp("migrated") / "noria.db"

    async def make() -> None:
        await (await Database.open(f"sqlite:///{path}")).aclose()

    asyncio.run(make())
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def bench(request: pytest.FixtureRequest, tmp_path: Path, migrated: Path) -> AsyncIterator[Bench]:
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_database")
    else:
        shutil.copy(migrated, tmp_path / "noria.db")
        url = f"sqlite:///{tmp_path}/noria.db"
    database = await Database.open(url)
    tracing = configure(TracingOptions(url=f"sqlite:///{tmp_path}/traces.db"), set_global=False)
    blobs = Blobs(str(tmp_path / "blobs"))
    yield Bench(database, blobs, tracing, Datasets(database, blobs, tracing.store))
    tracing.close()
    await database.aclose()


def row(asked: str, answer: str | None = None, **more: Any) -> dict[str, Any]:
    """A row's content in short."""
    content: dict[str, Any] = {"messages": [{"role": "user", "content": asked}], **more}
    return content if answer is None else {**content, "expected": {"role": "assistant", "content": answer}}
