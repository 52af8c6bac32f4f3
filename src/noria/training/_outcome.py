"""What a training leaves: an adapter (or a whole model) that answers under its `ft:` name, and a file of its figures."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from noria.errors import InvalidRequest, NoriaError, Unavailable
from noria.models import Hub, ModelCard, tuned_card
from noria.store import Blobs, Database, File, TunedModel, TuningCheckpoint, TuningJob

from ._plan import ADAPTER, Plan, Report, read_json
from ._records import ENDED, Records, results_csv

__all__ = ["Base", "Outcome", "Shop", "model_name"]


@dataclass(frozen=True, slots=True)
class Base:
    """What a training starts from: the base's card and prepared folder, and the adapter to go on from, if any."""

    card: ModelCard
    folder: Path
    adapter: Path | None


class Shop:
    """Where base models come from and trained ones go: the hub, and the home's folders."""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.hub, self.home = hub, home

    async def base_of(self, name: str, project_id: str) -> Base:
        """Raises NotFound, InvalidRequest for what cannot be trained here, Unavailable where weights are missing."""
        card = (await self.hub.resolve(name, project_id)).card
        adapter = self.home / card.adapter if card.adapter is not None else None
        if card.base is not None:
            card = (await self.hub.resolve(card.base, project_id)).card
        if card.source != "engine" or card.engine != "openvino" or card.task != "chat":
            what = {"route": "a route", "provider": "a remote model"}.get(card.source, f"run by the engine {card.engine}")
            raise InvalidRequest(
                f"{name!r} cannot be fine-tuned here: it is {what}.",
                param="model",
                code="model_not_available",
                hint="Chat models of the engine openvino can; `noria models list` shows them.",
            )
        folder = self.home / card.folder if card.folder else self.hub.weights.find(card.weights or "")
        if folder is None:
            raise Unavailable(
                f"The weights of {card.id} are not on this machine yet.",
                code="weights_missing",
                hint=f"Run: noria models pull {card.id}",
            )
        return Base(card, folder, adapter)


def model_name(row: TuningJob, base_id: str) -> str:
    """`ft:<base>:noria:<suffix>:<id>`, as OpenAI names them."""
    return f"ft:{base_id}:noria:{row.suffix or ''}:{row.id[-8:]}"


