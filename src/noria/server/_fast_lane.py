"""The three routes that carry the traffic, answered without the framework's dependency machinery.

FastAPI spends about a third of a relayed request's CPU on solving parameters. Here the same functions get the same arguments,
made directly: the framework's routes are the slow, obvious reference (and the documentation), a test holds the two together, and
whatever is unusual about a request (another method, another content type) goes there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from noria.errors import InvalidRequest, NoriaError
from noria.fields import faults

from ._chat import create_chat_completion, create_completion, create_embedding
from ._chat_bodies import Body, ChatBody, CompletionBody, EmbeddingBody
from ._deps import identify
from ._errors import bug_response, error_response, explain, gone_response, http_error_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from ._wiring import Noria

__all__ = ["LANES", "FastLane"]

LANES: dict[str, tuple[type[Body], Callable[..., Awaitable[Response]]]] = {
    "/v1/chat/completions": (ChatBody, create_chat_completion),
    "/v1/completions": (CompletionBody, create_completion),
    "/v1/embeddings": (EmbeddingBody, create_embedding),
}


class _Route:
    """What the root span reads of a route."""

    def __init__(self, path: str) -> None:
        self.path = path


_ROUTES = {path: _Route(path) for path in LANES}


class FastLane:
    def __init__(self, app: ASGIApp, noria: Noria) -> None:
        self._app, self._noria = app, noria

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lane = LANES.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        headers: dict[bytes, bytes] = dict(scope["headers"]) if lane is not None else {}
        if lane is None or not headers.get(b"content-type", b"").startswith(b"application/json") or b"x-slow-lane" in headers:
            await self._app(scope, receive, send)
            return
        scope["route"] = _ROUTES[scope["path"]]
        try:
            response = await self._answer(*lane, Request(scope, receive))
        except NoriaError as error:
            response = error_response(error)
        except ClientDisconnect:
            response = gone_response()
        except HTTPException as error:  # the client has left, or its body was too large
            response = http_error_response(error)
        except Exception as error:
            response = bug_response(error)
        await response(scope, receive, send)

    async def _answer(self, kind: type[Body], create: Callable[..., Awaitable[Response]], request: Request) -> Response:
        caller = identify(request.scope, "inference")
        data = await request.body()
        try:
            given: Any = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"The body is not valid JSON: {error.msg}.", code="invalid_json") from None
        try:
            body = kind.model_validate(given, from_attributes=True)
        except ValidationError as error:
            raise explain(faults(error), kind.refused) from None
        return await create(body, request, caller, self._noria)
