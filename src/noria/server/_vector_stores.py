"""/v1/vector_stores: stores, their files, batches and search.

Source: https://platform.openai.com/docs/api-reference/vector-stores
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from fastapi import Query
from pydantic import Field

from noria.access import Principal
from noria.errors import InvalidRequest
from noria.fields import Many
from noria.knowledge import Chunking, FileCounts, FoundPassage, Hit, StoreView, explanation
from noria.store import File, FileBatch, Page, StoreFile, VectorStore
from noria.tools import RankingOptions

from ._chat_bodies import Body, Metadata
from ._deps import Data, ListCursor, NoriaDep, listing
from ._routers import new_router
from ._wiring import Noria

__all__ = ["router"]

router = new_router("Vector stores")

Attributes = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)] | float | bool], Field(max_length=16)
]
FileStatus = Literal["in_progress", "completed", "failed", "cancelled"]


class ExpiresAfter(Body):
    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


class StaticChunking(Body):
    max_chunk_size_tokens: int = Field(ge=100, le=4096)
    chunk_overlap_tokens: int = Field(ge=0, le=2048)


class ChunkingStrategy(Body):
    type: Literal["auto", "static"]
    static: StaticChunking | None = None


class CreateStoreBody(Body):
    """POST /v1/vector_stores."""

    name: str | None = Field(default=None, max_length=512)
    description: str | None = Field(default=None, max_length=4096)
    file_ids: Many[str] | None = Field(default=None, max_length=500)
    expires_after: ExpiresAfter | None = None
    chunking_strategy: ChunkingStrategy | None = None
    metadata: Metadata | None = None


class UpdateStoreBody(Body):
    """POST /v1/vector_stores/{vector_store_id}."""

    name: str | None = Field(default=None, max_length=512)
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None


class AttachFileBody(Body):
    """POST /v1/vector_stores/{vector_store_id}/files."""

    file_id: str
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = None


class UpdateFileBody(Body):
    """POST /v1/vector_stores/{vector_store_id}/files/{file_id}."""

    attributes: Attributes | None


class BatchBody(Body):
    """POST /v1/vector_stores/{vector_store_id}/file_batches."""

    file_ids: Many[str] | None = Field(default=None, min_length=1, max_length=2000)
    files: Many[AttachFileBody] | None = Field(default=None, min_length=1, max_length=2000)
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = None


class SearchBody(Body):
    """POST /v1/vector_stores/{vector_store_id}/search."""

    refused: ClassVar[dict[str, str]] = {"rewrite_query": "query rewriting is not built"}

    query: str | Many[str]
    max_num_results: int = Field(default=10, ge=1, le=50)
    filters: dict[str, Any] | None = None
    ranking_options: RankingOptions | None = None
    rewrite_query: Literal[False] | None = None
    explain: bool = Field(default=False, description="Beyond OpenAI's: say why each passage was found.")


def _strategy(given: ChunkingStrategy | None) -> dict[str, Any]:
    """As it is kept with a file. Raises InvalidRequest where no file could be split so."""
    strategy = {} if given is None else given.model_dump(exclude_none=True)
    Chunking.from_openai(strategy or None)
    return strategy


def _show_counts(counts: FileCounts) -> dict[str, int]:
    return {
        "in_progress": counts.in_progress,
        "completed": counts.completed,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
        "total": counts.total,
    }


def _show_store(view: StoreView) -> dict[str, Any]:
    row = view.row
    days = row.expires_after_days
    return {
        "id": row.id,
        "object": "vector_store",
        "created_at": row.created_at,
        "name": row.name,
        "description": row.description,
        "usage_bytes": view.usage_bytes,
        "file_counts": _show_counts(view.counts),
        "status": view.status,
        "expires_after": {"anchor": "last_active_at", "days": days} if days else None,
        "expires_at": view.expires_at,
        "last_active_at": row.last_active_at,
        "metadata": row.meta,
        "embedding_model": row.embedding_model,
    }


def show_store_file(row: StoreFile, file: File | None = None) -> dict[str, Any]:
    strategy = row.chunking or {"type": "static", "static": {"max_chunk_size_tokens": 400, "chunk_overlap_tokens": 0}}
    shown: dict[str, Any] = {
        "id": row.file_id,
        "object": "vector_store.file",
        "created_at": row.created_at,
        "vector_store_id": row.store_id,
        "status": row.status,
        "usage_bytes": row.usage_bytes,
        "last_error": {"code": row.error_code, "message": row.error_message} if row.error_code else None,
        "chunking_strategy": strategy,
        "attributes": row.attributes,
        "num_passages": row.num_passages,
    }
    return shown if file is None else {**shown, "filename": file.filename}


def _show_batch(row: FileBatch, counts: FileCounts) -> dict[str, Any]:
    if counts.in_progress:
        status = "in_progress"
    elif counts.cancelled:
        status = "cancelled"
    else:
        status = "failed" if counts.total and counts.failed == counts.total else "completed"
    return {
        "id": row.id,
        "object": "vector_store.files_batch",
        "created_at": row.created_at,
        "vector_store_id": row.store_id,
        "status": status,
        "file_counts": _show_counts(counts),
    }


def _show_hit(hit: Hit[FoundPassage], *, explain: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "file_id": hit.passage.file_id,
        "filename": hit.passage.filename,
        "score": hit.score,
        "attributes": hit.passage.attributes,
        "content": [{"type": "text", "text": hit.passage.text}],
    }
    return {**shown, "noria": explanation(hit)} if explain else shown


# --- stores -----------------------------------------------------------------------------------------------------------


@router.post("/v1/vector_stores", summary="Create a vector store")
async def create_store(body: CreateStoreBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    chunking = _strategy(body.chunking_strategy)
    row = await noria.knowledge.create(
        caller.project_id,
        name=body.name or "",
        description=body.description,
        metadata=body.metadata or {},
        expires_after_days=body.expires_after.days if body.expires_after else None,
    )
    if body.file_ids:
        entries = [{"file_id": file_id, "chunking": chunking} for file_id in body.file_ids]
        await noria.knowledge.add_files(row, entries)
    return _show_store(await noria.knowledge.stores.view(row))


@router.get("/v1/vector_stores", summary="List vector stores")
async def list_stores(caller: Data, noria: NoriaDep, cursor: ListCursor) -> dict[str, Any]:
    return listing(await noria.knowledge.stores.list(caller.project_id, cursor), _show_store)


async def _store(noria: Noria, caller: Principal, store_id: str) -> VectorStore:
    return await noria.knowledge.stores.get(caller.project_id, store_id)


@router.get("/v1/vector_stores/{vector_store_id}", summary="Get a vector store")
async def get_store(vector_store_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return _show_store(await noria.knowledge.stores.view(await _store(noria, caller, vector_store_id)))


@router.post("/v1/vector_stores/{vector_store_id}", summary="Change a vector store")
async def update_store(vector_store_id: str, body: UpdateStoreBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await _store(noria, caller, vector_store_id)
    values: dict[str, Any] = {}
    if "name" in body.model_fields_set:
        values["name"] = body.name or ""
    if "metadata" in body.model_fields_set:
        values["meta"] = body.metadata or {}
    if "expires_after" in body.model_fields_set:
        values["expires_after_days"] = body.expires_after.days if body.expires_after else None
    return _show_store(await noria.knowledge.stores.view(await noria.knowledge.stores.update(row, values)))


@router.delete("/v1/vector_stores/{vector_store_id}", summary="Delete a vector store (its files stay)")
async def delete_store(vector_store_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await _store(noria, caller, vector_store_id)
    await noria.knowledge.delete(row)
    return {"id": row.id, "object": "vector_store.deleted", "deleted": True}


@router.post("/v1/vector_stores/{vector_store_id}/search", summary="Search a vector store")
async def search_store(vector_store_id: str, body: SearchBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await _store(noria, caller, vector_store_id)
    queries = [body.query] if isinstance(body.query, str) else body.query
    if not queries or not all(query.strip() for query in queries):
        raise InvalidRequest("The query is empty.", param="query")
    options = body.ranking_options
    hits = await noria.knowledge.search(
        caller.project_id,
        [row.id],
        queries,
        k=body.max_num_results,
        filters=body.filters,
        ranking=options.model_dump(exclude_none=True) if options else None,
    )
    return {
        "object": "vector_store.search_results.page",
        "search_query": queries,
        "data": [_show_hit(hit, explain=body.explain) for hit in hits],
        "has_more": False,
        "next_page": None,
    }


# --- files ------------------------------------------------------------------------------------------------------------


@router.post("/v1/vector_stores/{vector_store_id}/files", summary="Put a file into a vector store")
async def attach_file(vector_store_id: str, body: AttachFileBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await _store(noria, caller, vector_store_id)
    entry = {"file_id": body.file_id, "attributes": body.attributes or {}, "chunking": _strategy(body.chunking_strategy)}
    rows, _ = await noria.knowledge.add_files(row, [entry])
    return show_store_file(rows[0])


@router.get("/v1/vector_stores/{vector_store_id}/files", summary="List a vector store's files")
async def list_store_files(
    vector_store_id: str,
    caller: Data,
    noria: NoriaDep,
    cursor: ListCursor,
    status: Annotated[FileStatus | None, Query(alias="filter")] = None,
) -> dict[str, Any]:
    row = await _store(noria, caller, vector_store_id)
    return _file_list(await noria.knowledge.stores.files(row, cursor, status=status))


def _file_list(found: Page[tuple[StoreFile, File]]) -> dict[str, Any]:
    return listing(found, lambda pair: show_store_file(*pair))


@router.get("/v1/vector_stores/{vector_store_id}/files/{file_id}", summary="Get a file of a vector store")
async def get_store_file(vector_store_id: str, file_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return show_store_file(await noria.knowledge.stores.file(await _store(noria, caller, vector_store_id), file_id))


@router.post("/v1/vector_stores/{vector_store_id}/files/{file_id}", summary="Change a file's attributes")
async def update_store_file(
    vector_store_id: str, file_id: str, body: UpdateFileBody, caller: Data, noria: NoriaDep
) -> dict[str, Any]:
    row = await noria.knowledge.stores.file(await _store(noria, caller, vector_store_id), file_id)
    return show_store_file(await noria.knowledge.set_attributes(row, body.attributes or {}))


@router.delete("/v1/vector_stores/{vector_store_id}/files/{file_id}", summary="Take a file out of a vector store")
async def detach_file(
    vector_store_id: str,
    file_id: str,
    caller: Data,
    noria: NoriaDep,
    delete_upload: Annotated[
        bool, Query(description="Beyond OpenAI's: delete the uploaded file as well, unless another store has it.")
    ] = False,
) -> dict[str, Any]:
    row = await noria.knowledge.stores.file(await _store(noria, caller, vector_store_id), file_id)
    await noria.knowledge.remove_file(row)
    shown: dict[str, Any] = {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}
    if delete_upload:
        shown["noria"] = {"upload_deleted": await noria.knowledge.forget_unused(file_id)}
    return shown


@router.get("/v1/vector_stores/{vector_store_id}/files/{file_id}/content", summary="The text extracted from a file")
async def get_store_file_content(vector_store_id: str, file_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await noria.knowledge.stores.file(await _store(noria, caller, vector_store_id), file_id)
    text = await noria.knowledge.file_text(row)
    return {
        "object": "vector_store.file_content.page",
        "data": [{"type": "text", "text": text}],
        "has_more": False,
        "next_page": None,
    }


# --- batches ----------------------------------------------------------------------------------------------------------


@router.post("/v1/vector_stores/{vector_store_id}/file_batches", summary="Put many files into a vector store")
async def create_batch(vector_store_id: str, body: BatchBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    if (body.file_ids is None) == (body.files is None):
        raise InvalidRequest("Give either file_ids or files.", param="file_ids")
    if body.files is not None and (body.attributes is not None or body.chunking_strategy is not None):
        raise InvalidRequest("With files, attributes and chunking_strategy stand in each entry.", param="attributes")
    row = await _store(noria, caller, vector_store_id)
    common = {"attributes": body.attributes or {}, "chunking": _strategy(body.chunking_strategy)}
    entries = [{"file_id": file_id, **common} for file_id in body.file_ids or ()]
    entries += [
        {"file_id": entry.file_id, "attributes": entry.attributes or {}, "chunking": _strategy(entry.chunking_strategy)}
        for entry in body.files or ()
    ]
    _, batch = await noria.knowledge.add_files(row, entries, batch=True)
    assert batch is not None
    return await _batch(noria, row, batch.id)


async def _batch(noria: Noria, store: VectorStore, batch_id: str) -> dict[str, Any]:
    return _show_batch(*await noria.knowledge.stores.batch(store, batch_id))


@router.get("/v1/vector_stores/{vector_store_id}/file_batches/{batch_id}", summary="Get a file batch")
async def get_batch(vector_store_id: str, batch_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return await _batch(noria, await _store(noria, caller, vector_store_id), batch_id)


@router.post("/v1/vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel", summary="Cancel a file batch")
async def cancel_batch(vector_store_id: str, batch_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await _store(noria, caller, vector_store_id)
    await noria.knowledge.stores.batch(row, batch_id)
    await noria.knowledge.stores.cancel_batch(batch_id)
    return await _batch(noria, row, batch_id)


@router.get("/v1/vector_stores/{vector_store_id}/file_batches/{batch_id}/files", summary="List a file batch's files")
async def list_batch_files(
    vector_store_id: str,
    batch_id: str,
    caller: Data,
    noria: NoriaDep,
    cursor: ListCursor,
    status: Annotated[FileStatus | None, Query(alias="filter")] = None,
) -> dict[str, Any]:
    row = await _store(noria, caller, vector_store_id)
    await noria.knowledge.stores.batch(row, batch_id)
    return _file_list(await noria.knowledge.stores.files(row, cursor, status=status, batch_id=batch_id))
