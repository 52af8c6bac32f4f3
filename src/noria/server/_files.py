"""/v1/files: uploads into the blob store. Source: https://platform.openai.com/docs/api-reference/files"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import Depends, Form, Query, UploadFile
from fastapi.responses import StreamingResponse
from sqlalchemy import or_, select
from starlette.datastructures import UploadFile as StarletteUpload
from starlette.requests import Request

from noria.errors import InvalidRequest, NotFound
from noria.store import Cursor, File, new_id, page

from ._deps import Data, NoriaDep, cursor_of, listing
from ._routers import new_router
from ._wiring import Noria

__all__ = ["attachment", "clean_filename", "find_file", "keep_upload", "router", "show_file"]

router = new_router("Files")

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
_PIECE = 1024 * 1024
FilesCursor = Annotated[Cursor, Depends(cursor_of(limit=10_000, most=10_000))]  # as OpenAI has it for files alone
_FIELDS = {"file", "purpose", "expires_after[anchor]", "expires_after[seconds]"}


def show_file(row: File) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "filename": row.filename,
        "purpose": row.purpose,
        "status": "processed",
        "status_details": None,
    }


def clean_filename(name: str | None) -> str:
    """The last part of what the client calls the file: never a path, never a control character, never empty."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    last = "".join(character for character in last if character.isprintable()).strip()
    if last in {"", ".", ".."}:
        raise InvalidRequest(f"The upload's file name {name!r} is not usable.", param="file")
    if len(last.encode()) > 255:
        raise InvalidRequest("The upload's file name is longer than 255 bytes.", param="file")
    return last


def attachment(filename: str) -> dict[str, str]:
    """The headers of a download under a name of any script, with an ASCII one beside it. Source: RFC 6266, RFC 8187."""
    plain = "".join(letter if " " <= letter <= "~" and letter not in '"\\%' else "_" for letter in filename)
    return {
        "content-disposition": f"attachment; filename*=utf-8''{quote(filename, safe='')}; filename=\"{plain}\"",
        "x-content-type-options": "nosniff",
    }


@router.post("/v1/files", summary="Upload a file")
async def create_file(
    request: Request,
    caller: Data,
    noria: NoriaDep,
    file: UploadFile,
    purpose: Annotated[Purpose, Form()],
    anchor: Annotated[Literal["created_at"] | None, Form(alias="expires_after[anchor]")] = None,
    seconds: Annotated[int | None, Form(alias="expires_after[seconds]", ge=3600, le=2592000)] = None,
) -> dict[str, Any]:
    form = await request.form()
    if unknown := sorted(set(form) - _FIELDS):
        raise InvalidRequest(f"Unknown field: {unknown[0]}.", param=unknown[0], code="unknown_parameter")
    if (anchor is None) != (seconds is None):
        raise InvalidRequest("expires_after needs both anchor and seconds.", param="expires_after")
    return show_file(await keep_upload(noria, caller.project_id, file, clean_filename(file.filename), purpose, seconds))


async def keep_upload(
    noria: Noria, project_id: str, file: StarletteUpload, filename: str, purpose: str, lifetime_s: int | None = None
) -> File:
    """An upload as a file of the project."""

    async def pieces() -> AsyncIterator[bytes]:
        while piece := await file.read(_PIECE):
            yield piece

    most = noria.settings.max_file_mb * 1024 * 1024
    blob = await noria.blobs.put(pieces(), max_bytes=most)
    now = int(time.time())
    row = File(
        id=new_id("file-"),
        project_id=project_id,
        filename=filename,
        purpose=purpose,
        bytes=blob.size,
        sha256=blob.sha256,
        created_at=now,
        expires_at=now + lifetime_s if lifetime_s else None,
    )
    async with noria.blobs.references:
        if not await noria.blobs.exists(blob.sha256):  # the last other file of this content was deleted meanwhile
            await file.seek(0)
            await noria.blobs.put(pieces(), max_bytes=most)
        async with noria.database.write() as session:
            session.add(row)
    return row


@router.get("/v1/files", summary="List files")
async def list_files(
    caller: Data, noria: NoriaDep, cursor: FilesCursor, purpose: Annotated[str | None, Query(max_length=64)] = None
) -> dict[str, Any]:
    query = select(File).where(
        File.project_id == caller.project_id, or_(File.expires_at.is_(None), File.expires_at > int(time.time()))
    )
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    async with noria.database.read() as session:
        return listing(await page(session, query, File.id, cursor), show_file)


async def find_file(noria: NoriaDep, project_id: str, file_id: str) -> File:
    async with noria.database.read() as session:
        row = await session.get(File, file_id)
    if row is None or row.project_id != project_id or (row.expires_at is not None and row.expires_at < time.time()):
        raise NotFound(f"No file {file_id!r}.", param="file_id")
    return row


@router.get("/v1/files/{file_id}", summary="Get a file's facts")
async def get_file(file_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return show_file(await find_file(noria, caller.project_id, file_id))


@router.get("/v1/files/{file_id}/content", summary="Download a file", response_class=StreamingResponse)
async def get_file_content(file_id: str, caller: Data, noria: NoriaDep) -> StreamingResponse:
    row = await find_file(noria, caller.project_id, file_id)
    if not await noria.blobs.exists(row.sha256):
        raise NotFound(f"The content of the file {file_id} is gone.", param="file_id")
    return StreamingResponse(
        noria.blobs.pieces(row.sha256),
        media_type="application/octet-stream",
        headers={**attachment(row.filename), "content-length": str(row.bytes)},
    )


@router.delete("/v1/files/{file_id}", summary="Delete a file, also from every vector store")
async def delete_file(file_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    row = await find_file(noria, caller.project_id, file_id)
    await noria.knowledge.forget_file(row)
    return {"id": file_id, "object": "file", "deleted": True}
