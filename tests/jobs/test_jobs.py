"""Durable work in one process: ended, cancelled, failed, lost and resumed jobs. A crash is a real one in tests/stress."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from noria.errors import ConfigurationError, Conflict, DatabaseUnavailable, InvalidRequest, NotFound, Unavailable
from noria.jobs import JobContext, Jobs
from noria.store import Cursor, Database, Job


@asynccontextmanager
async def opened(home: Path, **kinds: Any) -> AsyncIterator[tuple[Jobs, Database]]:
    database = await Database.open(f"sqlite:///{home / 'noria.db'}")
    jobs = Jobs(database, home)
    for name, work in kinds.items():
        jobs.register(name, work)
    try:
        async with jobs.started():
            yield jobs, database
    finally:
        await database.aclose()


async def test_a_job_shows_its_progress_and_ends(tmp_path: Path) -> None:
    async def count(context: JobContext, arguments: Any) -> None:
        for number in range(arguments["upto"]):
            await context.progress(number + 1, arguments["upto"], "steps", last=number)

    async with opened(tmp_path, count=count) as (jobs, _):
        job = await jobs.start("count", "me", {"upto": 3})
        ended = await jobs.wait(job.id, timeout_s=10)
        assert (ended.status, ended.done, ended.total, ended.unit, ended.detail) == ("completed", 3, 3, "steps", {"last": 2})
        assert [row.id for row in (await jobs.list(Cursor(), kind="count", status="completed")).data] == [job.id]
        with pytest.raises(Conflict):
            await jobs.cancel(job.id)
        with pytest.raises(NotFound):
            await jobs.get(job.id, "proj_other")


@pytest.mark.parametrize(
    ("error", "said"),
    [(InvalidRequest("the file is odd"), "the file is odd"), (ZeroDivisionError("oh"), "ZeroDivisionError: oh")],
)
async def test_a_kind_that_fails_says_why_and_is_not_run_again(tmp_path: Path, error: Exception, said: str) -> None:
    runs = 0

    async def fail(_: JobContext, __: Any) -> None:
        nonlocal runs
        runs += 1
        raise error

    async with opened(tmp_path, fail=fail) as (jobs, _):
        ended = await jobs.wait((await jobs.start("fail", "x", {})).id, timeout_s=10)
        assert (ended.status, ended.error) == ("failed", said)
    async with opened(tmp_path, fail=fail):
        await asyncio.sleep(0.3)
    assert runs == 1


async def test_stopping_leaves_a_job_to_the_next_start(tmp_path: Path) -> None:
    runs = 0
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def wait(_: JobContext, __: Any) -> None:
        nonlocal runs
        runs += 1
        begun.set()
        await may_end.wait()

    async with opened(tmp_path, wait=wait) as (jobs, _):
        job = await jobs.start("wait", "x", {})
        await begun.wait()
    may_end.set()
    async with opened(tmp_path, wait=wait) as (jobs, _):
        assert (await jobs.wait(job.id, timeout_s=10)).status == "completed"
    assert runs == 2


async def test_what_a_resumed_job_starts_is_started(tmp_path: Path) -> None:
    """A job that has started one job before the server ended may start another one after."""
    begun, lives, done = asyncio.Event(), 0, list[str]()

    async def small(_: JobContext, arguments: Any) -> None:
        done.append(arguments["name"])

    async def large(_: JobContext, __: Any) -> None:
        nonlocal lives
        lives += 1
        job = await running[-1].start("small", "x", {"name": f"in life {lives}"})
        await running[-1].wait(job.id, timeout_s=10)
        if lives == 1:
            begun.set()
            await asyncio.Event().wait()

    running: list[Jobs] = []
    async with opened(tmp_path, small=small, large=large) as (jobs, _):
        running.append(jobs)
        job = await jobs.start("large", "x", {})
        await begun.wait()
    resuming = Jobs.started

    @asynccontextmanager
    async def noted(self: Jobs) -> AsyncIterator[Jobs]:
        running.append(self)
        async with resuming(self):
            yield self

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Jobs, "started", noted)
        async with opened(tmp_path, small=small, large=large) as (jobs, _):
            assert (await jobs.wait(job.id, timeout_s=20)).status == "completed"
    assert done == ["in life 1", "in life 2"]


@pytest.mark.parametrize("how", ["cancel", "stop"])
async def test_a_jobs_thread_is_told_to_stop(tmp_path: Path, how: str) -> None:
    """A thread outlives the task that waits for it: it must hear of the end all the same, or it goes on downloading."""
    begun, told = threading.Event(), threading.Event()

    async def work(context: JobContext, _: Any) -> None:
        def blocking() -> None:
            begun.set()
            for _ in range(1000):
                try:
                    context.check()
                except asyncio.CancelledError:
                    told.set()
                    return
                threading.Event().wait(0.01)

        await asyncio.to_thread(blocking)

    async with opened(tmp_path, work=work) as (jobs, _):
        job = await jobs.start("work", "x", {})
        await asyncio.to_thread(begun.wait, 5)
        if how == "cancel":
            await jobs.cancel(job.id)
            assert (await jobs.wait(job.id, timeout_s=10)).status == "cancelled"
            assert await asyncio.to_thread(told.wait, 2)
    assert await asyncio.to_thread(told.wait, 2)


async def test_a_job_that_never_reached_the_runner_does_not_look_alive_for_ever(tmp_path: Path) -> None:
    async def never(_: JobContext, __: Any) -> None:
        return

    async with opened(tmp_path, never=never) as (_, database), database.write() as session:
        session.add(Job(id="job_lost", project_id="proj_default", kind="never", subject="x", status="queued", detail={}))
    async with opened(tmp_path, never=never) as (jobs, _):
        assert (await jobs.get("job_lost")).status == "failed"


async def test_a_start_that_fails_is_told_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: JobContext, __: Any) -> None:
        return

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    async with opened(tmp_path, never=never) as (jobs, _):
        monkeypatch.setattr(jobs, "_enqueue", full)
        with pytest.raises(Exception, match="could not be started") as caught:
            await jobs.start("never", "x", {})
        assert getattr(caught.value, "status", None) == 503
        assert [job.status for job in (await jobs.list(Cursor())).data] == ["failed"]


async def test_an_end_that_cannot_be_noted_is_noted_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def quick(_: JobContext, __: Any) -> None:
        return

    async with opened(tmp_path, quick=quick) as (jobs, _):
        update, refused = jobs.update, 0

        async def busy(job_id: str, **values: Any) -> None:
            nonlocal refused
            if values.get("status") == "completed" and not refused:
                refused += 1
                raise DatabaseUnavailable("The database is busy.")
            await update(job_id, **values)

        monkeypatch.setattr(jobs, "update", busy)
        job = await jobs.start("quick", "x", {})
        assert (await jobs.wait(job.id, timeout_s=10)).status == "completed"
        assert refused == 1


async def test_progress_that_cannot_be_noted_is_noted_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def count(context: JobContext, _: Any) -> None:
        await context.progress(1, 2, "steps", first=1)
        await context.progress(2, 2, "steps", last=2)

    async with opened(tmp_path, count=count) as (jobs, _):
        update = jobs.update

        async def away(job_id: str, **values: Any) -> None:
            if "status" not in values:
                raise DatabaseUnavailable("The database does not answer.")
            await update(job_id, **values)

        monkeypatch.setattr(jobs, "update", away)
        ended = await jobs.wait((await jobs.start("count", "x", {})).id, timeout_s=10)
        assert (ended.status, ended.error) == ("completed", None)
        assert (ended.done, ended.total, ended.detail) == (2, 2, {"first": 1, "last": 2})


@pytest.mark.parametrize(
    ("error", "runs", "status"),
    [
        (DatabaseUnavailable("The database does not answer."), 2, "completed"),
        (Unavailable("The engine restarts."), 1, "failed"),
        (Unavailable("Somebody else's database.", code="database_unavailable"), 1, "failed"),
    ],
)
async def test_only_our_database_is_waited_for(tmp_path: Path, error: Exception, runs: int, status: str) -> None:
    errors = [error]
    begun = 0

    async def work(_: JobContext, __: Any) -> None:
        nonlocal begun
        begun += 1
        if errors:
            raise errors.pop()

    async with opened(tmp_path, work=work) as (jobs, _):
        assert (await jobs.wait((await jobs.start("work", "x", {})).id, timeout_s=10)).status == status
        assert begun == runs


async def test_what_the_database_always_refuses_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement that never ends in time looks like a database that hangs."""
    monkeypatch.setattr("noria.jobs._jobs.waits_s", lambda: itertools.repeat(0.001))

    async def work(_: JobContext, __: Any) -> None:
        raise DatabaseUnavailable("The database does not answer.")

    async with opened(tmp_path, work=work) as (jobs, _):
        ended = await jobs.wait((await jobs.start("work", "x", {})).id, timeout_s=10)
        assert (ended.status, ended.error) == ("failed", "The database does not answer.")


