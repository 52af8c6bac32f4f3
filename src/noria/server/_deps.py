"""What routes take as parameters: the instance, the caller with a scope, a cursor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request
from opentelemetry import trace

from noria.access import Principal, Scope
from noria.store import Cursor, Page
from noria.tracing import semconv

from ._wiring import Noria

__all__ = ["Admin", "Data", "Inference", "ListCursor", "NoriaDep", "Spans", "Traces", "identify", "listing"]


# Async although they await nothing: FastAPI sends plain functions to a thread, which costs more than they do.
async def _noria(request: Request) -> Noria:
    return request.app.state.noria


NoriaDep = Annotated[Noria, Depends(_noria)]


async def identify(noria: Noria, authorization: str, scope: Scope) -> Principal:
    """The caller behind an Authorization header, counted against its rate limit and named on the request's span."""
    kind, _, token = authorization.partition(" ")
    principal = await noria.keys.authenticate(token.strip() if kind.lower() == "bearer" else None)
    principal.require(scope)
    if principal.key_id is not None:
        noria.limiter.take(principal.key_id, principal.requests_per_minute)
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attribute(semconv.PROJECT, principal.project_id)
        if principal.key_id is not None:
            span.set_attribute(semconv.KEY_ID, principal.key_id)
    return principal


def _caller(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    async def caller(request: Request) -> Principal:
        return await identify(request.app.state.noria, request.headers.get("authorization", ""), scope)

    return caller


Inference = Annotated[Principal, Depends(_caller("inference"))]
Data = Annotated[Principal, Depends(_caller("data"))]
Spans = Annotated[Principal, Depends(_caller("spans"))]
Traces = Annotated[Principal, Depends(_caller("traces"))]
Admin = Annotated[Principal, Depends(_caller("admin"))]


async def _cursor(
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(max_length=256)] = None,
    before: Annotated[str | None, Query(max_length=256)] = None,
) -> Cursor:
    return Cursor(limit, order, after, before)


ListCursor = Annotated[Cursor, Depends(_cursor)]


def listing(page: Page[Any], show: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """A page in OpenAI's list shape."""
    data = [show(row) for row in page.data]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": page.has_more,
    }
