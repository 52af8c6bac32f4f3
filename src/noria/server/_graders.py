"""Graders by themselves, comparisons of runs, and the calibration of judges.

Source of the first: https://platform.openai.com/docs/api-reference/graders (run and validate)
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Literal

import orjson
from pydantic import Field

from noria.errors import InvalidRequest, NotFound
from noria.evals import Grade, GradeFailed, Row, Templates, Variables, asks_models, parse_grader
from noria.fields import Many
from noria.store import JudgeAgreement

from ._chat_bodies import Body
from ._deps import Data, NoriaDep
from ._evals import show_run
from ._routers import new_router

__all__ = ["router"]

router = new_router("Evals")

_FLAGS = (
    "formula_parse_error", "sample_parse_error", "truncated_observation_error", "unresponsive_reward_error",
    "invalid_variable_error", "other_error", "python_grader_server_error", "python_grader_runtime_error",
    "model_grader_server_error", "model_grader_refusal_error", "model_grader_parse_error",
)  # fmt: skip


class GraderBody(Body):
    """POST /v1/fine_tuning/alpha/graders/validate."""

    grader: dict[str, Any]


class GraderRunBody(Body):
    """POST /v1/fine_tuning/alpha/graders/run."""

    grader: dict[str, Any]
    model_sample: str
    item: dict[str, Any] | None = None


@router.post("/v1/fine_tuning/alpha/graders/validate", summary="Check a grader")
async def validate_grader(body: GraderBody, caller: Data) -> dict[str, Any]:
    parse_grader(body.grader, "grader").check(Variables({}, sample=True), "grader")
    return {"grader": body.grader}


@router.post("/v1/fine_tuning/alpha/graders/run", summary="Grade one row")
async def run_grader(body: GraderRunBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    parse_grader(body.grader, "grader").check(Variables({}, sample=True), "grader")
    if asks_models(body.grader):
        caller.require("inference")
    begun = time.perf_counter()
    sample: dict[str, Any] = {"output_text": body.model_sample, "output_tools": []}
    with contextlib.suppress(orjson.JSONDecodeError):
        sample["output_json"] = orjson.loads(body.model_sample)
    grade, failed = None, None
    try:
        _, grade = await noria.evals.grade_once(caller.project_id, body.grader, Row(body.item or {}, sample))
    except GradeFailed as error:
        failed = error
    return _reward(body.grader, grade, failed, time.perf_counter() - begun)


def _reward(grader: dict[str, Any], grade: Grade | None, failed: GradeFailed | None, taken_s: float) -> dict[str, Any]:
    errors: dict[str, Any] = dict.fromkeys(_FLAGS, False)
    said = str(failed) if failed else None
    if failed is not None:
        errors[failed.kind if failed.kind in _FLAGS else "other_error"] = True
    kind = failed.kind if failed else ""
    errors["python_grader_server_error_type"] = said if kind == "python_grader_server_error" else None
    python = {"python_grader_runtime_error", "unresponsive_reward_error"}
    errors["python_grader_runtime_error_details"] = said if kind in python else None
    errors["model_grader_server_error_details"] = said if kind.startswith("model_grader") else None
    usage = _usage(grade.sample if grade else None)
    models = list(usage)
    score = grade.score if grade else 0.0
    parts = dict(grade.parts) if grade else {}
    return {
        "reward": score,
        "metadata": {
            "name": grader.get("name"),
            "type": grader.get("type"),
            "errors": errors,
            "execution_time": taken_s,
            "scores": parts or {str(grader.get("name")): score},
            "token_usage": sum(each["total_tokens"] for each in usage.values()) if usage else None,
            "sampled_model_name": models[0] if models else None,
        },
        "sub_rewards": parts,
        "model_grader_token_usage_per_model": usage,
    }


def _usage(sample: Any) -> dict[str, dict[str, int]]:
    """Tokens by model, of one judge or of several inside a multi grader."""
    found: dict[str, dict[str, int]] = {}
    for each in [sample, *((sample or {}).get("graders") or {}).values()]:
        if each and each.get("usage"):
            sums = found.setdefault(each["model"], dict.fromkeys(each["usage"], 0))
            for name, count in each["usage"].items():
                sums[name] += count
    return found


@router.get("/v1/noria/evals/runs/{run_id}", summary="Get a run by its id alone")
async def find_run(run_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return show_run(await noria.evals.get_run(caller.project_id, None, run_id))


class CompareBody(Body):
    """POST /v1/noria/evals/compare. `after` and `limit` page through the rows; a row's place is its cursor."""

    run_a: str = Field(max_length=64)
    run_b: str = Field(max_length=64)
    criterion: str | None = Field(default=None, max_length=256)
    outcome: Literal["win", "loss", "tie"] | None = None
    limit: int = Field(default=20, ge=0, le=1000)
    after: int = Field(default=-1, ge=-1)


