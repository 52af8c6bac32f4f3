"""Fine-tuning jobs of one instance: created, looked at, paused, resumed, cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select

from noria.errors import Conflict, DatabaseUnavailable, InvalidRequest, NoriaError, NotFound, UnsupportedField
from noria.jobs import JobContext, Jobs, patiently
from noria.models import Hub
from noria.settings import Settings
from noria.store import (
    Blobs,
    Cursor,
    Database,
    File,
    Job,
    Page,
    TuningCheckpoint,
    TuningEvent,
    TuningJob,
    has_entries,
    new_id,
    page,
)

from ._job import Failed, Run, Workshop
from ._machine import require_extra
from ._outcome import Shop
from ._plan import adapter_shape
from ._records import ENDED, Records
from ._request import LORA_TARGETS, TuningRequest

__all__ = ["Tuning"]

KIND = "fine_tuning"


class Tuning:
    """Make it before `jobs` start: it registers how its jobs are run."""

    def __init__(self, database: Database, blobs: Blobs, jobs: Jobs, hub: Hub, settings: Settings) -> None:
        self._database, self._jobs, self._settings = database, jobs, settings
        self._shop = Shop(hub, settings.home)
        slots = asyncio.Semaphore(settings.train_concurrency)
        self._workshop = Workshop(database, blobs, self._shop, settings, slots)
        self._records: Records = self._workshop.records
        self._live: dict[str, Run] = {}
        jobs.register(KIND, self._work)

    async def create(self, project_id: str, request: TuningRequest) -> TuningJob:
        """Starts a job. What is wrong with the request is raised here; what is wrong with its files ends the job as failed."""
        self._check(request)
        if self._settings.train_command is None:
            require_extra()
        await self._check_file(project_id, request.training_file, "training_file")
        if request.validation_file is not None:
            await self._check_file(project_id, request.validation_file, "validation_file")
        base = await self._shop.base_of(request.model, project_id)
        if base.adapter is not None:
            await asyncio.to_thread(_check_further, request, base.adapter)
        options = request.options.model_dump(exclude_defaults=True)
        row = TuningJob(
            id=new_id("ftjob-"),
            project_id=project_id,
            model=request.model if base.adapter is not None else base.card.id,
            training_file=request.training_file,
            validation_file=request.validation_file,
            method=request.method.model_dump(exclude_none=True) | ({"noria": options} if options else {}),
            resolved={},
            seed=request.seed if request.seed is not None else secrets.randbelow(2**31),
            suffix=request.suffix,
            status="validating_files",
            result_files=[],
            meta=dict(request.metadata or {}),
            created_at=int(time.time()),
        )
        async with self._database.write() as session:
            session.add(row)
        await self._records.say(row.id, f"Created fine-tuning job: {row.id}")
        try:
            job = await self._jobs.start(KIND, row.id, {"tuning_job_id": row.id}, project_id=project_id)
        except NoriaError as error:
            await self._end(row.id, "failed", {"code": error.code, "message": str(error), "param": None})
            raise
        return await self._records.update(row.id, job_id=job.id)

    async def take_up(self) -> None:
        """Gives open jobs whose piece of durable work was lost (a crash between the two) a new one. After the jobs started."""
        query = select(TuningJob, Job.status).outerjoin(Job, Job.id == TuningJob.job_id).where(TuningJob.status.not_in(ENDED))
        async with self._database.read() as session:
            found = (await session.execute(query)).all()
        for row, state in found:
            if row.id not in self._live and state not in {"queued", "running"}:
                job = await self._jobs.start(KIND, row.id, {"tuning_job_id": row.id}, project_id=row.project_id)
                await self._records.update(row.id, job_id=job.id)

    @staticmethod
    def _check(request: TuningRequest) -> None:
        if request.method.type == "reinforcement":
            raise UnsupportedField(
                "method.type = reinforcement is not built yet.", param="method.type", hint="Use supervised or dpo."
            )
        options, asked = request.options, request.method.hyperparameters
        if options.early_stopping_patience is not None and request.validation_file is None:
            raise InvalidRequest("noria.early_stopping_patience needs a validation_file.", param="noria.early_stopping_patience")
        if options.eval_every != "auto" and request.validation_file is None:
            raise InvalidRequest("noria.eval_every needs a validation_file.", param="noria.eval_every")
        if options.learning_rate is not None and asked.learning_rate_multiplier != "auto":
            raise InvalidRequest(
                "noria.learning_rate and learning_rate_multiplier say the same thing: give one.", param="noria.learning_rate"
            )
        lora_only = {"lora_rank", "lora_alpha", "lora_dropout", "lora_targets"} & options.model_fields_set
        if options.kind == "full" and lora_only:
            name = sorted(lora_only)[0]
            raise InvalidRequest(f"noria.{name} means nothing with noria.kind = full.", param=f"noria.{name}")
        if others := sorted(set(() if options.lora_targets == "auto" else options.lora_targets) - set(LORA_TARGETS)):
            raise InvalidRequest(
                f"noria.lora_targets: an adapter of {', '.join(others)} cannot be served.",
                param="noria.lora_targets",
                hint=f"Layers that can: {', '.join(LORA_TARGETS)}.",
            )
        if request.method.type == "dpo" and not options.packing and "packing" in options.model_fields_set:
            raise InvalidRequest("noria.packing is for supervised jobs; dpo never packs.", param="noria.packing")

    async def _check_file(self, project_id: str, file_id: str, param: str) -> None:
        async with self._database.read() as session:
            file = await session.get(File, file_id)
        if file is None or file.project_id != project_id:
            raise NotFound(f"No file {file_id!r}.", param=param, code="file_not_found")
        if file.purpose != "fine-tune":
            raise InvalidRequest(
                f"The file {file_id} was uploaded for {file.purpose!r}.",
                param=param,
                code="invalid_file_purpose",
                hint='Upload it with purpose "fine-tune".',
            )

    async def get(self, project_id: str, job_id: str) -> TuningJob:
        return await self._records.get(job_id, project_id)

    async def list(self, project_id: str, cursor: Cursor, metadata: Mapping[str, str] | None = None) -> Page[TuningJob]:
        """Newest first. `metadata`: only jobs with all of these entries."""
        query = select(TuningJob).where(TuningJob.project_id == project_id, *has_entries(TuningJob.meta, metadata))
        async with self._database.read() as session:
            return await page(session, query, TuningJob.id, cursor)

    async def events(self, project_id: str, job_id: str, cursor: Cursor) -> Page[TuningEvent]:
        await self.get(project_id, job_id)
        async with self._database.read() as session:
            return await page(session, select(TuningEvent).where(TuningEvent.tuning_job_id == job_id), TuningEvent.id, cursor)

    async def checkpoints(self, project_id: str, job_id: str, cursor: Cursor) -> Page[TuningCheckpoint]:
        await self.get(project_id, job_id)
        query = select(TuningCheckpoint).where(TuningCheckpoint.tuning_job_id == job_id)
        async with self._database.read() as session:
            return await page(session, query, TuningCheckpoint.id, cursor)

    async def cancel(self, project_id: str, job_id: str) -> TuningJob:
        """Ends a job for good. Raises Conflict when it has ended already."""
        row = await self._open(project_id, job_id, "cancelled")
        row = await self._end(job_id, "cancelled", None)
        if row.status != "cancelled":
            raise Conflict(f"The job {job_id} is {row.status} already.", param="fine_tuning_job_id")
        await self._records.say(job_id, "The job was cancelled")
        if row.job_id is not None:
            with contextlib.suppress(Conflict, NotFound):  # it has just ended by itself
                await self._jobs.cancel(row.job_id, project_id)
        return row

    async def pause(self, project_id: str, job_id: str) -> TuningJob:
        """Stops the training process, and frees its place, until `resume`."""
        row = await self._open(project_id, job_id, "paused")
        if row.status == "paused":
            raise Conflict(f"The job {job_id} is paused already.", param="fine_tuning_job_id")
        row = await self._records.update(job_id, unless=ENDED, status="paused", estimated_finish=None)
        if (run := self._live.get(job_id)) is not None:
            await run.pause()
        await self._records.say(job_id, "The job was paused")
        return row

    async def resume(self, project_id: str, job_id: str) -> TuningJob:
        row = await self._open(project_id, job_id, "resumed")
        if row.status != "paused":
            raise Conflict(f"The job {job_id} is {row.status}, not paused.", param="fine_tuning_job_id")
        row = await self._records.update(job_id, unless=ENDED, status="queued")
        await self._records.say(job_id, "The job was resumed")
        if (run := self._live.get(job_id)) is not None:
            run.gate.set()
        return row

    async def _open(self, project_id: str, job_id: str, wanted: str) -> TuningJob:
        row = await self.get(project_id, job_id)
        if row.status in ENDED:
            raise Conflict(f"The job {job_id} is {row.status}; it cannot be {wanted}.", param="fine_tuning_job_id")
        return row

    async def _end(self, job_id: str, status: str, error: dict[str, Any] | None) -> TuningJob:
        return await self._records.update(
            job_id, unless=ENDED, status=status, error=error, finished_at=int(time.time()), estimated_finish=None
        )

    async def _work(self, context: JobContext, arguments: Mapping[str, Any]) -> None:
        job_id = str(arguments["tuning_job_id"])
        run = self._live[job_id] = Run(self._workshop, job_id, context)
        try:
            context.check()
            await run.go()
        except DatabaseUnavailable:  # the job is run again, and goes on where it was
            raise
        except Failed as failed:
            await self._fail(job_id, failed)
            raise NoriaError(failed.message, code=failed.code) from failed
        except NotFound as error:
            if await self._records.exists(job_id):
                gone = Failed(error.code or "training_failed", f"What the job needs was removed meanwhile: {error}", error.param)
                await self._fail(job_id, gone)
            raise
        except NoriaError as error:
            await self._fail(job_id, Failed(error.code or "training_failed", str(error), error.param))
            raise
        except asyncio.CancelledError:
            if context.cancelled:  # for good; else the server ends, and the job goes on at its next start
                await asyncio.shield(self._end(job_id, "cancelled", None))
                await asyncio.to_thread(_discard, self._workshop.folder(job_id))
            raise
        except Exception as error:
            await self._fail(job_id, Failed("training_failed", f"{type(error).__name__}: {error}"))
            raise
        finally:
            self._live.pop(job_id, None)

    async def _fail(self, job_id: str, failed: Failed) -> None:
        error = {"code": failed.code, "message": failed.message, "param": failed.param}
        row = await patiently(lambda: self._end(job_id, "failed", error), f"The end of the fine-tuning job {job_id}")
        if row.status == "failed":
            await self._records.say(job_id, f"The job failed: {failed.message}", "error")
        await asyncio.to_thread(_discard, self._workshop.folder(job_id), keep="log.txt")


def _check_further(request: TuningRequest, adapter: Path) -> None:
    """An adapter that is trained further keeps its own shape: another one is refused, not ignored."""
    options = request.options
    if options.kind == "full":
        raise InvalidRequest(
            f"{request.model!r} is an adapter: its weights cannot be trained as a whole.",
            param="noria.kind",
            hint="Merge it first (noria models merge), or use kind = lora.",
        )
    own = adapter_shape(adapter) or {}
    for name in sorted(own.keys() & options.model_fields_set):
        asked, found = getattr(options, name), own[name]
        if asked != "auto" and (sorted(set(asked)) if name == "lora_targets" else asked) != found:
            raise InvalidRequest(
                f"noria.{name} is {asked!r}, but {request.model!r} keeps its own when it is trained further: {found!r}.",
                param=f"noria.{name}",
                hint="Leave it out, or train the base model.",
            )


def _discard(folder: Path, *, keep: str | None = None) -> None:
    """What a training that will not go on has left; its log may say why."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name == keep:
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    if keep is None and folder.is_dir():
        folder.rmdir()