class Outcome:
    """Each part may be done again after a crash, and does nothing twice."""

    def __init__(self, database: Database, blobs: Blobs, shop: Shop, folder: Path) -> None:
        self._database, self._blobs, self._shop, self._folder = database, blobs, shop, folder
        self._records = Records(database)

    async def checkpoint(self, row: TuningJob, plan: Plan, report: Report) -> None:
        """Makes a checkpoint a model of its own."""
        step = report.get("step", 0)
        name = f"{model_name(row, plan.base_model)}:ckpt-step-{step}"
        place = f"adapters/{row.id}-step-{step}"
        await self._register(row, plan, name, place, Path(report.get("folder", "")), {"step": step})
        async with self._database.write() as session:
            await session.merge(
                TuningCheckpoint(
                    id=f"ftckpt_{row.id.removeprefix('ftjob-')}{step:08d}",
                    tuning_job_id=row.id,
                    step=step,
                    metrics=report.get("metrics", {}),
                    model=name,
                    created_at=int(time.time()),
                )
            )

    async def finish(self, row: TuningJob, plan: Plan, export: Callable[[], Awaitable[None]]) -> None:
        """Registers the model, warms it, writes the result file, and ends the job."""
        done = read_json(self._folder / "done.json") or {}
        name = model_name(row, plan.base_model)
        summary: dict[str, Any] = done.get("data") or {}
        if plan.kind == "lora":
            await self._register(row, plan, name, f"adapters/{row.id}", self._folder / ADAPTER, summary)
        else:
            if not (self._folder / "prepared" / "noria-model.json").exists():
                await export()
            await self._register(row, plan, name, f"models/{row.id}", self._folder / "prepared", summary)
        if summary.get("stopped_early"):
            await self._records.say(row.id, f"Stopped early: {summary['stopped_early']}.")
        await self._records.say(row.id, f"New fine-tuned model created: {name}")
        try:
            await self._shop.hub.warm(name, row.project_id)
        except NoriaError as error:
            await self._records.say(row.id, f"The model is there, but could not be loaded yet: {error}", "warn")
        result_file = await self._result_file(row)
        await self._records.update(
            row.id,
            unless=ENDED,
            status="succeeded",
            fine_tuned_model=name,
            trained_tokens=int(summary.get("learned_tokens") or 0),
            result_files=[result_file],
            finished_at=int(time.time()),
            estimated_finish=None,
        )
        await self._records.say(row.id, "The job has successfully completed")
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _register(self, row: TuningJob, plan: Plan, name: str, place: str, made: Path, detail: dict[str, Any]) -> None:
        """Puts the files where they stay, then names them: no request ever sees half of one. Raises NotFound without the base."""
        base = (await self._shop.hub.resolve(plan.base_model, row.project_id)).card
        final = self._shop.home / place
        await asyncio.to_thread(_install, made, final)
        lora = plan.kind == "lora"
        title = f"{base.title or base.id}, {row.suffix or 'tuned'}"
        card = tuned_card(base, name, adapter=place, title=title) if lora else tuned_card(base, name, folder=place, title=title)
        hyper = plan.hyper
        facts = dict(detail)
        if hyper is not None:
            facts |= {"lora_rank": hyper.lora_rank, "lora_alpha": hyper.lora_alpha, "step": detail.get("step")}
        if row.model != plan.base_model:
            facts["parent"] = row.model
        sha256 = await asyncio.to_thread(_digest, final)
        async with self._database.write() as session:
            known = await session.get(TunedModel, (row.project_id, name))
            if known is None:
                session.add(
                    TunedModel(
                        project_id=row.project_id,
                        id=name,
                        base_model=plan.base_model,
                        kind=plan.kind,
                        tuning_job_id=row.id,
                        folder=place,
                        sha256=sha256,
                        detail=facts,
                        marks=await _marks(session, row),
                    )
                )
        await self._shop.hub.catalogue.add(card, row.project_id)

    async def _result_file(self, row: TuningJob) -> str:
        content = results_csv(await self._records.metrics(row.id))
        origin = {"kind": "fine_tuning", "job_id": row.id}
        async with self._blobs.references:
            blob = await self._blobs.put(content)
            async with self._database.write() as session:
                file = File(
                    id=f"file-{row.id.removeprefix('ftjob-')}",  # the same again after a crash
                    project_id=row.project_id,
                    filename="step_metrics.csv",
                    purpose="fine-tune-results",
                    bytes=blob.size,
                    sha256=blob.sha256,
                    origin=origin,
                )
                await session.merge(file)
        return file.id


async def _marks(session: AsyncSession, row: TuningJob) -> list[Any]:
    """What a new model of a job has learned from that was deleted since: rows of its files, and its parent's own marks.

    A deletion marks the models that are there; one made later finds it in the files alone, which no longer say what of theirs it
    was.
    """
    parent = await session.get(TunedModel, (row.project_id, row.model))
    ids = [file_id for file_id in (row.training_file, row.validation_file) if file_id is not None]
    # Locked in one order: a deletion under way is either seen here, or sees the model.
    query = select(File).where(File.id.in_(ids)).order_by(File.id).with_for_update()
    marks = list(parent.marks) if parent is not None else []
    for file in await session.scalars(query):
        origin = file.origin or {}
        if "erased_at" in origin and "dataset_deleted" not in origin:
            mark = {"kind": "file", "ids": [file.id], "count": 1}
            marks.append(mark | {"dataset_id": origin["dataset_id"], "at": origin["erased_at"]})
    return marks


def _install(made: Path, final: Path) -> None:
    """A copy, of hard links where that is possible: the training may go back to what it made. A newer try's files take an older
    one's place."""
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = final.with_name(f".{final.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(made, scratch, copy_function=_link)
    if final.exists():
        shutil.rmtree(final)
    scratch.replace(final)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # trainings lie on another file system than the home, or on one that has no links
        shutil.copy2(source, target)


def _digest(folder: Path) -> str:
    """Of the weights: the adapter's file, or the prepared model's."""
    digest = hashlib.sha256()
    for name in ("adapter_model.safetensors", "decoder.bin"):
        if (path := folder / name).exists():
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
            break
    return digest.hexdigest()
