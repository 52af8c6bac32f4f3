"""A turn's training as a fine-tuning job, found again by its metadata after a crash: nothing is trained twice."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy import select

from noria.errors import Conflict, InvalidRequest, NotFound
from noria.fields import faults
from noria.store import Database, Job, TuningEvent, TuningJob
from noria.training import NoriaOptions, TuningRequest

from ._parts import TrainingState, TrainOrder
from ._spec import Train, WheelSpec

if TYPE_CHECKING:
    from noria.training import Tuning

__all__ = ["TuningJobs", "check_train", "loss_of"]

_TURN = "noria_turn"
_ENDED = {"succeeded", "failed", "cancelled"}
_SHOWN = ("n_epochs", "batch_size", "learning_rate", "lora_rank", "lora_alpha", "kind")


def check_train(train: Train) -> None:
    """Raises InvalidRequest for a hyperparameter or an option that a fine-tuning job does not take."""
    spec = WheelSpec(name="check", base_model="check-model", train=train)
    request_for(TrainOrder("turn", "project", spec, "file-check", None))


def request_for(order: TrainOrder) -> TuningRequest:
    """Training starts from the base model with all rows each time, never from an earlier candidate: no row counts twice, and
    what was deleted is learned from no more."""
    train = order.spec.train
    try:
        options = dict(train.options)
        if train.minutes is not None:
            options["max_minutes"] = train.minutes
        given: dict[str, Any] = {
            "model": order.spec.base_model,
            "training_file": order.train_file,
            "validation_file": order.validation_file,
            "method": {"type": train.method, train.method: {"hyperparameters": dict(train.hyperparameters)}},
            "suffix": order.spec.name.replace(".", "-")[:40],
            "seed": train.seed,
            "metadata": {"noria_wheel": order.spec.name, _TURN: order.turn},
            "options": NoriaOptions.model_validate(options),
        }
        return TuningRequest.model_validate(given)
    except ValidationError as error:
        first = faults(error)[0]
        where = ".".join(("train", *(str(part) for part in first["loc"])))
        raise InvalidRequest(f"{where}: {first['msg']}.", param=where) from None


class TuningJobs:
    def __init__(self, database: Database, tuning: Tuning) -> None:
        self._database, self._tuning = database, tuning

    async def start(self, order: TrainOrder) -> str:
        query = select(TuningJob.id).where(
            TuningJob.project_id == order.project_id, TuningJob.meta[_TURN].as_string() == order.turn
        )
        async with self._database.read() as session:
            found = await session.scalar(query.limit(1))
        if found is not None:
            return found
        return (await self._tuning.create(order.project_id, request_for(order))).id

    async def state(self, project_id: str, job_id: str) -> TrainingState:
        async with self._database.read() as session:
            row = await session.get(TuningJob, job_id)
            job = await session.get(Job, row.job_id) if row is not None and row.job_id else None
        if row is None or row.project_id != project_id:
            raise NotFound(f"The fine-tuning job {job_id} was deleted.", param="fine_tuning_job_id")
        error = (row.error or {}).get("message")
        if row.status not in _ENDED:
            lost = job is not None and job.status in {"failed", "cancelled"}
            return TrainingState(
                "failed" if lost else "running",
                error=(job.error if lost and job else None),
                done=job.done if job else 0.0,
                total=job.total if job else None,
            )
        resolved = row.resolved or {}
        facts = {name: resolved[name] for name in _SHOWN if name in resolved}
        return TrainingState(
            row.status,  # type: ignore[arg-type]
            model=row.fine_tuned_model,
            error=error,
            forgetting=forgetting_of(row),
            facts={**facts, "trained_tokens": row.trained_tokens},
        )

    async def cancel(self, project_id: str, job_id: str) -> None:
        with contextlib.suppress(Conflict, NotFound):
            await self._tuning.cancel(project_id, job_id)


def forgetting_of(row: TuningJob) -> float | None:
    """How much less of the general set is right after the training than before; None where it was not checked."""
    found: Any = getattr(row, "forgetting", None) or (row.resolved or {}).get("forgetting") or {}
    before, after = found.get("before"), found.get("after")
    return None if before is None or after is None else float(before) - float(after)


async def loss_of(database: Database, job_id: str) -> list[tuple[float, float | None, float | None]]:
    """Step, training loss and validation loss, as the job told them."""
    query = select(TuningEvent.data).where(TuningEvent.tuning_job_id == job_id, TuningEvent.kind == "metrics")
    async with database.read() as session:
        rows = [data for data in await session.scalars(query.order_by(TuningEvent.ordinal)) if data]
    return [(float(row.get("step", 0)), row.get("train_loss"), row.get("valid_loss")) for row in rows]
