"""A fine-tuning job as durable work: files checked, trained in a process of its own, the result made a model.

Every stage finds what an earlier run of it left, so that the job goes on after the server or the training process was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from noria.errors import NoriaError, NotFound
from noria.jobs import JobContext
from noria.settings import Settings
from noria.store import Blobs, Database, File, TuningJob

from ._listener import Listener
from ._machine import this_machine
from ._outcome import Outcome, Shop
from ._plan import Attempts, DataFacts, Hyper, Plan, Report, adapter_shape
from ._process import Action, Launch, TrainingProcess
from ._records import ENDED, Records
from ._request import TuningRequest
from ._resolve import check_memory, resolve

__all__ = ["Failed", "Run", "Workshop", "request_of"]

MOST_FAILURES = 3
STOP_GRACE_S = 8.0
SHUTDOWN_GRACE_S = 4.0
LEAST_MICRO_TOKENS = 64
DONE, BAD_FILES, STOPPED, OUT_OF_MEMORY = 0, 2, 3, 4
"""Exit codes of the training process."""


class Failed(Exception):
    """The job cannot succeed: what OpenAI's `error` says."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


@dataclass(slots=True)
class Workshop:
    """What every job of an instance shares. `slots` lets as many train at once as the setting says."""

    database: Database
    blobs: Blobs
    shop: Shop
    settings: Settings
    slots: asyncio.Semaphore
    records: Records = field(init=False)

    def __post_init__(self) -> None:
        self.records = Records(self.database)

    @property
    def memory_mb(self) -> int:
        return self.settings.train_memory_mb or this_machine().memory_mb // 2

    @property
    def threads(self) -> int:
        return self.settings.train_threads or this_machine().threads

    def folder(self, tuning_id: str) -> Path:
        return self.settings.home / "training" / tuning_id


def request_of(row: TuningJob) -> TuningRequest:
    """What was asked, read back from the row."""
    method = {key: value for key, value in row.method.items() if key != "noria"}
    return TuningRequest.model_validate(
        {
            "model": row.model,
            "training_file": row.training_file,
            "validation_file": row.validation_file,
            "method": method,
            "seed": row.seed,
            "suffix": row.suffix,
            "options": row.method.get("noria") or {},
        }
    )