@router.post("/v1/noria/evals/compare", summary="Compare two runs on the rows that both have")
async def compare_runs(body: CompareBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    found = await noria.evals.compare(caller.project_id, body.run_a, body.run_b, body.criterion)
    wanted = [
        (place, pair)
        for place, pair in enumerate(found.pairs)
        if place > body.after and (body.outcome is None or pair.outcome == body.outcome)
    ]
    shown = wanted[: body.limit]
    return {
        **found.to_dict(),
        "data": [
            {
                "place": place,
                "row_id": pair.row_id,
                "item_a": pair.item_a,
                "item_b": pair.item_b,
                "passed_a": pair.passed_a,
                "passed_b": pair.passed_b,
                "score_a": pair.score_a,
                "score_b": pair.score_b,
                "outcome": pair.outcome,
                "errored": pair.errored,
            }
            for place, pair in shown
        ],
        "has_more": len(wanted) > len(shown),
        "next_after": shown[-1][0] if shown else None,
    }


class ImportBody(Body):
    """POST /v1/noria/imports/openai: an uploaded export, or its objects here."""

    file_id: str | None = Field(default=None, max_length=256)
    data: Many[dict[str, Any]] | None = None


@router.post("/v1/noria/imports/openai", summary="Import evals, runs, output items and stored completions exported from OpenAI")
async def import_openai(body: ImportBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    if (body.file_id is None) == (body.data is None):
        raise InvalidRequest("Give either file_id or data.", param="file_id")
    return (await noria.evals.import_openai(caller.project_id, body.data, body.file_id)).to_dict()


class CalibrateBody(Body):
    """POST /v1/noria/evals/calibrate: `human` is where a row says what people thought, `output_text` what is judged."""

    grader: dict[str, Any]
    source: dict[str, Any] = Field(description="A source of rows: file_content, file_id or noria_dataset.")
    human: str = Field(default="{{item.label}}", max_length=512)
    output_text: str = Field(default="{{sample.output_text}}", max_length=2000)


def _show_agreement(row: JudgeAgreement) -> dict[str, Any]:
    return {
        "object": "noria.judge_agreement",
        "id": row.id,
        "grader": row.grader,
        "dataset_id": row.dataset_id,
        "dataset_version": row.dataset_version,
        "num_rows": row.num_rows,
        "created_at": row.created_at,
        **row.detail,
    }


@router.post("/v1/noria/evals/calibrate", summary="Measure a judge's agreement with people")
async def calibrate(body: CalibrateBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    caller.require("inference")
    templates = Templates(body.human, body.output_text)
    return _show_agreement(await noria.evals.calibrate(caller.project_id, body.grader, body.source, templates))


@router.get("/v1/noria/evals/agreements/{agreement_id}", summary="Get a measured agreement")
async def get_agreement(agreement_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    async with noria.database.read() as session:
        row = await session.get(JudgeAgreement, agreement_id)
    if row is None or row.project_id != caller.project_id:
        raise NotFound(f"No agreement {agreement_id!r}.", param="agreement_id")
    return _show_agreement(row)
