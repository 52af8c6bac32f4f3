"""The console's outermost layer, in plain ASGI: who may call, and a policy that keeps the page from calling out.

Without it any page in the user's browser could drive a console on loopback (DNS rebinding, cross-site WebSockets), and a
picture in a model's Markdown could carry data away.
"""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ConsoleEdge", "is_loopback"]

# Vue compiles templates in the browser, which needs unsafe-eval; NiceGUI's page has inline scripts and styles. Everything that
# would leave this origin is off: no picture, frame, form or connection to elsewhere.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; frame-src 'none'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, `127.0.0.1.evil.example` among them
        return False


class ConsoleEdge:
    """`loopback` says that the console listens on loopback only, where any other Host is a trick."""

    def __init__(self, app: ASGIApp, *, loopback: bool) -> None:
        self._app, self._loopback = app, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        if (reason := self._refuse(scope)) is not None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 4403, "reason": reason})
            else:
                await PlainTextResponse(reason, 403)(scope, receive, send)
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        await self._app(scope, receive, sealed)

    def _refuse(self, scope: Scope) -> str | None:
        headers: dict[bytes, Any] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self._loopback and host and not is_loopback(_name(host)):
            return f"The Host header {host!r} is not this machine's."
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and urlsplit(origin).netloc != host:
            return f"Pages of {origin} may not use this console."
        return None


def _name(host: str) -> str:
    return urlsplit(f"//{host}").hostname or ""
