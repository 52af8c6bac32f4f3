"""Routers whose JSON bodies are read strictly: no NaN, no lone surrogates, no nesting without end (and faster)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from ._errors import ERROR_RESPONSES

__all__ = ["new_router"]


class _StrictRequest(Request):
    async def json(self) -> Any:
        return orjson.loads(await self.body())  # its error is a json.JSONDecodeError, which becomes a 400


class _StrictRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


def new_router(tag: str, *, prefix: str = "") -> APIRouter:
    """A router with the errors of every route documented."""
    return APIRouter(prefix=prefix, tags=[tag], responses=ERROR_RESPONSES, route_class=_StrictRoute)
