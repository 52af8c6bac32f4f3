"""Rows, pages and migrations, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, delete, select, text

import noria.store
from noria.errors import InvalidRequest, Unavailable
from noria.store import (
    DEFAULT_PROJECT,
    Base,
    Cursor,
    Database,
    DatasetVersion,
    File,
    Job,
    StoreFile,
    VectorStore,
    new_id,
    page,
    sync_url,
)


def file(name: str = "a.txt", identity: str | None = None) -> File:
    return File(id=identity or new_id("file-"), project_id=DEFAULT_PROJECT, filename=name, purpose="x", bytes=1, sha256="0" * 64)


# --- ids --------------------------------------------------------------------------------------------------------------


def test_ids_rise_and_never_repeat_over_threads() -> None:
    made: list[list[str]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda mine=mine: mine.extend(new_id("x-") for _ in range(5000))) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in made)
    assert len({identity for mine in made for identity in mine}) == 20_000
    assert {len(identity) for mine in made for identity in mine} == {len("x-") + 32}


def test_ids_rise_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [new_id("x-")]
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000)
    made += [new_id("x-") for _ in range(70_000)]
    assert made == sorted(made)


# --- pages ------------------------------------------------------------------------------------------------------------

IDS = [f"file-{number:02}" for number in range(12)]
KEYS = st.none() | st.sampled_from([*IDS, "file-03x", "file-", "zzz"])


def slowly(ids: list[str], cursor: Cursor) -> tuple[list[str], bool]:
    """What a page is: the whole list in order, cut between the cursors, from the side that the cursor names."""
    whole = sorted(ids, reverse=cursor.order == "desc")
    later = (lambda a, b: a < b) if cursor.order == "desc" else (lambda a, b: a > b)
    whole = [i for i in whole if cursor.after is None or later(i, cursor.after)]
    whole = [i for i in whole if cursor.before is None or later(cursor.before, i)]
    if cursor.before is not None and cursor.after is None:
        return whole[-cursor.limit :], len(whole) > cursor.limit
    return whole[: cursor.limit], len(whole) > cursor.limit


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    ids=st.sets(st.sampled_from(IDS)),
    limit=st.integers(1, 6),
    order=st.sampled_from(["asc", "desc"]),
    after=KEYS,
    before=KEYS,
)
def test_pages_are_as_the_definition_says(tmp_path_factory, ids, limit, order, after, before) -> None:  # type: ignore[no-untyped-def]
    cursor = Cursor(limit, order, after, before)

    async def ask() -> tuple[list[str], bool]:
        database = await _shared(tmp_path_factory)
        try:
            async with database.write() as session:
                await session.execute(delete(File))
                session.add_all([file(identity=identity) for identity in ids])
            async with database.read() as session:
                found = await page(session, select(File), File.id, cursor)
            return [row.id for row in found.data], found.has_more
        finally:
            await database.aclose()

    assert asyncio.run(ask()) == slowly(list(ids), cursor)


async def _shared(factory: pytest.TempPathFactory) -> Database:
    return await Database.open(f"sqlite:///{factory.getbasetemp() / 'pages.db'}")


async def test_a_walk_sees_each_row_once_while_rows_come_and_go(database: Database) -> None:
    stay = [new_id("file-") for _ in range(30)]
    async with database.write() as session:
        session.add_all([file(identity=identity) for identity in stay])
    seen: list[str] = []
    cursor = Cursor(7, "asc")
    while True:
        async with database.read() as session:
            found = await page(session, select(File), File.id, cursor)
        seen += [row.id for row in found.data]
        if not found.has_more:
            break
        cursor = Cursor(7, "asc", after=seen[-1])
        async with database.write() as session:
            session.add(file())
            await session.execute(delete(File).where(File.id == seen[0]))
    assert seen[:30] == stay
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("limit", [0, 10_001, -5])
def test_a_page_has_bounds(limit: int) -> None:
    with pytest.raises(InvalidRequest):
        Cursor(limit)


# --- sessions ---------------------------------------------------------------------------------------------------------


async def test_a_failed_block_writes_nothing(database: Database) -> None:
    async def fail() -> None:
        async with database.write() as session:
            session.add(file("lost.txt"))
            await session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.read() as session:
        assert (await session.scalars(select(File))).all() == []


async def test_many_writers_lose_no_update(database: Database) -> None:
    async with database.write() as session:
        session.add(Job(id="j", project_id=DEFAULT_PROJECT, kind="k", subject="s", status="running", detail={}))

    async def add() -> None:
        async with database.write() as session:
            row = await session.get_one(Job, "j", with_for_update=not database.is_sqlite)
            row.done += 1

    await asyncio.gather(*[add() for _ in range(40)])
    async with database.read() as session:
        assert (await session.get_one(Job, "j")).done == 40


@pytest.mark.postgres
async def test_a_nul_character_is_the_callers_fault(postgres_database: str) -> None:
    database = await Database.open(postgres_database)
    try:
        for row in (file("a\0b"), Job(id="j", project_id=DEFAULT_PROJECT, kind="k", subject="s", status="x", detail={"a": "\0"})):
            with pytest.raises(InvalidRequest, match="NUL"):
                async with database.write() as session:
                    session.add(row)
        with pytest.raises(InvalidRequest, match="NUL"):
            async with database.read() as session:
                await session.get(File, "a\0b")
    finally:
        await database.aclose()


async def test_a_cancelled_write_lets_go_of_the_file_at_once(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path}/noria.db")
    many = text("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 200000) SELECT x FROM n ORDER BY -x")
    begun = asyncio.Event()

    async def writing() -> None:
        async with database.write() as session:
            session.add(file())
            await session.flush()
            begun.set()
            await session.execute(many)  # sorting; cancelled, its first row is there and the others are not

    task = asyncio.create_task(writing())
    await begun.wait()
    await asyncio.sleep(0.02)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:  # handled while the traceback is alive, as a job does that says it was cancelled
        async with asyncio.timeout(10), database.write() as session:
            session.add(file(identity="file-later"))
    else:
        raise AssertionError("It was not cancelled.")
    async with database.read() as session:
        assert list(await session.scalars(select(File.id))) == ["file-later"]
    await database.aclose()


async def test_a_locked_file_is_busy_not_broken(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path / 'noria.db'}")

    async def write() -> None:
        async with database.write() as session:
            await (await session.connection()).exec_driver_sql("PRAGMA busy_timeout=50")
            session.add(file())

    with contextlib.closing(sqlite3.connect(tmp_path / "noria.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="busy"):
            await write()
        other.execute("ROLLBACK")
    await write()
    await database.aclose()


# --- migrations -------------------------------------------------------------------------------------------------------


async def test_migrations_make_what_the_models_say(database: Database) -> None:
    engine = create_engine(sync_url(database.url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_feedback_from_before_changes_were_noted_counts_as_unchanged(url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(noria.store.__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", sync_url(url).replace("%", "%%"))
    command.upgrade(config, "0003")
    engine = create_engine(sync_url(url))
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO project (id, name, created_at) VALUES ('{DEFAULT_PROJECT}', 'x', 1)"))
        connection.execute(
            text(
                "INSERT INTO feedback (id, project_id, target_kind, target_id, source, meta, created_at) "
                f"VALUES ('fb_1', '{DEFAULT_PROJECT}', 'trace', 't', 'api', '{{}}', 7)"
            )
        )
    command.upgrade(config, "head")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT updated_at FROM feedback")).scalar() == 7
    command.downgrade(config, "0003")
    engine.dispose()


def test_files_and_passages_stay_when_ordinals_come_to_be_used_once(url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(noria.store.__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", sync_url(url).replace("%", "%%"))
    command.upgrade(config, "0004")
    engine = create_engine(sync_url(url))
    p = DEFAULT_PROJECT
    with engine.begin() as connection:
        for statement in (
            f"INSERT INTO project (id, name, created_at) VALUES ('{p}', 'x', 1)",
            "INSERT INTO file (id, project_id, filename, purpose, bytes, sha256, created_at)"
            f" VALUES ('f', '{p}', 'f', 'u', 1, 's', 1)",
            "INSERT INTO vector_store (id, project_id, name, meta, embedding_model, dimensions, created_at, last_active_at,"
            f" version) VALUES ('vs', '{p}', 's', '{{}}', 'm', 2, 1, 1, 7)",
            "INSERT INTO store_file (ordinal, project_id, store_id, file_id, status, attributes, chunking, generation,"
            " usage_bytes, num_passages, changed_version, created_at)"
            f" VALUES (41, '{p}', 'vs', 'f', 'completed', '{{}}', '{{}}', 1, 1, 1, 7, 1)",
            'INSERT INTO passage (store_id, file_ordinal, generation, position, sha256, text, context, start, "end",'
            " heading_path, num_tokens, vector) VALUES ('vs', 41, 1, 0, 's', 't', '', 0, 1, '[]', 1, '')",
        ):
            connection.execute(text(statement))
    command.upgrade(config, "head")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT ordinal, file_id, status FROM store_file")).all() == [(41, "f", "completed")]
        assert connection.execute(text("SELECT file_ordinal, text FROM passage")).all() == [(41, "t")]
        if engine.dialect.name == "sqlite":
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
            assert connection.execute(text("SELECT seq FROM sqlite_sequence WHERE name = 'store_file'")).scalar() == 41
    command.downgrade(config, "0004")
    engine.dispose()


async def test_an_ordinal_is_never_used_again(database: Database) -> None:
    async with database.write() as session:
        session.add_all(
            [
                file(identity="file-1"),
                VectorStore(id="vs_1", project_id=DEFAULT_PROJECT, embedding_model="m", meta={}, dimensions=2),
            ]
        )
    seen: set[int] = set()
    for _ in range(3):
        row = StoreFile(project_id=DEFAULT_PROJECT, store_id="vs_1", file_id="file-1", attributes={}, chunking={})
        async with database.write() as session:
            session.add(row)
        assert row.ordinal not in seen
        seen.add(row.ordinal)
        async with database.write() as session:
            await session.execute(delete(StoreFile))


async def test_opening_again_keeps_everything(url: str) -> None:
    for round_number in range(3):
        database = await Database.open(url)
        async with database.write() as session:
            session.add(file(f"{round_number}.txt"))
        await database.aclose()
    database = await Database.open(url)
    async with database.read() as session:
        assert len((await session.scalars(select(File))).all()) == 3
    await database.aclose()


def test_two_processes_may_migrate_at_once(url: str) -> None:
    program = f"import asyncio; from noria.store import Database; asyncio.run(Database.open({url!r}))"
    started = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]


async def test_a_number_that_no_column_holds_is_the_callers(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path / 'noria.db'}")
    try:
        with pytest.raises(InvalidRequest, match="too large"):
            async with database.read() as session:
                await session.execute(select(DatasetVersion).where(DatasetVersion.number == 2**80))
    finally:
        await database.aclose()
