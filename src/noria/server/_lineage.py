"""GET /v1/noria/lineage/{id}: what led to a thing and what came of it, as a graph."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path, Query

from ._deps import Data, NoriaDep
from ._routers import new_router

__all__ = ["router"]

router = new_router("Noria: lineage")


@router.get("/v1/noria/lineage/{identity:path}", summary="What led to a thing, and what came of it")
async def get_lineage(
    identity: Annotated[
        str, Path(description="Id of a trace, answer, feedback, row, DATASET@VERSION, file, job, model, run or turn.")
    ],
    caller: Data,
    noria: NoriaDep,
    direction: Literal["back", "forward", "both"] = "both",
    limit: Annotated[int, Query(ge=1, le=200, description="Of many equal neighbours so many are shown.")] = 20,
) -> dict[str, Any]:
    graph = await noria.lineage.walk(caller.project_id, identity, direction=direction, limit=limit)
    return {"object": "noria.lineage", **graph.to_dict()}
