"""/v1/noria/prompts: stored prompts, their versions, labels, differences, and a look at what one renders to."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import Field

from noria.errors import InvalidRequest
from noria.prompts import Template
from noria.store import Prompt, PromptVersion

from ._chat_bodies import Body
from ._deps import Admin, Data, ListCursor, NoriaDep, listing
from ._routers import new_router

__all__ = ["router"]

router = new_router("Noria: prompts", prefix="/v1/noria/prompts")

PromptId = Annotated[str, Path(max_length=256, description="Id of the prompt, or its name.")]
Label = Annotated[str, Path(max_length=64)]
Version = Annotated[str, Path(max_length=64, description="A number, a label, or `latest`.")]
WhichVersion = Annotated[str | None, Query(max_length=64, description="A number, a label, or `latest`.")]


class CreateBody(Body):
    """POST /v1/noria/prompts."""

    name: str = Field(min_length=1, max_length=128)
    template: Template
    description: str = Field(default="", max_length=4000)
    note: str = Field(default="", max_length=4000, description="What is new in this version.")


class DescribeBody(Body):
    """POST /v1/noria/prompts/{prompt}."""

    description: str = Field(max_length=4000)


class VersionBody(Body):
    """POST /v1/noria/prompts/{prompt}/versions."""

    template: Template
    note: str = Field(default="", max_length=4000, description="What is new in this version.")


class LabelBody(Body):
    """PUT /v1/noria/prompts/{prompt}/labels/{label}."""

    version: str = Field(min_length=1, max_length=64, description="A number, another label, or `latest`.")


class RenderBody(Body):
    """POST /v1/noria/prompts/{prompt}/render."""

    version: str | None = Field(default=None, min_length=1, max_length=64)
    template: Template | None = Field(default=None, description="One that is not saved yet, in place of a version.")
    variables: dict[str, Any] | None = Field(default=None, max_length=256)


def _show(row: Prompt) -> dict[str, Any]:
    return {
        "object": "noria.prompt",
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "head": row.head,
        "labels": row.labels,
        "label_moves": row.label_moves,
        "created_at": row.created_at,
    }


def _show_version(row: PromptVersion) -> dict[str, Any]:
    template = Template.model_validate(row.template)
    return {
        "object": "noria.prompt.version",
        "id": f"{row.prompt_id}@{row.number}",
        "prompt_id": row.prompt_id,
        "version": row.number,
        "template": row.template,
        "variables": list(template.variables()),
        "note": row.note,
        "created_at": row.created_at,
    }


@router.post("", summary="Create a prompt with its first version")
async def create_prompt(body: CreateBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await noria.prompts.create(caller.project_id, body.name, body.template, description=body.description, note=body.note)
    return _show(row)


@router.get("", summary="List prompts")
async def list_prompts(caller: Data, noria: NoriaDep, cursor: ListCursor) -> dict[str, Any]:
    return listing(await noria.prompts.list(caller.project_id, cursor), _show)


@router.get("/{prompt}", summary="Get a prompt")
async def get_prompt(prompt: PromptId, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return _show(await noria.prompts.get(caller.project_id, prompt))


@router.post("/{prompt}", summary="Change a prompt's description")
async def describe_prompt(prompt: PromptId, body: DescribeBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return _show(await noria.prompts.describe(caller.project_id, prompt, body.description))


@router.delete("/{prompt}", summary="Delete a prompt with all its versions")
async def delete_prompt(prompt: PromptId, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    row = await noria.prompts.delete(caller.project_id, prompt)
    return {"object": "noria.prompt.deleted", "id": row.id, "deleted": True}


@router.post("/{prompt}/versions", summary="Add a version; the newest one comes back where nothing differs")
async def create_version(prompt: PromptId, body: VersionBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return _show_version(await noria.prompts.add_version(caller.project_id, prompt, body.template, note=body.note))


@router.get("/{prompt}/versions", summary="List a prompt's versions")
async def list_versions(prompt: PromptId, caller: Data, noria: NoriaDep, cursor: ListCursor) -> dict[str, Any]:
    found = await noria.prompts.versions(caller.project_id, prompt, cursor)
    numbers = [str(row.number) for row in found.data]  # what `after` and `before` take
    return {
        **listing(found, _show_version),
        "first_id": numbers[0] if numbers else None,
        "last_id": numbers[-1] if numbers else None,
    }


@router.get("/{prompt}/versions/{version}", summary="Get a version, by number or label")
async def get_version(prompt: PromptId, version: Version, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return _show_version((await noria.prompts.version(caller.project_id, prompt, version))[1])


@router.put("/{prompt}/labels/{label}", summary="Point a label at a version")
async def move_label(prompt: PromptId, label: Label, body: LabelBody, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    return _show(await noria.prompts.move_label(caller.project_id, prompt, label, body.version))


@router.delete("/{prompt}/labels/{label}", summary="Remove a label")
async def remove_label(prompt: PromptId, label: Label, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    return _show(await noria.prompts.remove_label(caller.project_id, prompt, label))


@router.post("/{prompt}/labels/{label}/rollback", summary="Point a label at the version it pointed at before")
async def roll_back_label(prompt: PromptId, label: Label, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    return _show(await noria.prompts.roll_back(caller.project_id, prompt, label))


@router.get("/{prompt}/diff", summary="What changes from one version to another")
async def diff_versions(
    prompt: PromptId,
    caller: Data,
    noria: NoriaDep,
    older: Annotated[str | None, Query(alias="from", max_length=64, description="Default: the one before `to`.")] = None,
    newer: Annotated[str | None, Query(alias="to", max_length=64, description="Default: the newest.")] = None,
) -> dict[str, Any]:
    row, after = await noria.prompts.version(caller.project_id, prompt, newer or "latest")
    if older is None and after.number == 1:
        raise InvalidRequest(f"Version 1 of {row.name!r} has none before it.", param="from", hint="Say which to compare with.")
    _, before = await noria.prompts.version(caller.project_id, prompt, older or str(after.number - 1))
    old, new = Template.model_validate(before.template), Template.model_validate(after.template)
    names = (f"{row.name} version {before.number}", f"{row.name} version {after.number}")
    return {
        "object": "noria.prompt.diff",
        "prompt_id": row.id,
        "from": before.number,
        "to": after.number,
        "diff": old.diff(new, names),
        "variables_added": [name for name in new.variables() if name not in old.variables()],
        "variables_removed": [name for name in old.variables() if name not in new.variables()],
    }


@router.post("/{prompt}/render", summary="The messages that a version (or an unsaved template) becomes")
async def render_prompt(prompt: PromptId, body: RenderBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row, version = await noria.prompts.version(caller.project_id, prompt, body.version)
    if body.template is not None and body.version is not None:
        raise InvalidRequest("Give version or template, not both.", param="template")
    template = (body.template or Template.model_validate(version.template)).check()
    return {
        "object": "noria.prompt.rendered",
        "prompt_id": row.id,
        "version": version.number if body.template is None else None,
        "messages": template.render(body.variables),
        "model": template.model,
    }
