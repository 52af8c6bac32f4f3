"""GET /v1/models. Source: https://platform.openai.com/docs/api-reference/models"""

from __future__ import annotations

from typing import Any

from noria.models import ModelCard

from ._deps import Inference, NoriaDep
from ._routers import new_router
from ._wiring import Noria

__all__ = ["router"]

router = new_router("Models")
_EPOCH = 1735689600  # built-in cards have no birthday of their own


def _show(card: ModelCard) -> dict[str, Any]:
    return {"id": card.id, "object": "model", "created": _EPOCH, "owned_by": card.provider or "noria"}


async def _usable(noria: Noria, card: ModelCard, project_id: str) -> bool:
    """Models that would answer now or after loading: local ones with weights, remote ones with a key, routes."""
    return (await noria.model_state(card, project_id)) in {"ready", "loaded"}


@router.get("/v1/models", summary="List the models that can answer")
async def list_models(caller: Inference, noria: NoriaDep) -> dict[str, Any]:
    cards = await noria.hub.catalogue.all(caller.project_id)
    data = [_show(card) for card in cards if await _usable(noria, card, caller.project_id)]
    usable = {row["id"] for row in data}
    data += [
        {"id": alias, "object": "model", "created": _EPOCH, "owned_by": f"alias of {target}"}
        for alias, target in noria.hub.catalogue.aliases.items()
        if target in usable and alias not in usable
    ]
    return {"object": "list", "data": data}


@router.get("/v1/models/{model:path}", summary="Get a model")
async def get_model(model: str, caller: Inference, noria: NoriaDep) -> dict[str, Any]:
    resolved = await noria.hub.resolve(model, caller.project_id)
    return {**_show(resolved.card), "id": model}


@router.delete("/v1/models/{model:path}", summary="Remove a model that was added or fine-tuned")
async def delete_model(model: str, caller: Inference, noria: NoriaDep) -> dict[str, Any]:
    caller.require("admin")
    await noria.hub.remove(model, caller.project_id)
    return {"id": model, "object": "model", "deleted": True}
