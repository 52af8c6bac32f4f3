"""Stored chat completions: saved before the last byte leaves; listed, read, updated and deleted.

Source: https://platform.openai.com/docs/api-reference/chat/list
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from opentelemetry import trace
from sqlalchemy import select

from noria.errors import InvalidRequest, NotFound
from noria.models import Usage
from noria.store import Completion, Cursor, Database, Page, has_entries, page
from noria.tracing import assemble

from ._chat_bodies import Body, Metadata
from ._deps import Data, NoriaDep, cursor_of, listing
from ._routers import new_router

__all__ = ["StoredCall", "router"]

router = new_router("Stored completions")

OldestFirst = Annotated[Cursor, Depends(cursor_of(order="asc"))]


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A completion that its caller wants kept."""

    database: Database
    project_id: str
    request: dict[str, Any]
    metadata: dict[str, str]

    async def save(self, response: dict[str, Any], model: str) -> None:
        context = trace.get_current_span().get_span_context()
        row = Completion(
            id=response["id"],
            project_id=self.project_id,
            model=model,
            request=self.request,
            response=response,
            meta=self.metadata,
            trace_id=f"{context.trace_id:032x}" if context.is_valid else None,
        )
        async with self.database.write() as session:
            session.add(row)

    async def save_stream(self, stream: bytes, completion_id: str, model: str, usage: Usage) -> None:
        answer = assemble(stream, "chat")
        choices: list[dict[str, Any]] = []
        for index, message in enumerate(answer.messages):
            reason = message.pop("finish_reason", None)
            choices.append({"index": index, "message": message, "finish_reason": reason, "logprobs": None})
        response = {
            "id": completion_id,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": choices,
            "usage": {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "total_tokens": usage.input_tokens + usage.output_tokens,
                "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
            },
            "metadata": self.metadata,
        }
        await self.save(response, model)


class UpdateBody(Body):
    """POST /v1/chat/completions/{completion_id}."""

    metadata: Metadata | None


def _metadata_query(request: Request) -> dict[str, str]:
    """`metadata[key]=value`, as the official client sends it."""
    pairs = request.query_params.multi_items()
    return {name[9:-1]: value for name, value in pairs if name.startswith("metadata[") and name.endswith("]")}


def _show(row: Completion) -> dict[str, Any]:
    return {**row.response, "metadata": row.meta}


@router.get("/v1/chat/completions", summary="List stored chat completions")
async def list_completions(
    request: Request,
    caller: Data,
    noria: NoriaDep,
    cursor: OldestFirst,
    model: Annotated[str | None, Query(max_length=256)] = None,
) -> dict[str, Any]:
    query = select(Completion).where(Completion.project_id == caller.project_id)
    if model is not None:
        query = query.where(Completion.model == model)
    query = query.where(*has_entries(Completion.meta, _metadata_query(request)))
    async with noria.database.read() as session:
        return listing(await page(session, query, Completion.id, cursor), _show)


async def _find(noria: NoriaDep, project_id: str, completion_id: str) -> Completion:
    async with noria.database.read() as session:
        row = await session.get(Completion, completion_id)
    if row is None or row.project_id != project_id:
        raise NotFound(
            f"No stored completion {completion_id!r}.",
            param="completion_id",
            hint="Only completions made with `store: true` are kept.",
        )
    return row


@router.get("/v1/chat/completions/{completion_id}", summary="Get a stored chat completion")
async def get_completion(completion_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return _show(await _find(noria, caller.project_id, completion_id))


@router.get("/v1/chat/completions/{completion_id}/messages", summary="List the messages of a stored chat completion")
async def list_messages(completion_id: str, caller: Data, noria: NoriaDep, cursor: OldestFirst) -> dict[str, Any]:
    row = await _find(noria, caller.project_id, completion_id)
    messages = [{"id": f"{row.id}-{index}", **message} for index, message in enumerate(row.request.get("messages", []))]
    if cursor.order == "desc":
        messages.reverse()
    places = {message["id"]: place for place, message in enumerate(messages)}
    start = _place(places, cursor.after, "after") + 1 if cursor.after is not None else 0
    end = _place(places, cursor.before, "before") if cursor.before is not None else len(messages)
    found = messages[start:end]
    backwards = cursor.before is not None and cursor.after is None  # then those next to the cursor
    shown = found[-cursor.limit :] if backwards else found[: cursor.limit]
    return listing(Page(shown, len(found) > len(shown)), lambda message: message)


def _place(places: dict[str, int], message_id: str, param: str) -> int:
    if message_id not in places:
        raise InvalidRequest(f"The completion has no message {message_id!r}.", param=param)
    return places[message_id]


@router.post("/v1/chat/completions/{completion_id}", summary="Update a stored chat completion's metadata")
async def update_completion(completion_id: str, body: UpdateBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    await _find(noria, caller.project_id, completion_id)
    async with noria.database.write() as session:
        row = await session.get_one(Completion, completion_id)
        row.meta = dict(body.metadata or {})
    return _show(row)


@router.delete("/v1/chat/completions/{completion_id}", summary="Delete a stored chat completion")
async def delete_completion(completion_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    await _find(noria, caller.project_id, completion_id)
    await noria.forgetting.completion(caller.project_id, completion_id)
    return {"object": "chat.completion.deleted", "id": completion_id, "deleted": True}
