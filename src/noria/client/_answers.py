"""An answer of the API as its JSON, or as the error of `noria.errors` that it carries, whoever wrote it (a proxy's HTML too)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from noria import errors

__all__ = ["error_from", "event_error", "json_of", "no_noria"]

_BY_STATUS: dict[int, type[errors.NoriaError]] = {
    400: errors.InvalidRequest,
    401: errors.AuthenticationFailed,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.PayloadTooLarge,
    429: errors.RateLimited,
    501: errors.NotBuilt,
    502: errors.UpstreamError,
    503: errors.Unavailable,
    504: errors.UpstreamTimeout,
}


def json_of(url: str, status: int, content: bytes, headers: Mapping[str, str]) -> Any:
    """The JSON of an answer, None for an empty one. Raises the error that it carries, or says that `url` is no Noria."""
    if not 200 <= status < 300:
        raise error_from(url, status, content, headers)
    if not content:
        return None
    try:
        return json.loads(content)
    except ValueError:
        raise no_noria(url, "its answer is not JSON") from None


def error_from(url: str, status: int, content: bytes, headers: Mapping[str, str]) -> errors.NoriaError:
    """The error of an answer whose status is no success."""
    if status < 400:
        to = headers.get("location")
        return no_noria(url, f"it sends callers on to {to}" if to else f"it answers {status}")
    try:
        body = json.loads(content)["error"]
        message, param, code = str(body["message"]), body.get("param"), body.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        text = " ".join(content.decode("utf-8", "replace").split())
        message, param, code = f"The server answered {status}: {text[:200] or 'nothing'}", None, None
    retry = headers.get("retry-after", "")
    retry_after_s = float(retry) if retry.isdecimal() else None
    return _BY_STATUS.get(status, errors.NoriaError)(message, param=param, code=code, retry_after_s=retry_after_s)


def no_noria(url: str, why: str) -> errors.UpstreamError:
    """For an answer that Noria would not give."""
    return errors.UpstreamError(f"This is not a Noria server: {url} ({why}).", hint="Is the address right, with its port?")


def event_error(event: Any) -> errors.UpstreamError | None:
    """The error that ends a stream: chat's `{"error": {…}}`, or the Responses API's event of the type `error`."""
    if not isinstance(event, dict):
        return None
    found: Any = event if event.get("type") == "error" else None if "type" in event else event.get("error")
    if not found:
        return None
    if not isinstance(found, dict):
        return errors.UpstreamError(str(found))
    return errors.UpstreamError(str(found.get("message") or found), param=found.get("param"), code=found.get("code"))
