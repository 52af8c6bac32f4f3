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
from noria.responses import Event, ResponseRequest, Running
from noria.store import Cursor
from noria.tracing import attach_payload, semconv

from ._deps import Data, Inference, NoriaDep, listing
from ._routers import new_router
from ._streams import EventStream, mark_failed, sse, while_connected

__all__ = ["router"]

router = new_router("Responses")

_LAST = {"response.completed", "response.incomplete", "response.failed"}
_GRACE_S = 2.0
"""For so long a stream waits for the model's first word, so that what fails at once has a status of its own. A cold start or a
long prompt takes longer, and clients that hear nothing give up and ask again."""


@router.post("/v1/responses", summary="Create a response")
async def create_response(body: ResponseRequest, request: Request, caller: Inference, noria: NoriaDep) -> Response:
    span = trace.get_current_span()
    attach_payload(span, input=body.model_dump(exclude_unset=True, by_alias=True))
    slot = noria.admission.enter()
    running: Running | None = None
    try:
        async with while_connected(request):
            running = await noria.responder.begin(body, caller.project_id, grace_s=_GRACE_S if body.stream else None)
    except BaseException:
        slot.leave()
        if running is not None:  # the client left just then
            await running.aclose()
        raise
    span.set_attribute(semconv.ROLLUP, True)  # its usage repeats what the model's call inside reports

    async def close() -> None:
        slot.leave()
        request.scope["noria.model"], request.scope["noria.observed"] = running.model, running.observed
        await running.aclose()

    if body.stream:
        return EventStream(_pieces(running, request, span), close)
    last: Event = {}
    try:
        async with while_connected(request):
            async for event in running.events:
                last = event
    finally:
        await close()
    attach_payload(span, output=last["response"])
    if running.error is not None:
        raise running.error
    return Response(orjson.dumps(last["response"]), media_type="application/json")


async def _pieces(running: Running, request: Request, span: Span) -> AsyncIterator[bytes]:
    async for event in running.events:
        if event["type"] in _LAST:
            attach_payload(span, output=event["response"])
            if (error := running.error) is not None:  # the status, sent long ago, says nothing of it
                mark_failed(request.scope, error)
        yield sse(orjson.dumps(event), event["type"])


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
    return listing(found, dict)
