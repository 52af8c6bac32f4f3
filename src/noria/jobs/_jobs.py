"""Jobs over DBOS: a workflow is a list of small steps, each done once, resumed after a crash where it stopped.

Two records of one job: DBOS's own database (`jobs.db`) knows which steps are done; the `job` table is what people see. A
job's function runs on the server's event loop (the workflow's thread waits for it), so it may use everything there.
Source: https://docs.dbos.dev/python/tutorials/workflow-tutorial
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import fcntl
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import CancelledError as FutureCancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode
from sqlalchemy import select

from noria.errors import ConfigurationError, Conflict, DatabaseUnavailable, NoriaError, NotFound, Unavailable
from noria.store import DEFAULT_PROJECT, Cursor, Database, Job, Page, new_id, page

from ._patience import patiently, waits_s

if TYPE_CHECKING:
    from dbos import DBOS

__all__ = ["JobContext", "JobView", "Jobs"]

_log = logging.getLogger("noria.jobs")
_tracer = trace.get_tracer("noria.jobs")
_ENDED = {"completed", "failed", "cancelled"}
_LONG_S = 300.0  # a run as long as that has come further: what follows is another outage
_MOST_REFUSALS = 20
JobView = Job
Work = Callable[["JobContext", Mapping[str, Any]], Awaitable[None]]


@dataclass(slots=True)
class JobContext:
    """What a job's function gets: its id, a way to say how far it is, and whether it has been asked to stop."""

    id: str
    project_id: str
    _jobs: Jobs
    stopped: bool = False
    """Set when the job is cancelled or the server ends; stays set, for threads that outlive the job's task."""
    _last: float = field(default=0.0)
    untold: dict[str, Any] = field(default_factory=dict[str, Any])
    """What of the progress the database has not been told of yet."""

    async def progress(self, done: float, total: float | None = None, unit: str = "", **detail: Any) -> None:
        """Shows progress, at most some five times a second except when done.

        Never fails for a database that is away: it is told next time, at the latest of the job's end.
        """
        now = time.monotonic()
        if now - self._last < 0.2 and (total is None or done < total):
            return
        self._last = now
        told = {"done": done, "total": total, "unit": unit, "detail": {**self.untold.get("detail", {}), **detail}}
        self.untold = told
        try:
            await self._jobs.update(self.id, **told)
        except DatabaseUnavailable as error:
            _log.info("The progress of the job %s is not noted: %s", self.id, error)
        else:
            if self.untold is told:
                self.untold = {}

    @property
    def cancelled(self) -> bool:
        return self.id in self._jobs.cancelled

    def check(self) -> None:
        """Raises asyncio.CancelledError when the job is to stop; call it between small pieces of work, from any thread."""
        if self.stopped or self.cancelled:
            raise asyncio.CancelledError


