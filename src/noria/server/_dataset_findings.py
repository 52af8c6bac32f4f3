"""What curation finds in a dataset: looked for, listed, decided, applied."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query

from noria.evals import show_curation
from noria.evals.datasets import Fill, FindingFilter, FindingKind

from ._dataset_views import CurateBody, DecideBody, DecideManyBody, show_finding
from ._datasets import DatasetId
from ._deps import Data, ListCursor, NoriaDep, listing
from ._noria_models import show_job
from ._routers import new_router

__all__ = ["router"]

router = new_router("Noria: datasets", prefix="/v1/noria/datasets")

_AT_ONCE_ROWS = 2000


@router.post("/{dataset}/curate", summary="Look for what may be wrong with a version's rows")
async def curate(dataset: DatasetId, body: CurateBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await noria.datasets.get(dataset, caller.project_id)
    version = await noria.datasets.versions.get(row, body.version)
    policy = body.to_policy()
    background = body.background
    if background is None:
        background = version.counts["total"] > _AT_ONCE_ROWS
    if background:
        job = await noria.data_jobs.start_curate(row, version.number, policy)
        return {"object": "noria.dataset.curation", "dataset_id": row.id, "job": show_job(job)}
    found = await noria.datasets.curate(row.id, version.number, policy, fill=Fill(project_id=caller.project_id))
    return {"object": "noria.dataset.curation", "dataset_id": row.id, "job": None, **show_curation(found)}


@router.get("/{dataset}/findings", summary="List findings")
async def list_findings(
    dataset: DatasetId,
    caller: Data,
    noria: NoriaDep,
    cursor: ListCursor,
    version: Annotated[int | None, Query(ge=1)] = None,
    kind: FindingKind | None = None,
    decision: Literal["open", "accepted", "rejected"] | None = None,
) -> dict[str, Any]:
    row = await noria.datasets.get(dataset, caller.project_id)
    page = await noria.datasets.findings.list(row, FindingFilter(version, kind, decision), cursor)
    return {**listing(page, show_finding), "counts": await noria.datasets.findings.counts(row, version)}


@router.post("/{dataset}/findings", summary="Decide every finding that matches")
async def decide_many(dataset: DatasetId, body: DecideManyBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await noria.datasets.get(dataset, caller.project_id)
    wanted = FindingFilter(body.version, body.kind, body.current)
    count = await noria.datasets.findings.decide_all(row, wanted, body.decision, body.by)
    return {"object": "noria.dataset.decisions", "dataset_id": row.id, "decision": body.decision, "decided": count}


@router.post("/{dataset}/findings/apply", summary="Make a version without what accepted findings remove")
async def apply_findings(
    dataset: DatasetId, caller: Data, noria: NoriaDep, version: Annotated[int | None, Query(ge=1)] = None
) -> dict[str, Any]:
    row = await noria.datasets.get(dataset, caller.project_id)
    done = await noria.datasets.findings.apply(row, version)
    return {
        "object": "noria.dataset.addition",
        "dataset_id": row.id,
        "removed": done.removed,
        "version": done.version.number if done.version else None,
    }


@router.get("/{dataset}/findings/{finding}", summary="Get a finding")
async def get_finding(dataset: DatasetId, finding: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await noria.datasets.get(dataset, caller.project_id)
    return show_finding(await noria.datasets.findings.get(row, finding))


@router.post("/{dataset}/findings/{finding}", summary="Accept or reject a finding")
async def decide(dataset: DatasetId, finding: str, body: DecideBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await noria.datasets.get(dataset, caller.project_id)
    return show_finding(await noria.datasets.findings.decide(row, finding, body.decision, body.by))
