"""/v1/noria/wheels: wheels, their turns, what people ask of a turn, reports."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from fastapi import Path, Query
from fastapi.responses import PlainTextResponse, Response
from pydantic import Field

from noria.access import Principal
from noria.errors import InvalidRequest, NotFound
from noria.store import Job, Wheel, WheelTurn
from noria.wheel import PLOTS, STEPS, WheelSpec, loss_of, markdown, parse_toml, plot

from ._chat_bodies import Body
from ._deps import Admin, Data, ListCursor, NoriaDep, listing
from ._routers import new_router
from ._wiring import Noria

__all__ = ["router"]

router = new_router("Noria: wheels", prefix="/v1/noria/wheels")

WheelName = Annotated[str, Path(max_length=256, description="Id or name of the wheel.")]
TurnName = Annotated[str, Path(max_length=64, description="Id or number of the turn, or `latest`.")]


class WheelBody(Body):
    """POST /v1/noria/wheels: the specification, as JSON or as TOML."""

    spec: dict[str, Any] | None = Field(default=None, description="The specification; docs/guides/wheel.md lists its fields.")
    toml: str | None = Field(default=None, max_length=65536, description="The same as TOML text.")

    def given(self) -> dict[str, Any] | None:
        if self.spec is not None and self.toml is not None:
            raise InvalidRequest("Give spec or toml, not both.", param="toml")
        return parse_toml(self.toml) if self.toml is not None else self.spec


class WheelUpdateBody(WheelBody):
    """POST /v1/noria/wheels/{wheel}. A turn under way keeps the specification with which it began."""

    paused: bool | None = Field(default=None, description="Triggers start no turn while it is paused.")


class AskBody(Body):
    """POST /v1/noria/wheels/{wheel}/turns and what is asked of a turn."""

    by: str | None = Field(default=None, max_length=128, description="Who asks; default: the API key's id.")


def _who(body: AskBody | None, caller: Principal) -> str:
    return (body.by if body is not None else None) or caller.key_id or "owner"


def _show(row: Wheel) -> dict[str, Any]:
    return {
        "object": "noria.wheel",
        "id": row.id,
        "name": row.name,
        "route": row.route,
        "dataset_id": row.dataset_id,
        "open_turn_id": row.open_turn_id,
        "paused": row.paused,
        "spec": WheelSpec.model_validate(row.spec).to_json(),
        "created_at": row.created_at,
    }


def _show_turn(row: WheelTurn, job: Job | None = None) -> dict[str, Any]:
    ended = [each["step"] for each in row.data.get("steps", [])]
    going = job is not None and job.status in {"queued", "running"} and job.detail.get("step") == row.step
    return {
        "object": "noria.wheel.turn",
        "id": row.id,
        "wheel_id": row.wheel_id,
        "number": row.number,
        "step": row.step,
        "steps": [{"step": step, "state": _state(row, step, ended)} for step in STEPS[:-1]],
        "outcome": row.outcome,
        "reason": row.data.get("reason"),
        "error": row.error,
        "progress": {"done": job.done, "total": job.total} if going and job is not None else None,
        "data": row.data,
        "spec": row.spec,
        "job_id": row.job_id,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "ended_at": row.ended_at,
    }


def _state(row: WheelTurn, step: str, ended: list[str]) -> Literal["done", "current", "ahead", "stopped", "not needed"]:
    if step == row.step:
        return "current"
    if step in ended:
        return "stopped" if row.step == "end" and step == ended[-1] and row.outcome != "promoted" else "done"
    return "not needed" if row.step == "end" or STEPS.index(step) < STEPS.index(row.step) else "ahead"  # type: ignore[arg-type]


async def _shown(noria: Noria, row: WheelTurn) -> dict[str, Any]:
    job = await noria.jobs.get(row.job_id, row.project_id) if row.job_id and row.step != "end" else None
    return _show_turn(row, job)


async def _find(noria: Noria, caller: Principal, wheel: str, turn: str) -> tuple[Wheel, WheelTurn]:
    found = await noria.wheels.find(caller.project_id, wheel)
    return found, await noria.wheels.turn(caller.project_id, found, turn)


# --- wheels -----------------------------------------------------------------------------------------------------------


@router.post("", summary="Make a wheel, its route and its dataset")
async def create_wheel(body: WheelBody, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    given = body.given()
    if given is None:
        raise InvalidRequest("spec is missing.", param="spec", code="missing_required_parameter")
    return _show(await noria.wheels.create(caller.project_id, given))


@router.get("", summary="List wheels")
async def list_wheels(caller: Data, noria: NoriaDep, cursor: ListCursor) -> dict[str, Any]:
    return listing(await noria.wheels.list(caller.project_id, cursor), _show)


@router.get("/{wheel}", summary="One wheel, what flows along its arrows, and its newest turn")
async def get_wheel(wheel: WheelName, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await noria.wheels.find(caller.project_id, wheel)
    turns = await noria.wheels.records.all_turns(row.id)
    latest = await _shown(noria, turns[0]) if turns else None
    return {**_show(row), "counts": await noria.wheels.counts(row), "latest_turn": latest}


@router.post("/{wheel}", summary="Change a wheel's specification, or pause its triggers")
async def update_wheel(wheel: WheelName, body: WheelUpdateBody, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    return _show(await noria.wheels.update(caller.project_id, wheel, body.given(), paused=body.paused))


@router.delete("/{wheel}", summary="Delete a wheel; its route, dataset and models stay")
async def delete_wheel(wheel: WheelName, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    row = await noria.wheels.remove(caller.project_id, wheel)
    return {"object": "noria.wheel.deleted", "id": row.id, "deleted": True}


# --- turns ------------------------------------------------------------------------------------------------------------


@router.post("/{wheel}/turns", summary="Begin a turn")
async def start_turn(wheel: WheelName, caller: Admin, noria: NoriaDep, body: AskBody | None = None) -> dict[str, Any]:
    turn = await noria.wheels.start(caller.project_id, wheel, by=_who(body, caller))
    return await _shown(noria, turn)


@router.get("/{wheel}/turns", summary="List a wheel's turns")
async def list_turns(wheel: WheelName, caller: Data, noria: NoriaDep, cursor: ListCursor) -> dict[str, Any]:
    row = await noria.wheels.find(caller.project_id, wheel)
    return listing(await noria.wheels.turns(row, cursor), _show_turn)


@router.get("/{wheel}/turns/{turn}", summary="One turn, with what each step made")
async def get_turn(wheel: WheelName, turn: TurnName, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    _, row = await _find(noria, caller, wheel, turn)
    return await _shown(noria, row)


@router.post("/{wheel}/turns/{turn}/{what}", summary="Approve, reject, roll back or cancel a turn")
async def ask_turn(
    wheel: WheelName,
    turn: TurnName,
    what: Literal["approve", "reject", "rollback", "cancel"],
    caller: Admin,
    noria: NoriaDep,
    body: AskBody | None = None,
) -> dict[str, Any]:
    _, row = await _find(noria, caller, wheel, turn)
    return await _shown(noria, await noria.wheels.ask(caller.project_id, row.id, what, by=_who(body, caller)))


@router.get("/{wheel}/turns/{turn}/report", summary="A turn's report", response_class=Response)
async def get_report(
    wheel: WheelName,
    turn: TurnName,
    caller: Data,
    noria: NoriaDep,
    format: Annotated[Literal["markdown", "json"], Query(description="Markdown links the plots beside it.")] = "markdown",
) -> Response:
    found, row = await _find(noria, caller, wheel, turn)
    plots = {name: f"plots/{name}.svg" for name in PLOTS if await _plot(noria, row, name) is not None}
    if format == "json":
        facts = {**await _shown(noria, row), "wheel": _show(found), "plots": plots}
        return Response(orjson.dumps(facts), media_type="application/json")
    return PlainTextResponse(markdown(found, row, plots=plots), media_type="text/markdown; charset=utf-8")


@router.get("/{wheel}/turns/{turn}/plots/{name}.svg", summary="A plot of a turn's report", response_class=Response)
async def get_plot(
    wheel: WheelName, turn: TurnName, name: Literal["loss", "gate", "canary"], caller: Data, noria: NoriaDep
) -> Response:
    _, row = await _find(noria, caller, wheel, turn)
    drawn = await _plot(noria, row, name)
    if drawn is None:
        raise NotFound(f"The turn {row.number} has nothing to plot of {name} yet.", param="name")
    return Response(drawn, media_type="image/svg+xml")


async def _plot(noria: Noria, row: WheelTurn, name: str) -> str | None:
    job_id = (row.data.get("train") or {}).get("job_id")
    loss = await loss_of(noria.database, job_id) if name == "loss" and job_id else []
    return plot(row, name, loss)
