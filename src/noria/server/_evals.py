"""/v1/evals, their runs and output items, in OpenAI's shapes. Source: https://platform.openai.com/docs/api-reference/evals"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field

from noria.evals import NewRun
from noria.fields import Many
from noria.prompts import PromptReference
from noria.store import Cursor, Eval, EvalItem, EvalRun

from ._chat_bodies import Body, Metadata
from ._deps import Data, NoriaDep, listing
from ._routers import new_router

__all__ = ["router", "show_run"]

router = new_router("Evals")

Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str | None, Query(max_length=256)]
Order = Literal["asc", "desc"]


class EvalBody(Body):
    """POST /v1/evals. The config and the criteria are read by their `type`; docs/guides/evals.md lists them."""

    data_source_config: dict[str, Any]
    testing_criteria: Many[dict[str, Any]] = Field(max_length=100)
    name: str | None = Field(default=None, max_length=256)
    metadata: Metadata | None = None


class EvalUpdateBody(Body):
    """POST /v1/evals/{eval_id}."""

    name: str | None = Field(default=None, max_length=256)
    metadata: Metadata | None = None


class RunOptions(Body):
    """What only Noria has of a run."""

    prompt: PromptReference | None = Field(
        default=None, description="A stored prompt put before each row's messages; its variables may hold `{{item.…}}`."
    )
    cluster: str | None = Field(
        default=None,
        max_length=512,
        description="Rows alike here (`item.article`) are drawn together in intervals.",
    )


class RunBody(Body):
    """POST /v1/evals/{eval_id}/runs."""

    data_source: dict[str, Any]
    name: str | None = Field(default=None, max_length=256)
    metadata: Metadata | None = None
    noria: RunOptions | None = None


def show_eval(row: Eval) -> dict[str, Any]:
    return {
        "object": "eval",
        "id": row.id,
        "name": row.name,
        "data_source_config": row.data_source_config,
        "testing_criteria": row.testing_criteria,
        "created_at": row.created_at,
        "metadata": row.meta,
    }


def show_run(row: EvalRun) -> dict[str, Any]:
    return {
        "object": "eval.run",
        "id": row.id,
        "eval_id": row.eval_id,
        "status": row.status,
        "model": row.model or "",
        "name": row.name,
        "created_at": row.created_at,
        "report_url": f"/evals/{row.eval_id}/runs/{row.id}",
        "result_counts": row.result_counts,
        "per_model_usage": row.usage,
        "per_testing_criteria_results": row.per_criterion,
        "data_source": row.data_source,
        "metadata": row.meta,
        "error": row.error,
        "noria": {
            "job_id": row.job_id,
            "num_items": row.num_items,
            "finished_at": row.finished_at,
            "options": row.options,
            "statistics": row.statistics,
        },
    }


def show_item(row: EvalItem, eval_id: str) -> dict[str, Any]:
    return {
        "object": "eval.run.output_item",
        "id": row.id,
        "run_id": row.run_id,
        "eval_id": eval_id,
        "created_at": row.created_at,
        "status": row.status,
        "datasource_item_id": row.position,
        "datasource_item": row.datasource_item,
        "results": row.results,
        "sample": row.sample,
        "noria": {"trace_id": row.trace_id, "row_id": row.row_id},
    }


# --- evals ---------------------------------------------------------------------------------------------------------------


@router.post("/v1/evals", summary="Create an eval", status_code=201)
async def create_eval(body: EvalBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await noria.evals.create(
        caller.project_id, body.data_source_config, body.testing_criteria, name=body.name or "", metadata=body.metadata
    )
    return show_eval(row)


@router.get("/v1/evals", summary="List evals")
async def list_evals(
    caller: Data,
    noria: NoriaDep,
    limit: Limit = 20,
    order: Order = "asc",
    after: After = None,
    order_by: Literal["created_at"] = "created_at",
) -> dict[str, Any]:
    return listing(await noria.evals.list(caller.project_id, Cursor(limit, order, after)), show_eval)


@router.get("/v1/evals/{eval_id}", summary="Get an eval")
async def get_eval(eval_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return show_eval(await noria.evals.get(caller.project_id, eval_id))


@router.post("/v1/evals/{eval_id}", summary="Change an eval's name or metadata")
async def update_eval(eval_id: str, body: EvalUpdateBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return show_eval(await noria.evals.update(caller.project_id, eval_id, body.name, body.metadata))


@router.delete("/v1/evals/{eval_id}", summary="Delete an eval with its runs")
async def delete_eval(eval_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    await noria.evals.delete(caller.project_id, eval_id)
    return {"object": "eval.deleted", "deleted": True, "eval_id": eval_id}


# --- runs ----------------------------------------------------------------------------------------------------------------


@router.post("/v1/evals/{eval_id}/runs", summary="Start a run", status_code=201)
async def create_run(eval_id: str, body: RunBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    caller.require("inference")
    options = body.noria.model_dump(exclude_none=True) if body.noria else {}
    new = NewRun(body.data_source, body.name or "", body.metadata or {}, options)
    return show_run(await noria.evals.create_run(caller.project_id, eval_id, new))


@router.get("/v1/evals/{eval_id}/runs", summary="List an eval's runs")
async def list_runs(
    eval_id: str,
    caller: Data,
    noria: NoriaDep,
    limit: Limit = 20,
    order: Order = "asc",
    after: After = None,
    status: Literal["queued", "in_progress", "completed", "canceled", "failed"] | None = None,
) -> dict[str, Any]:
    return listing(await noria.evals.list_runs(caller.project_id, eval_id, Cursor(limit, order, after), status), show_run)


@router.get("/v1/evals/{eval_id}/runs/{run_id}", summary="Get a run")
async def get_run(eval_id: str, run_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return show_run(await noria.evals.get_run(caller.project_id, eval_id, run_id))


# OpenAI's description has POST on the run itself, its clients send …/cancel.
@router.post("/v1/evals/{eval_id}/runs/{run_id}", summary="Cancel a run")
@router.post("/v1/evals/{eval_id}/runs/{run_id}/cancel", summary="Cancel a run")
async def cancel_run(eval_id: str, run_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return show_run(await noria.evals.cancel_run(caller.project_id, eval_id, run_id))


@router.delete("/v1/evals/{eval_id}/runs/{run_id}", summary="Delete a run with its output items")
async def delete_run(eval_id: str, run_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    await noria.evals.delete_run(caller.project_id, eval_id, run_id)
    return {"object": "eval.run.deleted", "deleted": True, "run_id": run_id}


@router.get("/v1/evals/{eval_id}/runs/{run_id}/output_items", summary="List a run's output items")
async def list_output_items(
    eval_id: str,
    run_id: str,
    caller: Data,
    noria: NoriaDep,
    limit: Limit = 20,
    order: Order = "asc",
    after: After = None,
    status: Literal["fail", "pass", "error", "failed"] | None = None,
) -> dict[str, Any]:
    wanted = "fail" if status == "failed" else status
    found = await noria.evals.list_items(caller.project_id, eval_id, run_id, Cursor(limit, order, after), wanted)
    return listing(found, lambda row: show_item(row, eval_id))


@router.get("/v1/evals/{eval_id}/runs/{run_id}/output_items/{output_item_id}", summary="Get an output item")
async def get_output_item(eval_id: str, run_id: str, output_item_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return show_item(await noria.evals.get_item(caller.project_id, eval_id, run_id, output_item_id), eval_id)
