"""The outermost layer, in plain ASGI: who calls, how often, and how much they may send. All before a body is read.

Whoever is refused here leaves no trace, only a count: strangers could fill the store of traces else. Plain ASGI because it wraps
every request. Knows nothing about routes' meaning; the scopes that they need are checked in `_deps.py`.
"""

from __future__ import annotations

import functools
import ipaddress
import time
import uuid
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from noria.access import Principal
from noria.errors import InvalidRequest, NoriaError, PayloadTooLarge, PermissionDenied
from noria.tracing import RequestOutcome

from ._errors import error_response
from ._fast_lane import LANES
from ._root_span import is_counted

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ._wiring import Noria

__all__ = ["Edge"]

_UPLOADS = ("/v1/files",)
_PUBLIC = frozenset({"/health", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
_NAMED = frozenset({*LANES, "/v1/responses"})
"""Routes that a refusal is counted under, where the caller is known; a stranger could be anywhere."""
_NOBODY = Principal(scopes=frozenset())


class Edge:
    """Refuses strangers, keys above their rate, and bodies that are too large; leaves the caller as `noria.caller` in the scope.

    While no API key exists, a stranger is whoever is not on this machine.
    """

    def __init__(self, app: ASGIApp, noria: Noria) -> None:
        self._app, self._noria = app, noria
        self._max_body = noria.settings.max_body_mb * 1024 * 1024
        self._max_file = noria.settings.max_file_mb * 1024 * 1024

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        try:
            headers = dict(scope["headers"])
            caller = scope["noria.caller"] = await self._caller(scope, headers)
            if caller.key_id is not None:
                self._noria.limiter.take(caller.key_id, caller.requests_per_minute)
            limit = self._max_file + 1024 * 1024 if scope["path"].startswith(_UPLOADS) else self._max_body
            receive = _limited(receive, headers, limit)
        except NoriaError as error:
            if is_counted(scope):
                route = scope["path"] if "noria.caller" in scope and scope["path"] in _NAMED else "unknown"
                self._noria.tracing.metrics.observe(RequestOutcome(route, "", error.status, time.perf_counter() - begun))
            response = error_response(error)
            response.headers["x-request-id"] = f"req_{uuid.uuid4().hex}"
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope, headers: dict[bytes, bytes]) -> Principal:
        keys = self._noria.keys
        if not await keys.exist():
            _require_loopback(scope, headers)
            return Principal()
        method = scope["method"]
        if method == "OPTIONS" or (method in {"GET", "HEAD"} and scope["path"] in _PUBLIC):
            return _NOBODY
        kind, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        return await keys.authenticate(token.strip() if kind.lower() == "bearer" else None)


def _limited(receive: Receive, headers: dict[bytes, bytes], limit: int) -> Receive:
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit():
        raise InvalidRequest("The Content-Length header is not a number.")
    if int(declared) > limit:
        raise _too_large(limit)
    if b"transfer-encoding" not in headers:
        return receive  # the server holds the sender to the declared length
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            # The framework's own kind: it wraps every other error that comes while a body is read.
            raise HTTPException(413, str(_too_large(limit)))
        return message

    return counted


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The request body is larger than {limit // (1024 * 1024)} MiB.", hint="The limits are max_body_mb and max_file_mb."
    )


def _require_loopback(scope: Scope, headers: dict[bytes, bytes]) -> None:
    """Without keys only this machine may call, and no web page may make its visitor's browser do it (DNS rebinding, CSRF)."""
    client: Any = scope.get("client")
    if client is not None and not _is_loopback(str(client[0])):
        raise PermissionDenied("Noria has no API key yet and serves this machine only.", hint="Run: noria keys create")
    host = headers.get(b"host", b"").decode("latin-1")
    if host and not _is_loopback(_hostname(host)):
        raise PermissionDenied(f"The Host header {host!r} is not this machine's.", hint="Use 127.0.0.1, or create an API key.")
    origin = headers.get(b"origin", b"").decode("latin-1")
    page = _hostname(origin.partition("://")[2])  # empty for `null`: a sandboxed frame or a file of anyone's
    if origin and not (page and _is_loopback(page)):
        raise PermissionDenied(f"Pages of {origin} may not call Noria while it has no API key.")


def _hostname(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


@functools.lru_cache(maxsize=1024)  # asked two or three times a request, and of few hosts
def _is_loopback(host: str) -> bool:
    if host in {"localhost", ""}:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
