"""A job's rows: written here, and shown as OpenAI's clients read them.

Source of the shapes: https://platform.openai.com/docs/api-reference/fine-tuning/object
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import delete, insert, select

from noria.errors import NotFound
from noria.store import Database, TuningCheckpoint, TuningEvent, TuningJob, new_id

__all__ = ["ENDED", "Records", "metrics_event", "results_csv", "show_checkpoint", "show_event", "show_job"]

ENDED = frozenset({"succeeded", "failed", "cancelled"})
Level = Literal["info", "warn", "error"]
_OPENAI = ("n_epochs", "batch_size", "learning_rate_multiplier")
_CSV = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "full_valid_loss",
    "valid_mean_token_accuracy": "full_valid_mean_token_accuracy",
    "learning_rate": "learning_rate",
}


def show_job(row: TuningJob) -> dict[str, Any]:
    """The `fine_tuning.job` object; what only Noria knows is under `noria`."""
    kind = row.method["type"]
    asked = dict((row.method.get(kind) or {}).get("hyperparameters") or {})
    shown = {name: row.resolved.get(name, asked.get(name, "auto")) for name in _OPENAI}
    with_beta = shown if kind != "dpo" else {**shown, "beta": row.resolved.get("beta", asked.get("beta", "auto"))}
    return {
        "id": row.id,
        "object": "fine_tuning.job",
        "model": row.model,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
        "fine_tuned_model": row.fine_tuned_model,
        "organization_id": "noria",
        "result_files": row.result_files,
        "status": row.status,
        "training_file": row.training_file,
        "validation_file": row.validation_file,
        "hyperparameters": shown,
        "method": {"type": kind, kind: {"hyperparameters": with_beta}},
        "trained_tokens": row.trained_tokens,
        "integrations": [],
        "seed": row.seed,
        "estimated_finish": row.estimated_finish,
        "error": row.error,
        "metadata": {k: v for k, v in row.meta.items() if not k.startswith("noria.")} or None,
        "user_provided_suffix": row.suffix,
        "noria": {
            "options": row.method.get("noria") or {},
            "resolved": {k: v for k, v in row.resolved.items() if k not in {"forgetting", "data"}},
            "data": row.resolved.get("data"),
            "forgetting": row.resolved.get("forgetting"),
            "job_id": row.job_id,
        },
    }


def show_event(row: TuningEvent) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "fine_tuning.job.event",
        "created_at": row.created_at,
        "level": row.level,
        "message": row.message,
        "type": row.kind,
        "data": row.data or {},
    }


def show_checkpoint(row: TuningCheckpoint) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": row.created_at,
        "fine_tuning_job_id": row.tuning_job_id,
        "fine_tuned_model_checkpoint": row.model,
        "step_number": row.step,
        "metrics": row.metrics,
    }


class Records:
    """Reads and changes one instance's fine-tuning rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, job_id: str, project_id: str | None = None) -> TuningJob:
        """Raises NotFound, also for another project's."""
        async with self._database.read() as session:
            row = await session.get(TuningJob, job_id)
        if row is None or (project_id is not None and row.project_id != project_id):
            raise NotFound(f"No fine-tuning job {job_id!r}.", param="fine_tuning_job_id")
        return row

    async def exists(self, job_id: str) -> bool:
        async with self._database.read() as session:
            return await session.get(TuningJob, job_id) is not None

    async def update(self, tuning_id: str, *, unless: frozenset[str] = frozenset(), **values: Any) -> TuningJob:
        """Changes a job, but not one whose status is among `unless`: what a person decided meanwhile stands."""
        async with self._database.write() as session:
            row = await session.get(TuningJob, tuning_id)
            if row is None:
                raise NotFound(f"The fine-tuning job {tuning_id!r} was deleted.", param="fine_tuning_job_id")
            if row.status not in unless:
                for name, value in values.items():
                    setattr(row, name, value)
        return row

    async def say(self, job_id: str, message: str, level: Level = "info", data: Mapping[str, Any] | None = None) -> None:
        await self.add_events([_event(job_id, "message", message, level, data)])

    async def add_events(self, events: Sequence[TuningEvent]) -> None:
        """Each once, however often it is done: a database may go away after it has written them, before it has said so."""
        columns = ("id", "tuning_job_id", "level", "kind", "message", "data", "created_at")
        rows = [{name: getattr(event, name) for name in columns} for event in events]
        known = select(TuningEvent.id).where(TuningEvent.id.in_([event.id for event in events]))
        async with self._database.write() as session:
            there = set(await session.scalars(known))
            if fresh := [row for row in rows if row["id"] not in there]:
                await session.execute(insert(TuningEvent), fresh)

    async def forget_steps_after(self, job_id: str, step: int) -> None:
        """Steps that a killed try had taken beyond its last checkpoint are taken again: each is told once."""
        query = select(TuningEvent).where(TuningEvent.tuning_job_id == job_id, TuningEvent.kind == "metrics")
        async with self._database.write() as session:
            again = [row.ordinal for row in await session.scalars(query) if (row.data or {}).get("step", 0) > step]
            for start in range(0, len(again), 500):
                await session.execute(delete(TuningEvent).where(TuningEvent.ordinal.in_(again[start : start + 500])))

    async def metrics(self, job_id: str) -> list[dict[str, Any]]:
        """By step: what was told of it."""
        query = select(TuningEvent.data).where(TuningEvent.tuning_job_id == job_id, TuningEvent.kind == "metrics")
        steps: dict[int, dict[str, Any]] = {}
        async with self._database.read() as session:
            for data in await session.scalars(query.order_by(TuningEvent.ordinal)):
                if data:
                    steps.setdefault(int(data["step"]), {}).update(data)
        return [steps[step] for step in sorted(steps)]


def _event(job_id: str, kind: str, message: str, level: Level, data: Mapping[str, Any] | None) -> TuningEvent:
    return TuningEvent(
        id=new_id("ftevent-"),
        tuning_job_id=job_id,
        level=level,
        kind=kind,
        message=message,
        data=dict(data) if data else None,
        created_at=int(time.time()),
    )


def metrics_event(job_id: str, data: Mapping[str, Any], total: int) -> TuningEvent:
    """A step's figures, with OpenAI's names and words."""
    told: dict[str, Any] = {**data, "total_steps": total}
    words: list[str] = []
    if "train_loss" in data:
        words.append(f"training loss={data['train_loss']:.4f}")
    if "full_valid_loss" in data:
        told["valid_loss"] = data["full_valid_loss"]
        words.append(f"validation loss={data['full_valid_loss']:.4f}")
    return _event(job_id, "metrics", f"Step {data['step']}/{total}: {', '.join(words)}", "info", told)


def results_csv(metrics: Sequence[Mapping[str, Any]]) -> bytes:
    """OpenAI's result file: a line a step. Figures of preferences are added where there are any."""
    names = dict(_CSV)
    names |= {name: name for row in metrics for name in row if "reward" in name}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in metrics:
        writer.writerow(["" if row.get(source) is None else row[source] for source in names.values()])
    return out.getvalue().encode()