@pytest.mark.parametrize("code", ["disk_full", "database_busy"])
async def test_a_job_that_fills_the_disk_itself_says_so_and_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr("noria.jobs._jobs.waits_s", lambda: itertools.repeat(0.001))
    monkeypatch.setattr("noria.jobs._jobs._LONG_S", 0.0 if code == "disk_full" else 300.0)
    seen: list[Any] = []

    async def work(context: JobContext, _: Any) -> None:
        seen.append((await jobs.get(context.id)).detail.get("waiting"))
        raise DatabaseUnavailable("The disk of the database is full.", code=code)

    async with opened(tmp_path, work=work) as (jobs, _):
        ended = await jobs.wait((await jobs.start("work", "x", {})).id, timeout_s=20)
        assert (ended.status, ended.error) == ("failed", "The disk of the database is full.")
        assert ended.detail.get("waiting") is None
    assert seen == [None, *["The disk of the database is full."] * 19]


@pytest.mark.parametrize("how", ["cancel", "stop"])
async def test_a_job_that_waits_for_the_database_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr("noria.jobs._jobs.waits_s", lambda: itertools.repeat(60.0))
    waiting, cleaned = asyncio.Event(), asyncio.Event()

    async def work(context: JobContext, _: Any) -> None:
        try:
            context.check()
            waiting.set()
            raise DatabaseUnavailable("The database does not answer.")
        except asyncio.CancelledError:
            cleaned.set()
            raise

    begun = time.monotonic()
    async with opened(tmp_path, work=work) as (jobs, _):
        job = await jobs.start("work", "x", {})
        await asyncio.wait_for(waiting.wait(), 10)
        await asyncio.sleep(0.1)
        if how == "cancel":
            await jobs.cancel(job.id)
            assert (await jobs.wait(job.id, timeout_s=10)).status == "cancelled"
            assert cleaned.is_set()
    assert time.monotonic() - begun < 15
    if how == "stop":
        async with opened(tmp_path, work=lambda *_: asyncio.sleep(0)) as (jobs, _):
            assert (await jobs.wait(job.id, timeout_s=10)).status == "completed"


async def test_one_process_a_home(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(ConfigurationError, match="Another Noria"):
            async with opened(tmp_path):
                pass
