"""A trace store in a temporary folder, and the same on a real PostgreSQL for tests marked `postgres`."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from noria.tracing import Tracing, TracingOptions, WriterOptions, configure

PG_BIN = Path("/usr/lib/postgresql/15/bin")
Open = Callable[..., Tracing]


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of this session's own, on a Unix socket."""
    if not (PG_BIN / "initdb").exists():
        pytest.skip("PostgreSQL 15 is not installed")
    home = Path(subprocess.check_output(["mktemp", "-d", "/tmp/noria-pg-XXXXXX"], text=True).strip())
    as_postgres: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        owner = pwd.getpwnam("postgres")
        os.chown(home, owner.pw_uid, owner.pw_gid)
        as_postgres = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    data, quiet = home / "data", {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/tmp"}
    subprocess.run([*as_postgres, PG_BIN / "initdb", "-D", data, "-U", "noria", "-A", "trust"], **quiet)
    options = f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=off"
    control = [*as_postgres, PG_BIN / "pg_ctl", "-D", data, "-w"]
    subprocess.run([*control, "-l", home / "log", "-o", options, "start"], **quiet)
    try:
        yield f"postgresql://noria@/postgres?host={home}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty store's URL, on each database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'traces.db'}"
        return
    from sqlalchemy import create_engine, text

    server: str = request.getfixturevalue("postgres_url")
    admin = create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    name = f"t{os.urandom(6).hex()}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.replace("/postgres?", f"/{name}?")
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


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
