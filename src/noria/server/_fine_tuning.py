"""/v1/fine_tuning/jobs: models trained further on one's own examples.

Source: https://platform.openai.com/docs/api-reference/fine-tuning. What only Noria can be told is under `noria` in the body.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, ValidationError
from starlette.requests import Request

from noria.errors import InvalidRequest, UnsupportedField
from noria.fields import Many, faults
from noria.training import Hyperparameters, Method, NoriaOptions, TuningRequest, show_checkpoint, show_event, show_job

from ._chat_bodies import Body, Metadata
from ._deps import Data, ListCursor, NoriaDep, listing
from ._errors import explain
from ._routers import new_router

__all__ = ["router"]

router = new_router("Fine-tuning", prefix="/v1/fine_tuning/jobs")


class CreateTuningBody(Body):
    """POST /v1/fine_tuning/jobs."""

    refused: ClassVar[dict[str, str]] = {}

    model: str = Field(min_length=1, max_length=256)
    training_file: str = Field(min_length=1, max_length=64)
    validation_file: str | None = Field(default=None, min_length=1, max_length=64)
    method: dict[str, Any] | None = Field(default=None, description="`supervised` or `dpo`, with their hyperparameters.")
    hyperparameters: Hyperparameters | None = Field(default=None, description="Deprecated by OpenAI; for supervised jobs.")
    suffix: str | None = Field(default=None, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    metadata: Metadata | None = None
    integrations: Many[dict[str, Any]] | None = Field(default=None, description="Must be empty: wandb is not built.")
    noria: NoriaOptions | None = Field(default=None, description="Beyond OpenAI's: the adapter, lengths, schedule and checks.")


def _request(body: CreateTuningBody) -> TuningRequest:
    if body.integrations:
        raise UnsupportedField(
            "integrations are not supported: wandb is not built.",
            param="integrations",
            hint="The job's events and its result file hold all figures.",
        )
    if body.method is not None and body.hyperparameters is not None:
        raise InvalidRequest("Give hyperparameters under method, not beside it.", param="hyperparameters")
    method = _method(body)
    return TuningRequest(
        model=body.model,
        training_file=body.training_file,
        validation_file=body.validation_file,
        method=method,
        suffix=body.suffix,
        seed=body.seed,
        metadata=body.metadata,
        options=body.noria or NoriaOptions(),
    )


def _method(body: CreateTuningBody) -> Method:
    if body.method is None:
        given: dict[str, Any] = {"type": "supervised"}
        if body.hyperparameters is not None:
            given["supervised"] = {"hyperparameters": body.hyperparameters.asked()}
    elif body.method.get("type") == "reinforcement":
        raise UnsupportedField(
            "method.type = reinforcement is not built yet.", param="method.type", hint="Use supervised or dpo."
        )
    else:
        given = body.method
    try:
        return Method.model_validate(given)
    except ValidationError as error:
        raise explain([{**each, "loc": ("body", "method", *each["loc"])} for each in faults(error)], {}) from None


@router.post("", summary="Create a fine-tuning job")
async def create_job(body: CreateTuningBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    caller.require("inference")
    return show_job(await noria.tuning.create(caller.project_id, _request(body)))


@router.get("", summary="List fine-tuning jobs")
async def list_jobs(request: Request, caller: Data, noria: NoriaDep, cursor: ListCursor) -> dict[str, Any]:
    """Newest first; `metadata[key]=value` filters."""
    wanted = {
        key[9:-1]: value for key, value in request.query_params.items() if key.startswith("metadata[") and key.endswith("]")
    }
    return listing(await noria.tuning.list(caller.project_id, cursor, wanted), show_job)


@router.get("/{job_id}", summary="Get a fine-tuning job")
async def get_job(job_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return show_job(await noria.tuning.get(caller.project_id, job_id))


@router.post("/{job_id}/cancel", summary="Cancel a fine-tuning job")
async def cancel_job(job_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return show_job(await noria.tuning.cancel(caller.project_id, job_id))


@router.post("/{job_id}/pause", summary="Pause a fine-tuning job")
async def pause_job(job_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return show_job(await noria.tuning.pause(caller.project_id, job_id))


@router.post("/{job_id}/resume", summary="Resume a fine-tuning job")
async def resume_job(job_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    caller.require("inference")
    return show_job(await noria.tuning.resume(caller.project_id, job_id))


@router.get("/{job_id}/events", summary="List a fine-tuning job's events")
async def list_events(job_id: str, caller: Data, noria: NoriaDep, cursor: ListCursor) -> dict[str, Any]:
    return listing(await noria.tuning.events(caller.project_id, job_id, cursor), show_event)


@router.get("/{job_id}/checkpoints", summary="List a fine-tuning job's checkpoints")
async def list_checkpoints(job_id: str, caller: Data, noria: NoriaDep, cursor: ListCursor) -> dict[str, Any]:
    return listing(await noria.tuning.checkpoints(caller.project_id, job_id, cursor), show_checkpoint)
