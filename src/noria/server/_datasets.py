"""Datasets under /v1/noria/datasets: filled, read, compared, exported. Findings are in `_dataset_findings.py`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from noria.errors import InvalidRequest
from noria.evals import ImportOptions
from noria.evals.datasets import SUFFIX, Diff, FileWriter, Fill, Row, RowFilter, Split, list_rows, load_rows
from noria.fields import faults
from noria.store import Dataset, File

from ._dataset_views import (
    AddRowsBody,
    CollectBody,
    CreateDatasetBody,
    ExportFileBody,
    ImportBody,
    RowBody,
    UpdateDatasetBody,
    show_dataset,
    show_report,
    show_row,
    show_version,
)
from ._deps import Data, ListCursor, NoriaDep, listing
from ._errors import explain
from ._files import attachment, clean_filename, find_file, keep_upload, show_file
from ._noria_models import show_job
from ._routers import new_router
from ._wiring import Noria

__all__ = ["DatasetId", "router"]

router = new_router("Noria: datasets", prefix="/v1/noria/datasets")

DatasetId = Annotated[str, Path(max_length=256, description="Id or name of the dataset.")]
Version = Annotated[int | None, Query(ge=1, description="Number of a version; default: the newest.")]
WhichSplit = Annotated[Split | None, Query()]
FileFormat = Literal["noria", "openai", "dpo", "alpaca", "sharegpt", "csv", "parquet"]
# What is done while its caller waits; more becomes a job.
_AT_ONCE_BYTES = 512 * 1024
_AT_ONCE_RECORDS = 300
_MEDIA = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


@router.post("", summary="Create a dataset")
async def create_dataset(body: CreateDatasetBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await noria.datasets.create(
        body.name,
        project_id=caller.project_id,
        description=body.description,
        metadata=body.metadata,
        shares=(body.validation_share, body.test_share),
    )
    return show_dataset(row)


@router.get("", summary="List datasets")
async def list_datasets(caller: Data, noria: NoriaDep, cursor: ListCursor) -> dict[str, Any]:
    return listing(await noria.datasets.list(cursor, caller.project_id), show_dataset)


@router.get("/{dataset}", summary="Get a dataset, with the counts of its newest version")
async def get_dataset(dataset: DatasetId, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await noria.datasets.get(dataset, caller.project_id)
    version = show_version(await noria.datasets.versions.get(row)) if row.head else None
    return {**show_dataset(row), "newest": version, "findings": await noria.datasets.findings.counts(row)}


@router.post("/{dataset}", summary="Change a dataset's name, description, metadata, or, while it is empty, its shares")
async def update_dataset(dataset: DatasetId, body: UpdateDatasetBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await noria.datasets.get(dataset, caller.project_id)
    changes: dict[str, Any] = body.model_dump(exclude_none=True, exclude={"validation_share", "test_share"})
    if body.validation_share is not None or body.test_share is not None:
        shares = (body.validation_share, row.validation_share), (body.test_share, row.test_share)
        changes["shares"] = tuple(old if new is None else new for new, old in shares)
    return show_dataset(await noria.datasets.update(row, changes))


@router.delete("/{dataset}", summary="Delete a dataset with all its versions")
async def delete_dataset(dataset: DatasetId, caller: Data, noria: NoriaDep, force: bool = False) -> dict[str, Any]:
    row = await noria.datasets.get(dataset, caller.project_id)
    await noria.datasets.delete(row, force=force)
    return {"object": "noria.dataset.deleted", "id": row.id, "deleted": True}


# --- versions ---------------------------------------------------------------------------------------------------------


@router.get("/{dataset}/versions", summary="List a dataset's versions")
async def list_versions(dataset: DatasetId, caller: Data, noria: NoriaDep, cursor: ListCursor) -> dict[str, Any]:
    row = await noria.datasets.get(dataset, caller.project_id)
    found = await noria.datasets.list_versions(row, cursor)
    shown = found[: cursor.limit]
    more = len(found) > cursor.limit
    return {
        "object": "list",
        "data": [show_version(version) for version in shown],
        "has_more": more,
        "next_cursor": str(shown[-1].number) if more else None,
    }


@router.get("/{dataset}/versions/{version}", summary="Get a version")
async def get_version(dataset: DatasetId, version: Annotated[int, Path(ge=1)], caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return show_version(await noria.datasets.version(dataset, version, caller.project_id))


@router.get("/{dataset}/diff", summary="What changed between two versions")
async def diff_versions(
    dataset: DatasetId,
    before: Annotated[int, Query(ge=1, alias="from")],
    after: Annotated[int, Query(ge=1, alias="to")],
    caller: Data,
    noria: NoriaDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    start: Annotated[int, Query(ge=0, alias="after", description="How many changes to pass over: next_cursor.")] = 0,
) -> dict[str, Any]:
    row = await noria.datasets.get(dataset, caller.project_id)
    diff: Diff = await noria.datasets.diff(row.id, before, after, caller.project_id)
    shown = diff.changes[start : start + limit]
    ids = [row_id for change in shown for row_id in (change.before, change.after) if row_id]
    rows = await load_rows(noria.database, row.id, ids)
    more = start + limit < len(diff.changes)
    return {
        "object": "list",
        "counts": {kind: diff.count(kind) for kind in ("added", "removed", "changed")},
        "data": [
            {
                "object": "noria.dataset.change",
                "change": change.kind,
                "before": _shown(rows, change.before),
                "after": _shown(rows, change.after),
            }
            for change in shown
        ],
        "has_more": more,
        "next_cursor": str(start + limit) if more else None,
    }


def _shown(rows: dict[str, Row], row_id: str | None) -> dict[str, Any] | None:
    return show_row(rows[row_id]) if row_id in rows else None


# --- rows -------------------------------------------------------------------------------------------------------------


@router.get("/{dataset}/rows", summary="Rows of a version")
async def get_rows(
    request: Request,
    dataset: DatasetId,
    caller: Data,
    noria: NoriaDep,
    cursor: ListCursor,
    version: Version = None,
    split: WhichSplit = None,
    text: Annotated[str | None, Query(max_length=1000)] = None,
) -> dict[str, Any]:
    row = await noria.datasets.get(dataset, caller.project_id)
    if not row.head and version is None:
        return {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    number = (await noria.datasets.versions.get(row, version)).number
    pairs = request.query_params.multi_items()
    metadata = {name[9:-1]: value for name, value in pairs if name.startswith("metadata[") and name.endswith("]")}
    wanted = RowFilter(split, text, metadata)
    return listing(await list_rows(noria.database, row.id, number, wanted, cursor), show_row)


@router.post("/{dataset}/rows", summary="Add and remove rows: a new version")
async def add_rows(dataset: DatasetId, body: AddRowsBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    if not body.rows and not body.remove:
        raise InvalidRequest("There is nothing to add or remove.", param="rows")
    row = await noria.datasets.get(dataset, caller.project_id)
    rows = [each.model_dump(exclude_none=True) for each in body.rows]
    done = await noria.datasets.add(row.id, rows, note=body.note, remove=body.remove, project_id=caller.project_id)
    return {
        "object": "noria.dataset.addition",
        "dataset_id": row.id,
        "added": done.added,
        "removed": done.removed,
        "duplicates": done.duplicates,
        "version": done.version.number if done.version else None,
    }


@router.get("/{dataset}/rows/{row_id}", summary="Get a row, with where it came from")
async def get_row(dataset: DatasetId, row_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    found = await noria.datasets.get(dataset, caller.project_id)
    row = await noria.datasets.row(found, row_id)
    return {**show_row(row), "sources": await noria.datasets.sources(found, row_id)}


@router.put("/{dataset}/rows/{row_id}", summary="Replace a row: a new version")
async def replace_row(
    dataset: DatasetId,
    row_id: str,
    body: RowBody,
    caller: Data,
    noria: NoriaDep,
    note: Annotated[str, Query(max_length=4000)] = "",
) -> dict[str, Any]:
    found = await noria.datasets.get(dataset, caller.project_id)
    done = await noria.datasets.replace_row(found, row_id, body.model_dump(exclude_none=True), note)
    return {
        "object": "noria.dataset.addition",
        "dataset_id": found.id,
        "added": done.added,
        "removed": done.removed,
        "duplicates": done.duplicates,
        "version": done.version.number if done.version else None,
    }


# --- what fills it ----------------------------------------------------------------------------------------------------


@router.post("/{dataset}/import", summary="Import a file: multipart, or a file_id as JSON", openapi_extra={"requestBody": {
    "required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ImportBody"}},
    "multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": {
        "file": {"type": "string", "format": "binary"}, "format": {"type": "string"}, "strict": {"type": "boolean"},
        "note": {"type": "string"}}}}}}})  # fmt: skip
async def import_rows(dataset: DatasetId, request: Request, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await noria.datasets.get(dataset, caller.project_id)
    file, body = await _uploaded(request, caller.project_id, noria)
    options = ImportOptions(None if body.format == "auto" else body.format, body.strict)
    if file.bytes > _AT_ONCE_BYTES:
        job = await noria.data_jobs.start_import(row, file, options, body.note)
        return {"object": "noria.dataset.addition", "dataset_id": row.id, "job": show_job(job)}
    fill = Fill(note=body.note, project_id=caller.project_id)
    report = await noria.datasets.import_file(row.id, file, format=options.format, strict=options.strict, fill=fill)
    return show_report(report, row)


async def _uploaded(request: Request, project_id: str, noria: Noria) -> tuple[File, ImportBody]:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        body = _validated(await request.json())
        return await find_file(noria, project_id, body.file_id), body
    form = await request.form()
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise InvalidRequest("The form has no file.", param="file", code="missing_required_parameter")
    body = _validated({**{name: value for name, value in form.items() if name != "file"}, "file_id": ""})
    # Kept as a file of the project: it is where the rows came from, and a job reads it after this request has ended.
    return await keep_upload(noria, project_id, upload, clean_filename(upload.filename), "user_data"), body


def _validated(given: Any) -> ImportBody:
    try:
        return ImportBody.model_validate(given)
    except ValidationError as error:
        raise explain(faults(error), {}) from None


@router.post("/{dataset}/collect", summary="Make rows of feedback, traces or stored completions")
async def collect(dataset: DatasetId, body: CollectBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    if body.reads_traces:
        caller.require("traces")
    row = await noria.datasets.get(dataset, caller.project_id)
    wanted = body.to_collect(caller.project_id)
    await noria.feedback.targets.settle()  # what was answered a moment ago counts
    background = body.background
    if background is None:
        background = await noria.data_jobs.count(row, wanted) > _AT_ONCE_RECORDS
    if background:
        job = await noria.data_jobs.start_collect(row, wanted, body.note)
        return {"object": "noria.dataset.addition", "dataset_id": row.id, "job": show_job(job)}
    report = await noria.data_jobs.collect(row, wanted, Fill(note=body.note, project_id=caller.project_id))
    return show_report(report, row)


# --- what comes out ---------------------------------------------------------------------------------------------------


@router.get("/{dataset}/export", summary="Download a version", response_class=StreamingResponse)
async def download(
    dataset: DatasetId,
    caller: Data,
    noria: NoriaDep,
    version: Version = None,
    split: WhichSplit = None,
    format: FileFormat = "noria",
) -> Response:
    row = await noria.datasets.get(dataset, caller.project_id)
    found = await noria.datasets.versions.get(row, version)
    writer = FileWriter(format)
    name = f"{row.name}@{found.number}{f'-{split}' if split else ''}.{SUFFIX[format]}"
    pieces = noria.datasets.exporter.stream(row, found, split, writer)
    return StreamingResponse(pieces, media_type=_MEDIA.get(format, "application/jsonl"), headers=attachment(name))


@router.post("/{dataset}/export", summary="Keep a version as a file of /v1/files, for training")
async def export_file(dataset: DatasetId, body: ExportFileBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row: Dataset = await noria.datasets.get(dataset, caller.project_id)
    file = await noria.datasets.export_file(row.id, body.version, body.split, body.format, project_id=caller.project_id)
    return {**show_file(file), "origin": file.origin}