class Jobs:
    """Registers kinds of work, starts them, resumes them after a crash. One process per home, held by a lock."""

    def __init__(self, database: Database, home: Path) -> None:
        self._database, self._home = database, home
        self._kinds: dict[str, Work] = {}
        self._running: dict[str, tuple[asyncio.Task[None], JobContext]] = {}
        self._workflows: set[str] = set()
        self.cancelled: set[str] = set()
        self._dbos: DBOS | None = None
        self._run: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock: int | None = None

    def register(self, kind: str, work: Work) -> None:
        """Names a kind of work; before `start`.

        The function must be idempotent: it may run again after a crash, and does where it raises DatabaseUnavailable. One that
        cleans up when it is cancelled calls `check` first of all: it may be cancelled while it waits to run again.
        """
        self._kinds[kind] = work

    @contextlib.asynccontextmanager
    async def started(self) -> AsyncGenerator[Jobs, None]:
        """Takes the home's lock, resumes unfinished jobs, and stops cleanly at the end (jobs go on at the next start)."""
        self._take_lock()
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._launch)
            await self._close_lost()
            yield self
        finally:
            for job_id in list(self._running):
                self._stop(job_id)
            if self._dbos is not None:
                await asyncio.to_thread(self._destroy)
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _take_lock(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._home / "noria.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise ConfigurationError(
                f"Another Noria is running on {self._home}.", hint="Stop it, or run a second one with --home DIR --port N."
            ) from None
        self._lock = descriptor

    def _launch(self) -> None:
        from dbos import DBOS, DBOSConfig, Serializer  # half a second to import

        class Json(Serializer):
            """DBOS pickles by default; JSON can be read by people and runs nothing."""

            def serialize(self, data: Any) -> str:
                return orjson.dumps(data, default=str).decode()

            def deserialize(self, serialized_data: str) -> Any:
                return orjson.loads(serialized_data)

            def name(self) -> str:
                return "noria_json"

        config: DBOSConfig = {
            "name": "noria",
            "system_database_url": f"sqlite:///{self._home / 'jobs.db'}",
            "application_version": "1",  # the default is a hash of the source: an upgrade would strand jobs
            "executor_id": "local",
            "enable_otlp": False,
            "log_level": "WARNING",
            "serializer": Json(),
            "notification_listener_polling_interval_sec": 0.1,  # nothing is asked; stopping waits for one round of it
        }
        self._dbos = DBOS(config=config)

        @DBOS.workflow(name="noria_job")
        def run(job_id: str, kind: str, project_id: str, arguments: dict[str, Any]) -> str:
            assert self._loop is not None
            self._workflows.add(job_id)
            work = asyncio.run_coroutine_threadsafe(self._work(job_id, kind, project_id, arguments), self._loop)
            try:
                return work.result()
            except FutureCancelledError:
                # Stopping the server: left pending, so that the next start resumes it.
                raise SystemExit from None
            finally:
                self._workflows.discard(job_id)

        self._run = run
        DBOS.launch()

    def _destroy(self) -> None:
        from dbos import DBOS

        # Its wait sleeps a whole second at least, though nothing runs.
        DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=2 if self._workflows else 0)

    async def start(self, kind: str, subject: str, arguments: Mapping[str, Any], *, project_id: str = DEFAULT_PROJECT) -> Job:
        """Starts a job about `subject` (an id or a name). `arguments` must be JSON."""
        assert kind in self._kinds, f"unregistered job kind {kind}"
        job = Job(id=new_id("job_"), project_id=project_id, kind=kind, subject=subject, status="queued", detail={})
        async with self._database.write() as session:
            session.add(job)
        try:
            await self._start_apart(job.id, kind, project_id, dict(arguments))
        except Exception as error:
            _log.exception("Job %s (%s) could not be started", job.id, kind)
            with contextlib.suppress(NoriaError):  # else the next start of the server closes it
                await self.update(job.id, status="failed", error="It could not be started.")
            hint = "The server's log says more; is the disk full?"
            raise Unavailable(f"The job {kind} could not be started.", hint=hint, retry_after_s=30) from error
        return job

    async def _start_apart(self, *given: Any) -> None:
        """Starts a workflow that is nobody's child, though a job may be starting it.

        The runner would note it as the starting job's n-th child, and give the same child back for the n-th start after a
        crash, whatever is started then. So its context does not go along; the trace's does.
        """
        here, apart = otel_context.get_current(), contextvars.Context()
        apart.run(otel_context.attach, here)
        await asyncio.get_running_loop().run_in_executor(None, lambda: apart.run(self._enqueue, *given))

    async def _close_lost(self) -> None:
        """Jobs that were noted but never reached the runner (a crash or a full disk in between) would look alive for ever."""
        async with self._database.read() as session:
            open_ids = list(await session.scalars(select(Job.id).where(Job.status.in_(("queued", "running")))))
        pending = await asyncio.to_thread(self._pending) if open_ids else set[str]()
        for job_id in open_ids:
            if job_id not in pending and job_id not in self._running:
                await self.update(job_id, status="failed", error="The server ended before it was started.")

    @staticmethod
    def _pending() -> set[str]:
        from dbos import DBOS

        found = DBOS.list_workflows(status=["PENDING", "ENQUEUED"], load_input=False, load_output=False)
        return {workflow.workflow_id for workflow in found}

    def _enqueue(self, job_id: str, kind: str, project_id: str, arguments: dict[str, Any]) -> None:
        from dbos import DBOS, SetWorkflowID

        with SetWorkflowID(job_id):
            DBOS.start_workflow(self._run, job_id, kind, project_id, arguments)

    async def _work(self, job_id: str, kind: str, project_id: str, arguments: dict[str, Any]) -> str:
        context = JobContext(job_id, project_id, self)
        what = f"The job {job_id} ({kind})"
        ended = (await patiently(lambda: self.get(job_id, project_id), what)).status
        if ended in _ENDED:  # the server was killed between the job's end and the runner's note of it
            return ended
        await patiently(lambda: self.update(job_id, status="running"), what)
        with _tracer.start_as_current_span(
            f"job {kind}", attributes={"noria.job.id": job_id, "noria.project": project_id}
        ) as span:
            task = asyncio.ensure_future(self._carry_out(kind, context, arguments))
            self._running[job_id] = task, context
            try:
                await task
            except asyncio.CancelledError:
                if job_id not in self.cancelled:
                    raise
                await self._end(context, "cancelled")
                return "cancelled"
            except NoriaError as error:
                span.set_status(Status(StatusCode.ERROR, str(error)))
                await self._end(context, "failed", str(error))
                return "failed"
            except Exception as error:
                _log.exception("Job %s (%s) failed", job_id, kind)
                span.set_status(Status(StatusCode.ERROR, str(error)))
                await self._end(context, "failed", f"{type(error).__name__}: {error}")
                return "failed"
            finally:
                self._running.pop(job_id, None)
                self.cancelled.discard(job_id)
        await self._end(context, "completed")
        return "completed"

    async def _carry_out(self, kind: str, context: JobContext, arguments: Mapping[str, Any]) -> None:
        """Runs a job again for as long as the database is away, as the next start of the server would.

        What the database refuses though it takes a small write (a statement that always takes too long, rows that fill its
        disk each time) is given up in the end.
        """
        refusals, waits, told = 0, waits_s(), False
        while True:
            begun = time.monotonic()
            try:
                return await self._kinds[kind](context, arguments)
            except DatabaseUnavailable as error:
                if context.stopped and not context.cancelled:  # the server ends, and waits for this
                    raise asyncio.CancelledError from error
                if time.monotonic() - begun > _LONG_S and error.code != "disk_full":  # which a long job may do itself
                    refusals, waits = 0, waits_s()
                failure, wait_s = error, next(waits)
            try:
                refusals += await self._says_why_it_waits(context, failure)
                if refusals == _MOST_REFUSALS:
                    raise failure
                _log.warning("The job %s (%s) is run again in %s s: %s", context.id, kind, wait_s, failure)
                await asyncio.sleep(wait_s)
            except asyncio.CancelledError:
                if told or not context.cancelled:
                    raise
                told = True  # run once more, it finds at its first look that it is cancelled, and cleans up

    async def _says_why_it_waits(self, context: JobContext, failure: DatabaseUnavailable) -> bool:
        """Whether the database takes so small a write; the next progress, or the job's end, takes it back."""
        try:
            await self.update(context.id, detail={"waiting": str(failure)})
        except DatabaseUnavailable:
            return False
        context.untold = {**context.untold, "detail": {**context.untold.get("detail", {}), "waiting": None}}
        return True

    async def _end(self, context: JobContext, status: str, error: str | None = None) -> None:
        """Notes how a job ended, however long the database is away: else it would look alive until the next start."""
        told = {**context.untold, "status": status, "error": error}
        await patiently(lambda: self.update(context.id, **told), f"The end of the job {context.id} ({status})")

    async def update(self, job_id: str, **values: Any) -> None:
        """Changes what people see of a job; None leaves a value."""
        async with self._database.write() as session:
            job = await session.get(Job, job_id)
            if job is None:
                return
            detail = values.pop("detail", None)
            for name, value in values.items():
                if value is not None:
                    setattr(job, name, value)
            if detail:
                job.detail = {**job.detail, **detail}
            job.updated_at = int(time.time())

    async def get(self, job_id: str, project_id: str = DEFAULT_PROJECT) -> Job:
        async with self._database.read() as session:
            job = await session.get(Job, job_id)
        if job is None or job.project_id != project_id:
            raise NotFound(f"No job {job_id!r}.", param="job_id")
        return job

    async def list(
        self, cursor: Cursor, *, project_id: str = DEFAULT_PROJECT, kind: str | None = None, status: str | None = None
    ) -> Page[Job]:
        query = select(Job).where(Job.project_id == project_id)
        if kind is not None:
            query = query.where(Job.kind == kind)
        if status is not None:
            query = query.where(Job.status == status)
        async with self._database.read() as session:
            return await page(session, query, Job.id, cursor)

    async def cancel(self, job_id: str, project_id: str = DEFAULT_PROJECT) -> Job:
        """Asks a job to stop. Raises Conflict when it has ended."""
        job = await self.get(job_id, project_id)
        if job.status in _ENDED:
            raise Conflict(f"The job {job_id} is {job.status} already.")
        self.cancelled.add(job_id)
        self._stop(job_id)
        return job

    def _stop(self, job_id: str) -> None:
        if (running := self._running.get(job_id)) is not None:
            task, context = running
            context.stopped = True
            task.cancel()

    async def wait(self, job_id: str, *, timeout_s: float | None = None, project_id: str = DEFAULT_PROJECT) -> Job:
        """Waits for the end of a job; for tests and the command line."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            job = await self.get(job_id, project_id)
            if job.status in _ENDED:
                return job
            if deadline is not None and time.monotonic() > deadline:
                raise Conflict(f"The job {job_id} is still {job.status} after {timeout_s} s.")
            await asyncio.sleep(0.1)