class Run:
    """One job at work. `gate` is closed while it is paused."""

    def __init__(self, workshop: Workshop, tuning_id: str, context: JobContext) -> None:
        self._shop, self._id, self._context = workshop, tuning_id, context
        self._records, self._folder = workshop.records, workshop.folder(tuning_id)
        self.gate = asyncio.Event()
        self._process: TrainingProcess | None = None
        self._listener = Listener(tuning_id, self._folder, workshop.records, context, self._checkpoint)

    @property
    def _outcome(self) -> Outcome:
        return Outcome(self._shop.database, self._shop.blobs, self._shop.shop, self._folder)

    async def _checkpoint(self, report: Report) -> None:
        plan = await asyncio.to_thread(Plan.read, self._folder)
        await self._outcome.checkpoint(await self._records.get(self._id), plan, report)

    async def go(self) -> None:
        """To one of the ends. Raises Failed where there is no model at the end."""
        row = await self._records.get(self._id)
        if row.status in ENDED:
            return
        if row.status != "paused":
            self.gate.set()
        try:
            await self._prepared(row)
            plan = await self._planned(row)
            while not self._listener.done:
                await self.gate.wait()
                async with self._shop.slots:
                    if self.gate.is_set():
                        await self._attempt(plan)
            await self._outcome.finish(row, plan, self._export)
        finally:
            if self._process is not None:
                await asyncio.shield(self._process.stop(SHUTDOWN_GRACE_S))

    async def pause(self) -> None:
        """Stops the training within seconds; `gate` opens again to go on, also before it has stopped."""
        self.gate.clear()
        await self._stop_if_paused()

    async def _stop_if_paused(self) -> None:
        # An export is short and keeps nothing to go on from: it is let end.
        if not self.gate.is_set() and self._process is not None and self._process.action != "export":
            await self._process.stop(STOP_GRACE_S)

    def _was_stopped(self, code: int) -> bool:
        """Whether a process ended because it was asked to, by us or by who stops the whole server: then it is run again. The gate
        cannot say that: it may be open again by now."""
        asked = self._process is not None and self._process.asked_to_stop
        return code == STOPPED or (asked and code not in {DONE, BAD_FILES})

    async def _prepared(self, row: TuningJob) -> None:
        """The files are here, checked and tokenised."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if DataFacts.read(self._folder) is not None:
            return
        request = request_of(row)
        await self.gate.wait()
        for role, file_id in (("training_file", row.training_file), ("validation_file", row.validation_file)):
            if file_id is not None:
                await self._records.say(self._id, f"Validating {role.replace('_', ' ')}: {file_id}")
                await self._fetch(role, file_id)
        base = await self._shop.shop.base_of(row.model, row.project_id)
        options = request.options
        Plan(
            job_id=self._id,
            method="dpo" if request.method.type == "dpo" else "supervised",
            kind=options.kind,
            base_model=base.card.id,
            model_folder=str(base.folder),
            seed=row.seed,
            threads=self._shop.threads,
            memory_mb=self._shop.memory_mb,
            start_adapter=str(base.adapter) if base.adapter else None,
            max_length=None if options.max_length == "auto" else options.max_length,
            forgetting_check=options.forgetting_check,
            max_minutes=options.max_minutes,
            validation=row.validation_file is not None,
        ).write(self._folder)
        while self._was_stopped(code := await self._run("prepare")):
            await self.gate.wait()
            self._listener.problems.clear()
        if self._listener.problems:
            param = self._listener.problems[0].split(",")[0].split(":")[0]
            raise Failed(f"invalid_{param}", " ".join(self._listener.problems[:3]), param)
        if code != DONE:
            raise self._why(code, "The files could not be prepared")
        await self._warn_about_data()
        await self._records.say(self._id, "Files validated, moving job to queued state")

    async def _fetch(self, role: str, file_id: str) -> None:
        async with self._shop.database.read() as session:
            file = await session.get(File, file_id)
        if file is None:
            raise Failed("file_not_found", f"The file {file_id} was deleted.", role)
        try:
            await asyncio.to_thread(self._copy, file.sha256, self._folder / f"{role}.jsonl")
        except FileNotFoundError:
            raise Failed("file_not_found", f"The content of the file {file_id} is gone.", role) from None

    def _copy(self, sha256: str, place: Path) -> None:
        scratch = place.with_suffix(".part")
        with scratch.open("wb") as out:
            for piece in self._shop.blobs.pieces(sha256):
                out.write(piece)
        scratch.replace(place)

    async def _warn_about_data(self) -> None:
        data = DataFacts.read(self._folder)
        assert data is not None
        train = data.training
        if train.duplicates:
            text = f"{train.duplicates:,} of {train.rows:,} training rows say the same as another row."
            await self._records.say(self._id, text, "warn")
        if train.distinct_answers == 1 and train.rows > 1:
            text = "All training rows have one and the same answer: the model can only learn to say always that."
            await self._records.say(self._id, text, "warn")

    async def _planned(self, row: TuningJob) -> Plan:
        """Resolves `auto`, once: a job that goes on keeps its numbers."""
        plan = Plan.read(self._folder)
        if plan.hyper is None:
            data = DataFacts.read(self._folder)
            assert data is not None
            request, machine = request_of(row), this_machine()
            try:
                check_memory(data.model, request.options.kind, machine, self._shop.memory_mb)
            except NoriaError as error:
                raise Failed(error.code or "not_enough_memory", str(error), error.param) from None
            hyper = await self._started_from(plan, resolve(request, data, machine, self._shop.memory_mb))
            plan = dataclasses.replace(plan, hyper=hyper)
            await asyncio.to_thread(plan.write, self._folder)
            resolved = dataclasses.asdict(hyper) | {"data": dataclasses.asdict(data), "kind": plan.kind}
            await self._records.update(self._id, unless=ENDED | {"paused"}, resolved=resolved, status="queued")
            await self._records.update(self._id, unless=ENDED, resolved=resolved)
        return plan

    @staticmethod
    async def _started_from(plan: Plan, hyper: Hyper) -> Hyper:
        """An adapter that is trained further keeps its own shape."""
        if plan.start_adapter is None:
            return hyper
        shape = await asyncio.to_thread(adapter_shape, Path(plan.start_adapter))
        if shape is None:
            raise Failed("model_unusable", "The adapter to train further has no files any more.", "model")
        return dataclasses.replace(hyper, **{**shape, "lora_targets": tuple(shape["lora_targets"])})

    async def _attempt(self, plan: Plan) -> None:
        """One try. Returns when it is done, was paused or may be tried again; raises Failed where that is pointless."""
        attempts = await asyncio.to_thread(Attempts.read, self._folder)
        assert plan.hyper is not None
        if attempts.micro_tokens is not None:
            hyper = dataclasses.replace(plan.hyper, micro_tokens=attempts.micro_tokens)
            plan = dataclasses.replace(plan, hyper=hyper)
        await asyncio.to_thread(plan.write, self._folder)
        await self._records.update(self._id, unless=ENDED | {"paused"}, status="running")
        process_code = await self._run("train")
        if self._listener.done or self._was_stopped(process_code):
            return
        assert plan.hyper is not None
        out_of_memory = process_code == OUT_OF_MEMORY or (self._process is not None and self._process.over_memory)
        killed = process_code < 0 or process_code in {75, 137}
        failure = self._why(process_code, "The training ended before it was done")
        attempts.failures += 1
        attempts.reasons.append(failure.message)
        if not (out_of_memory or killed) or attempts.failures >= MOST_FAILURES:
            raise failure
        text = f"{failure.message} Trying again from the last checkpoint ({attempts.failures} of {MOST_FAILURES - 1})."
        if out_of_memory:
            attempts.micro_tokens = plan.hyper.micro_tokens // 2
            if attempts.micro_tokens < LEAST_MICRO_TOKENS:
                raise failure
            text += f" {attempts.micro_tokens:,} tokens are computed at once, not {plan.hyper.micro_tokens:,}."
        await asyncio.to_thread(attempts.write, self._folder)
        await self._records.say(self._id, text, "warn")

    def _why(self, code: int, what: str) -> Failed:
        if (failure := self._listener.failure) is not None:
            return Failed(failure.get("code", "training_failed"), failure.get("message", ""))
        if self._process is not None and self._process.over_memory:
            return Failed("out_of_memory", f"The training needed more than {self._shop.memory_mb:,} MiB (train_memory_mb).")
        if code < 0 or code == 137:
            return Failed("training_killed", f"{what}: its process was killed (signal {-code if code < 0 else 9}).")
        words = self._process.last_words() if self._process else ""
        return Failed("training_failed", f"{what} (exit code {code}). {words}".strip())

    async def _export(self) -> None:
        """A fully trained model is made ready for the engine."""
        code = await self._run("export")
        if code != DONE:
            raise self._why(code, "The trained model could not be prepared for the engine")

    async def _run(self, action: Action) -> int:
        """Runs a part of the training process to its end, and tells what it reports."""
        self._listener.failure = None
        shop = self._shop
        launch = Launch(shop.settings.train_command, shop.threads, shop.memory_mb, shop.settings.cache / "compiled")
        self._process = await TrainingProcess.start(action, self._folder, launch)
        await self._stop_if_paused()  # who paused while it started found nothing to stop
        try:
            async with contextlib.aclosing(self._process.reports()) as reports:
                async for report in reports:
                    await self._listener.hear(report)
        finally:
            with contextlib.suppress(NotFound):
                await asyncio.shield(self._listener.flush())
        return await self._process.wait()
