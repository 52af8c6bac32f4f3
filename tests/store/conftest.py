"""An opened database of each kind; PostgreSQL for tests that run with the marker `postgres`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from noria.store import Database


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'noria.db'}"
    return request.getfixturevalue("postgres_database")


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    opened = await Database.open(url)
    yield opened
    await opened.aclose()
