"""Errors on the wire, in OpenAI's shape, so that the official clients raise their own exception classes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from noria.errors import InvalidRequest, NoriaError, UnsupportedField
from noria.fields import shorten
from noria.models import HOPELESS

__all__ = [
    "ERROR_RESPONSES",
    "bug_response",
    "error_bytes",
    "error_response",
    "explain",
    "gone_response",
    "http_error_response",
    "install",
]

_log = logging.getLogger("noria.server")

ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": ERROR_SCHEMA}}}
    for status, text in {
        400: "The request is wrong; `param` names the field.",
        401: "No or an unknown API key.",
        403: "The key lacks the scope, or the caller is not allowed here.",
        404: "No such thing.",
        405: "The route has no such method.",
        409: "The state does not allow it.",
        413: "Too large.",
        429: "Too many requests; see Retry-After.",
        500: "A bug in Noria.",
        501: "Not built, or an extra is missing; the message says which.",
        502: "A remote model failed.",
        503: "Not ready; see Retry-After.",
        504: "A model did not answer in time.",
    }.items()
}


def error_response(error: NoriaError) -> Response:
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.code in HOPELESS:
        headers["x-should-retry"] = "false"  # OpenAI's clients heed it; of themselves they ask again after any 5xx
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(error_bytes(error), error.status, headers, "application/json")


def error_bytes(error: NoriaError) -> bytes:
    return orjson.dumps({"error": error.to_dict()})


def install(app: FastAPI) -> None:
    """Every failure leaves in OpenAI's shape, also those that the framework makes."""

    @app.exception_handler(NoriaError)
    async def on_noria(_: Request, error: NoriaError) -> Response:  # pyright: ignore[reportUnusedFunction]
        if error.status >= 500:
            _log.warning("%s: %s", type(error).__name__, error)
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:  # pyright: ignore[reportUnusedFunction]
        return error_response(explain(error.errors(), _refused(request)))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:  # pyright: ignore[reportUnusedFunction]
        if isinstance(error.__cause__, ClientDisconnect):  # the framework wraps whatever happens while it reads a body
            return gone_response()
        message = {
            404: f"Unknown route: {request.method} {request.url.path}.",
            405: f"{request.url.path} has no {request.method}.",
        }.get(error.status_code)
        return http_error_response(error, message)

    @app.exception_handler(ClientDisconnect)
    async def on_gone(_: Request, error: ClientDisconnect) -> Response:  # pyright: ignore[reportUnusedFunction]
        return gone_response()

    @app.exception_handler(Exception)
    async def on_bug(_: Request, error: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        return bug_response(error)


def http_error_response(error: HTTPException, message: str | None = None) -> Response:
    """An error of the framework's own kind, in OpenAI's shape."""
    body = {"message": message or str(error.detail), "type": "invalid_request_error", "param": None, "code": None}
    return Response(orjson.dumps({"error": body}), error.status_code, dict(error.headers or {}), "application/json")


def gone_response() -> Response:
    """For a client that left before its request was read: nobody gets it, but spans and counters say what happened."""
    return http_error_response(HTTPException(499, "The client closed the connection."))


def bug_response(error: Exception) -> Response:
    """What a failure that nobody expected answers; the log has its traceback."""
    _log.error("A bug", exc_info=error)
    message = "Noria failed in an unexpected way; its log says more."
    body = {"message": message, "type": "server_error", "param": None, "code": None}
    return Response(orjson.dumps({"error": body}), 500, None, "application/json")


def _refused(request: Request) -> Mapping[str, str]:
    route = request.scope.get("route")
    field = getattr(route, "body_field", None)
    annotation = getattr(getattr(field, "field_info", None), "annotation", None)
    return getattr(annotation, "refused", {})


def explain(errors: Sequence[Mapping[str, Any]], refused: Mapping[str, str]) -> NoriaError:
    """The first thing wrong, named by its path in the body (`messages[0].role`)."""
    first = _most_telling(errors)
    path = _path(first["loc"])
    kind = str(first["type"])
    if kind == "json_invalid":
        return InvalidRequest(f"The body is not valid JSON: {first.get('ctx', {}).get('error', '')}.", code="invalid_json")
    if kind == "extra_forbidden":
        if path in refused:
            return UnsupportedField(f"{path} is not supported: {refused[path]}.", param=path)
        return InvalidRequest(f"Unknown field: {path}.", param=path, code="unknown_parameter")
    if kind == "missing":
        return InvalidRequest(f"{path or 'The body'} is missing.", param=path or None, code="missing_required_parameter")
    shown = shorten(first.get("input"))
    return InvalidRequest(f"{path or 'The body'} = {shown}: {first['msg']}.", param=path or None, code="invalid_value")


def _most_telling(errors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of a union's many complaints, an unknown field says most, then the deepest path."""
    return max(errors, key=lambda e: (e["type"] == "extra_forbidden", len(e["loc"])))


def _path(location: Sequence[Any]) -> str:
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part not in {"body", "query", "path", "header"} and not _is_union_tag(part):
            text += f".{part}" if text else str(part)
    return text


def _is_union_tag(part: str) -> bool:
    """Pydantic puts the branch of a union into the path; people never wrote it."""
    return part in _TAGS or part.startswith(("list[", "function-", "constrained-", "dict[", "literal[")) or part[:1].isupper()


_TAGS = {
    "str", "int", "float", "bool", "system", "developer", "user", "assistant", "tool", "text", "json_object", "json_schema",
    "image_url", "refusal", "message", "function_call", "function_call_output", "file_search_call", "item_reference",
    "input_text", "input_image", "output_text", "function", "file_search", "static", "auto", "is-instance",
}  # fmt: skip
