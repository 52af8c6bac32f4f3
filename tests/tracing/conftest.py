"""A trace store in a temporary folder, and the same on a real PostgreSQL for tests marked `postgres`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from noria.tracing import Tracing, TracingOptions, WriterOptions, configure

Open = Callable[..., Tracing]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty store's URL, on each database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'traces.db'}"
        return
    yield request.getfixturevalue("postgres_database")


@pytest.fixture
def open_tracing(url: str) -> Iterator[Open]:
    """Opens trace systems on the store; closes them at the end."""
    opened: list[Tracing] = []

    def open_one(at: str | None = None, **writer: object) -> Tracing:
        options = TracingOptions(url=at or url, service="test", writer=WriterOptions(**writer))  # type: ignore[arg-type]
        opened.append(configure(options, set_global=False))
        return opened[-1]

    yield open_one
    for tracing in opened:
        tracing.close()


@pytest.fixture
def tracing(open_tracing: Open) -> Tracing:
    """A running trace system on an empty store."""
    return open_tracing()
