"""The one SQL database: SQLite in WAL mode by default, PostgreSQL by URL; migrated when opened.

`read()` and `write()` give short sessions. On SQLite writers queue on a lock here, before the file's own, so that
a burst waits instead of failing with "database is locked". Knows nothing about what the rows mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sqlite3
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import event, select
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from noria.errors import ConfigurationError, MissingExtra

from ._failures import explain_failure
from ._tables import DEFAULT_PROJECT, Project

__all__ = ["Database", "sync_url"]

_T = TypeVar("_T")
_CONNECT_S = 5.0
_STATEMENT_S = 60.0
_MIGRATIONS = Path(__file__).parent / "migrations"


def sync_url(url: str) -> str:
    """The URL for SQLAlchemy's synchronous engines (`sqlite`, `postgresql+psycopg`)."""
    parsed = make_url(url)
    driver = "postgresql+psycopg" if parsed.get_backend_name() == "postgresql" else "sqlite"
    return parsed.set(drivername=driver).render_as_string(hide_password=False)


def _async_url(url: str) -> str:
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise ConfigurationError(
            f"database_url names {backend!r}.", param="database_url", hint="Noria speaks sqlite:/// and postgresql://."
        )
    if backend == "postgresql":
        try:
            import asyncpg  # noqa: F401  # pyright: ignore[reportUnusedImport]
            import psycopg  # noqa: F401  # pyright: ignore[reportUnusedImport]
        except ImportError:
            raise MissingExtra("PostgreSQL", "postgres") from None
    driver = "postgresql+asyncpg" if backend == "postgresql" else "sqlite+aiosqlite"
    return parsed.set(drivername=driver).render_as_string(hide_password=False)


class Database:
    """Open with `await Database.open(url)`; close with `aclose()`."""

    def __init__(self, engine: AsyncEngine, url: str) -> None:
        self._engine = engine
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        self._writing = asyncio.Lock() if engine.dialect.name == "sqlite" else contextlib.nullcontext()
        self.url = url
        self.is_sqlite = engine.dialect.name == "sqlite"

    @classmethod
    async def open(cls, url: str) -> Database:
        """Migrates to the newest schema and makes sure that the default project exists."""
        await asyncio.to_thread(_migrate, url)
        options: dict[str, Any] = {"pool_size": 8, "max_overflow": 16}
        if url.startswith("sqlite"):
            # All kept: SQLite cannot give the descriptor of a closed connection back while another holds a lock.
            options = {"pool_size": 16, "max_overflow": 0, "connect_args": {"timeout": 30}}
        else:
            # A server that hangs must not hang its callers: connecting is bounded by `_connected`, the rest here.
            options |= {"pool_pre_ping": True, "pool_timeout": _CONNECT_S, "connect_args": {"command_timeout": _STATEMENT_S}}
        engine = create_async_engine(_async_url(url), **options)
        if engine.dialect.name == "sqlite":
            event.listen(engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(engine.sync_engine, "invalidate", _roll_back_first)
        database = cls(engine, url)
        with contextlib.suppress(IntegrityError):  # another server that starts at once was quicker
            async with database.write() as session:
                if await session.get(Project, DEFAULT_PROJECT) is None:
                    session.add(Project(id=DEFAULT_PROJECT, name="default"))
        return database

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncSession, None]:
        """A session that is rolled back at the end."""
        async with self._connected() as session:
            try:
                yield session
            except (DBAPIError, TimeoutError, OverflowError) as error:
                raise explain_failure(error) or error from error

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncSession, None]:
        """A session that is committed at the end, or rolled back whole when the block raises."""
        async with self._writing, self._connected() as session:
            try:
                yield session
                await session.commit()
            except (DBAPIError, TimeoutError, OverflowError) as error:
                raise explain_failure(error) or error from error

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncGenerator[AsyncSession, None]:
        """A session; on PostgreSQL one whose server has answered just now. Raises Unavailable."""
        try:
            async with self._sessions() as session:
                if not self.is_sqlite:
                    try:
                        async with asyncio.timeout(_CONNECT_S):
                            await session.connection()
                    except Exception as error:  # the driver's own, the system's, or that time is up
                        raise explain_failure(error) or error from error
                yield session
        except DBAPIError as error:  # the session's end rolls back, and may find nobody there any more
            raise explain_failure(error) or error from error

    async def run_sync(self, work: Callable[[Connection], _T]) -> _T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def ping(self) -> None:
        """Raises when the database does not answer."""
        async with self.read() as session:
            await session.execute(select(1))

    async def aclose(self) -> None:
        await self._engine.dispose()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor: sqlite3.Cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")  # survives a killed process; a power cut may cost the last commits
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.close()


def _roll_back_first(connection: Any, _record: Any, _error: BaseException | None) -> None:
    """Before a connection is thrown away because its task was cancelled in the middle of a statement.

    SQLite closes a connection only when its last statement is gone, and keeps its locks until then; the cancelled task's
    traceback holds the statement. So the task's own next write, to say that it was cancelled, would wait for itself.
    """
    with contextlib.suppress(Exception):  # it may be closed already
        connection.rollback()


def _migrate(url: str) -> None:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        if _is_current(parsed.database):
            return
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{parsed.database}.migrating").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two servers that start at once on an empty home
            if not _is_current(parsed.database):
                _upgrade(url)
    else:
        _async_url(url)
        _upgrade(url)


def _upgrade(url: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("sqlalchemy.url", sync_url(url).replace("%", "%%"))
    command.upgrade(config, "head")


def _is_current(path: str) -> bool:
    """Whether the file is at the newest revision, asked without importing Alembic (0.3 s of every start)."""
    newest = max(p.stem for p in (_MIGRATIONS / "versions").glob("[0-9]*.py")).split("_")[0]
    if not Path(path).exists():
        return False
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection, contextlib.suppress(sqlite3.Error):
        rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        return rows == [(newest,)]
    return False
