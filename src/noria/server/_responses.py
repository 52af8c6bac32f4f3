"""/v1/responses. Source: https://platform.openai.com/docs/api-reference/responses"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import orjson
from fastapi import Query, Request
from fastapi.responses import Response
from opentelemetry import trace
from opentelemetry.trace import Span

from noria.errors import InvalidRequest
from noria.models import Observed, Usage
from noria.responses import Event, ResponseRequest
from noria.store import Cursor
from noria.tracing import attach_payload, semconv

from ._deps import Data, Inference, NoriaDep
from ._routers import new_router
from ._streams import EventStream, sse, while_connected

__all__ = ["router"]

router = new_router("Responses")


@router.post("/v1/responses", summary="Create a response")
async def create_response(body: ResponseRequest, request: Request, caller: Inference, noria: NoriaDep) -> Response:
    span = trace.get_current_span()
    attach_payload(span, input=body.model_dump(exclude_unset=True, by_alias=True))
    slot = noria.admission.enter()
    try:
        events = await noria.responder.prepare(body, caller.project_id)
    except BaseException:
        slot.leave()
        raise

    async def close() -> None:
        slot.leave()
        await events.aclose()

    if body.stream:

        async def pieces() -> AsyncIterator[bytes]:
            async for event in events:
                if "response" in event and event["type"] not in {"response.created", "response.in_progress"}:
                    _note(request, span, event["response"])
                yield sse(orjson.dumps(event), event["type"])

        return EventStream(pieces(), close)
    last: Event = {}
    try:
        async with while_connected(request):
            async for event in events:
                last = event
    finally:
        await close()
    _note(request, span, last["response"])
    return Response(orjson.dumps(last["response"]), media_type="application/json")


def _note(request: Request, span: Span, response: dict[str, Any]) -> None:
    """The finished response on the request's span, and its model and tokens for the counters."""
    attach_payload(span, output=response)
    span.set_attribute(semconv.ROLLUP, True)  # its usage repeats what the model calls inside report
    usage = response.get("usage") or {}
    tokens = Usage(input_tokens=usage.get("input_tokens", 0), output_tokens=usage.get("output_tokens", 0))
    request.scope["noria.model"], request.scope["noria.observed"] = response["model"], Observed(tokens)


@router.get("/v1/responses/{response_id}", summary="Get a response")
async def get_response(response_id: str, caller: Data, noria: NoriaDep, stream: bool = False) -> dict[str, Any]:
    if stream:
        raise InvalidRequest("Streaming a stored response again is not supported.", param="stream", code="unsupported_parameter")
    return (await noria.responder.stored.get(caller.project_id, response_id)).body


@router.delete("/v1/responses/{response_id}", summary="Delete a response")
async def delete_response(response_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    await noria.responder.stored.delete(caller.project_id, response_id)
    return {"id": response_id, "object": "response", "deleted": True}


@router.get("/v1/responses/{response_id}/input_items", summary="List a response's input items")
async def list_input_items(
    response_id: str,
    caller: Data,
    noria: NoriaDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(max_length=256)] = None,
) -> dict[str, Any]:
    found = await noria.responder.stored.input_items(caller.project_id, response_id, Cursor(limit, order, after))
    data = list(found.data)
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": found.has_more,
    }
