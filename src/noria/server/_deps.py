"""What routes take as parameters: the instance, the caller with a scope, a cursor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request
from opentelemetry import trace

from noria.access import Principal, Scope
from noria.store import Cursor, Page
from noria.tracing import semconv

from ._wiring import Noria

__all__ = ["Admin", "Data", "Inference", "ListCursor", "NoriaDep", "Spans", "Traces", "cursor_of", "identify", "listing"]


# Async although they await nothing: FastAPI sends plain functions to a thread, which costs more than they do.
async def _noria(request: Request) -> Noria:
    return request.app.state.noria


NoriaDep = Annotated[Noria, Depends(_noria)]


def identify(request: Mapping[str, Any], scope: Scope) -> Principal:
    """The caller whom the edge found (in a request's ASGI scope), named on the request's span. Raises PermissionDenied."""
    principal: Principal = request["noria.caller"]
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attribute(semconv.PROJECT, principal.project_id)
        if principal.key_id is not None:
            span.set_attribute(semconv.KEY_ID, principal.key_id)
    principal.require(scope)
    return principal


def _caller(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    async def caller(request: Request) -> Principal:
        return identify(request.scope, scope)

    return caller


Inference = Annotated[Principal, Depends(_caller("inference"))]
Data = Annotated[Principal, Depends(_caller("data"))]
Spans = Annotated[Principal, Depends(_caller("spans"))]
Traces = Annotated[Principal, Depends(_caller("traces"))]
Admin = Annotated[Principal, Depends(_caller("admin"))]


_Order = Literal["asc", "desc"]


def cursor_of(*, limit: int = 20, most: int = 1000, order: _Order = "desc") -> Callable[..., Awaitable[Cursor]]:
    """The dependency of a list with these defaults."""
    asked: Any = Query(limit, ge=1, le=most)  # as a default: names of here mean nothing in an annotation that is a text

    async def cursor(
        limit: int = asked,
        order: _Order = order,
        after: Annotated[str | None, Query(max_length=256)] = None,
        before: Annotated[str | None, Query(max_length=256)] = None,
    ) -> Cursor:
        return Cursor(limit, order, after, before)

    return cursor


ListCursor = Annotated[Cursor, Depends(cursor_of())]


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
