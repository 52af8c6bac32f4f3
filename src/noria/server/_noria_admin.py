"""/v1/noria/…: status, settings, API keys; and /health, /metrics beside them."""

from __future__ import annotations

import os
import time
from typing import Any

from fastapi.responses import Response
from pydantic import Field

from noria import __version__
from noria.access import SCOPES
from noria.fields import Many
from noria.knowledge.loaders import supported_extensions
from noria.store import ApiKey
from noria.tracing import METRICS_CONTENT_TYPE

from ._chat_bodies import Body
from ._deps import Admin, Inference, ListCursor, NoriaDep, listing
from ._routers import new_router

__all__ = ["router"]

router = new_router("Noria: administration")


@router.get("/health", summary="Whether the server is up", tags=["Health"])
async def health(noria: NoriaDep) -> dict[str, Any]:
    await noria.database.ping()
    return {"status": "ok", "version": __version__}


@router.get("/metrics", summary="Prometheus metrics", tags=["Health"], response_class=Response)
async def metrics(caller: Admin, noria: NoriaDep) -> Response:
    return Response(noria.tracing.metrics.render(), media_type=METRICS_CONTENT_TYPE)


@router.get("/v1/noria/status", summary="What runs here, at a glance")
async def status(caller: Inference, noria: NoriaDep) -> dict[str, Any]:
    settings = noria.settings
    spans = noria.tracing.health()
    return {
        "object": "noria.status",
        "version": __version__,
        "pid": os.getpid(),
        "uptime_s": time.time() - noria.started_at,
        "home": str(settings.home),
        "models_dir": str(settings.models_dir),
        "database": "sqlite" if noria.database.is_sqlite else "postgresql",
        "keys_required": await noria.keys.exist(),
        "chat_model": settings.chat_model,
        "embedding_model": settings.embedding_model,
        "file_extensions": list(supported_extensions()),
        "running_calls": noria.admission.running,
        "engines": [{"name": engine.name, "state": engine.state} for engine in noria.supervisor.status()],
        "spans": {
            "queued": spans.queued,
            "lag_s": spans.lag_s,
            "written": spans.written,
            "lost": spans.lost,
            "error": spans.error,
        },
    }


@router.get("/v1/noria/settings", summary="Each setting, its value (secrets masked) and where it came from")
async def list_settings(caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    return {"object": "list", "data": [{"object": "noria.setting", **row} for row in noria.loaded.rows()], "has_more": False}


class KeyBody(Body):
    """POST /v1/noria/keys."""

    name: str = Field(min_length=1, max_length=256)
    scopes: Many[str] | None = None
    expires_in_days: float | None = Field(default=None, gt=0, le=3650)
    requests_per_minute: int | None = Field(default=None, ge=0)


def _show_key(row: ApiKey) -> dict[str, Any]:
    return {
        "object": "noria.key",
        "id": row.id,
        "name": row.name,
        "prefix": row.prefix,
        "scopes": row.scopes,
        "requests_per_minute": row.requests_per_minute,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "last_used_at": row.last_used_at,
        "revoked_at": row.revoked_at,
    }


@router.post("/v1/noria/keys", summary="Create an API key; its secret is in this answer and nowhere else")
async def create_key(body: KeyBody, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    issued = await noria.keys.create(
        body.name,
        scopes=SCOPES if body.scopes is None else body.scopes,
        expires_at=int(time.time() + body.expires_in_days * 86400) if body.expires_in_days else None,
        requests_per_minute=body.requests_per_minute,
        project_id=caller.project_id,
    )
    return {**_show_key(issued.row), "secret": issued.secret}


@router.get("/v1/noria/keys", summary="List API keys")
async def list_keys(caller: Admin, noria: NoriaDep, cursor: ListCursor) -> dict[str, Any]:
    return listing(await noria.keys.list(caller.project_id, cursor), _show_key)


@router.delete("/v1/noria/keys/{key_id}", summary="Revoke an API key")
async def revoke_key(key_id: str, caller: Admin, noria: NoriaDep) -> dict[str, Any]:
    return _show_key(await noria.keys.revoke(caller.project_id, key_id))
