"""What a response is asked on top of: earlier responses, by following `previous_response_id`, and stored rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from pydantic import TypeAdapter
from sqlalchemy import Text, cast, delete, or_, select

from noria.errors import InvalidRequest, NotFound
from noria.messages import InputItem, ItemReference, MessageItem
from noria.store import Cursor, Database, Page, StoredResponse, new_id

__all__ = ["ResponseStore"]

_MAX_TURNS = 1000
_ITEMS: TypeAdapter[list[Any]] = TypeAdapter(list[InputItem])
_MAX_REFERENCES = 100
_LONGEST_MS = 3_600_000  # between a response's id and those of its items
_MADE_HERE = re.compile(r"[a-z]+_(?P<time>[0-9a-f]{12})[0-9a-f]{20}")
_OUTPUT_TYPES = {"message", "function_call", "file_search_call"}


class ResponseStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, project_id: str, response_id: str) -> StoredResponse:
        async with self._database.read() as session:
            row = await session.get(StoredResponse, response_id)
        if row is None or row.project_id != project_id:
            raise NotFound(
                f"No response {response_id!r}.", param="response_id", hint="Responses made with `store: false` are not kept."
            )
        return row

    async def history(self, project_id: str, previous_id: str | None) -> tuple[list[Any], str | None]:
        """The items of all turns before, oldest first (each turn's own input, then its output), and the first turn's id."""
        turns: list[StoredResponse] = []
        while previous_id is not None:
            if len(turns) >= _MAX_TURNS:
                raise InvalidRequest(f"The conversation has more than {_MAX_TURNS} turns.", param="previous_response_id")
            try:
                row = await self.get(project_id, previous_id)
            except NotFound:
                raise NotFound(
                    f"Previous response with id {previous_id!r} not found.",
                    param="previous_response_id",
                    code="previous_response_not_found",
                ) from None
            turns.append(row)
            previous_id = row.previous_id
        raw: list[dict[str, Any]] = []
        for row in reversed(turns):
            raw += row.input_items
            raw += [item for item in row.body["output"] if item["type"] in _OUTPUT_TYPES and not _is_cut_call(item)]
        return _ITEMS.validate_python(raw), turns[-1].id if turns else None

    async def resolve_references(self, project_id: str, items: Sequence[Any]) -> list[Any]:
        """Input items with each `item_reference` replaced by the stored item that it names."""
        num_references = sum(isinstance(item, ItemReference) for item in items)
        if num_references > _MAX_REFERENCES:
            raise InvalidRequest(
                f"input has {num_references} item references; {_MAX_REFERENCES} are allowed.",
                param="input",
                hint="`previous_response_id` brings a whole conversation.",
            )
        out: list[Any] = []
        for item in items:
            if isinstance(item, ItemReference):
                out += _ITEMS.validate_python([await self._find_item(project_id, item.id)])
            else:
                out.append(item)
        return out

    async def _find_item(self, project_id: str, item_id: str) -> dict[str, Any]:
        """Ids tell the time, and an item is made while its response is: so few rows can hold it, next to each other."""
        if (made := _MADE_HERE.fullmatch(item_id)) is not None:
            made_ms = int(made["time"], 16)
            quoted = f'"{item_id}"'
            query = select(StoredResponse).where(
                StoredResponse.project_id == project_id,
                StoredResponse.id >= f"resp_{max(0, made_ms - _LONGEST_MS):012x}",
                StoredResponse.id < f"resp_{made_ms + 1:012x}",
                or_(*(cast(column, Text).contains(quoted) for column in (StoredResponse.body, StoredResponse.input_items))),
            )
            async with self._database.read() as session:
                async for row in await session.stream_scalars(query.order_by(StoredResponse.id.desc())):
                    for item in [*row.body["output"], *row.input_items]:
                        if item.get("id") == item_id:
                            return item
        raise NotFound(
            f"No item {item_id!r} in any stored response.", param="input", hint="Responses made with `store: false` are not kept."
        )

    async def save(
        self, project_id: str, response_id: str, previous_id: str | None, items: Sequence[Any], body: dict[str, Any]
    ) -> None:
        context = trace.get_current_span().get_span_context()
        row = StoredResponse(
            id=response_id,
            project_id=project_id,
            previous_id=previous_id,
            input_items=[_with_id(item) for item in items],
            body=body,
            trace_id=f"{context.trace_id:032x}" if context.is_valid else None,
        )
        async with self._database.write() as session:
            session.add(row)

    async def delete(self, project_id: str, response_id: str) -> None:
        row = await self.get(project_id, response_id)
        async with self._database.write() as session:
            await session.execute(delete(StoredResponse).where(StoredResponse.id == row.id))

    async def input_items(self, project_id: str, response_id: str, cursor: Cursor) -> Page[dict[str, Any]]:
        """The items of one turn, as OpenAI lists them (content as parts)."""
        row = await self.get(project_id, response_id)
        items = [_listed(item) for item in row.input_items]
        if cursor.order == "desc":
            items.reverse()
        start = 0
        if cursor.after is not None:
            names = [item["id"] for item in items]
            if cursor.after not in names:
                raise InvalidRequest(f"The response has no input item {cursor.after!r}.", param="after")
            start = names.index(cursor.after) + 1
        return Page(items[start : start + cursor.limit], start + cursor.limit < len(items))


def _is_cut_call(item: dict[str, Any]) -> bool:
    """Whether a model was stopped in the middle of a call: nobody can answer that, and models refuse calls without outputs."""
    return item["type"] == "function_call" and item.get("status") == "incomplete"


def _with_id(item: Any) -> dict[str, Any]:
    data: dict[str, Any] = item.model_dump(exclude_none=True)
    prefix = {"function_call": "fc_", "function_call_output": "fco_"}.get(data["type"], "msg_")
    return {"id": new_id(prefix), **data} if not data.get("id") else data


def _listed(item: dict[str, Any]) -> dict[str, Any]:
    if item["type"] == "message" and isinstance(item["content"], str):
        kind = "output_text" if item["role"] == "assistant" else "input_text"
        part: dict[str, Any] = {"type": kind, "text": item["content"]}
        if kind == "output_text":
            part |= {"annotations": [], "logprobs": []}
        return {"status": "completed", **item, "content": [part]}
    return {"status": "completed", **item}


def as_items(given: str | Sequence[Any] | None) -> list[Any]:
    """The `input` of a request as items."""
    if given is None:
        return []
    return [MessageItem(role="user", content=given)] if isinstance(given, str) else list(given)
