"""A real PostgreSQL with pgvector, started once for the tests that ask for it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pgvector_dsn() -> Iterator[str]:
    pgserver = pytest.importorskip("pgserver")
    # As root the server runs as a user of its own, which must be able to reach its folder: pytest's are its user's alone.
    with tempfile.TemporaryDirectory(prefix="noria-pgvector-") as folder:
        Path(folder).chmod(0o755)
        server = pgserver.get_server(Path(folder) / "data")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def database_with_vectors(pgvector_dsn: str) -> Iterator[str]:
    """The URL of an empty database there."""
    import psycopg

    name = f"t{os.urandom(6).hex()}"
    with psycopg.connect(pgvector_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    yield pgvector_dsn.replace("/postgres?", f"/{name}?")
    with psycopg.connect(pgvector_dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
