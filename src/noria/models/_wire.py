"""One HTTP client for every upstream that speaks OpenAI's wire format, over TCP or a Unix socket.

Turns what goes wrong into Noria's errors and hands successful bodies on as bytes. Never follows redirects (a redirect
could point inside). For a stream the first piece is awaited before success is reported, so that a caller may still retry.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.request import getproxies

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from noria.access import check_public_url
from noria.errors import (
    ContextTooLong,
    InvalidRequest,
    NoriaError,
    NotFound,
    RateLimited,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)

__all__ = ["Answer", "Target", "WireClient"]

_MAX_ERROR_BYTES = 64 * 1024
_MAX_ANSWER_BYTES = 256 * 1024 * 1024  # what one answer may cost in memory; the largest batch of embeddings is a tenth of it


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send: `url` is the full address; over `socket_path` its host is only a name. `label` is for messages.

    Connections to a socket of an earlier `generation` (the engine has restarted since) are dropped.
    """

    url: str
    label: str
    headers: Mapping[str, str]
    socket_path: str | None = None
    generation: int = 0
    public_only: bool = False
    local: bool = False


@dataclass(slots=True)
class Answer:
    pieces: AsyncIterator[bytes]
    headers: Mapping[str, str]
    close: Callable[[], Awaitable[None]]


class _PublicResolver(AbstractResolver):
    """Resolves a name and refuses it when any address is not public: what was checked is what is connected to."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        addresses = await check_public_url(f"http://{host}:{port}", param="base_url")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        return


class WireClient:
    """Keeps connections open; close with `aclose()`."""

    def __init__(self, *, connect_timeout_s: float = 10.0) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._places: dict[str, tuple[str | None, bool, int]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def _session(self, target: Target) -> aiohttp.ClientSession:
        # An engine has connections of its own: those of its last life are dropped, and nobody else's.
        key = f"engine {target.label}" if target.local else "public" if target.public_only else "any"
        place = (target.socket_path, target.public_only, target.generation if target.local else 0)
        session = self._sessions.get(key)
        if session is not None and self._places[key] != place:
            task = asyncio.ensure_future(session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            session = None
        if session is None or session.closed:
            session = _new_session(target)
            self._sessions[key] = session
            self._places[key] = place
        return session

    async def post(self, target: Target, body: bytes, *, timeout_s: float, stream: bool) -> Answer:
        """Sends one JSON body. Raises a NoriaError unless the upstream answered 2xx (and, streaming, sent a first piece)."""
        if target.public_only:
            await _refuse_private_literal(target.url)
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=self._connect_timeout_s)
        headers = {"content-type": "application/json", **target.headers}
        try:
            response = await self._send(target, body, headers, timeout)
        except TimeoutError:
            raise _too_slow(target, timeout_s) from None
        except NoriaError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(target, error) from None
        if response.status // 100 != 2:
            try:
                text = await response.content.read(_MAX_ERROR_BYTES)
            except (aiohttp.ClientError, TimeoutError, OSError):
                text = b""
            response.close()
            raise _explain(target, response.status, text, response.headers.get("retry-after"))
        if not stream:
            return _answer(target, response)
        try:
            return await _begin(target, response)
        except TimeoutError:
            raise _too_slow(target, timeout_s) from None

    async def _send(
        self, target: Target, body: bytes, headers: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Again, once, where an engine closed a connection that it had kept open, just as this request was on its way."""
        for attempt in (1, 2):
            try:
                return await self._session(target).post(
                    target.url, data=body, headers=headers, timeout=timeout, allow_redirects=False
                )
            except (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError):
                if attempt == 2 or not target.local:
                    raise
        raise AssertionError("unreachable: the second attempt returns or raises")

    async def get_json(self, target: Target, *, timeout_s: float = 10.0) -> Any:
        return await self._json("GET", target, timeout_s)

    async def delete_json(self, target: Target, *, timeout_s: float = 10.0) -> Any:
        return await self._json("DELETE", target, timeout_s)

    async def _json(self, method: str, target: Target, timeout_s: float) -> Any:
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session(target).request(
                method, target.url, headers=dict(target.headers), timeout=timeout, allow_redirects=False
            ) as response:
                data = await response.read()
                if response.status // 100 != 2:
                    raise _explain(target, response.status, data, response.headers.get("retry-after"))
                return orjson.loads(data)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(target, error) from None
        except orjson.JSONDecodeError:
            raise UpstreamError(f"{target.label} answered with something that is not JSON.") from None

    async def aclose(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()


def _new_session(target: Target) -> aiohttp.ClientSession:
    if target.socket_path:
        connector: aiohttp.BaseConnector = aiohttp.UnixConnector(target.socket_path, limit=0)
    else:
        resolver = _PublicResolver() if target.public_only else None
        connector = aiohttp.TCPConnector(limit=0, resolver=resolver, ttl_dns_cache=60, keepalive_timeout=60)
    # Looking for a proxy in the environment costs aiohttp a thread a request: only where there is one to find.
    proxied = not target.local and bool(getproxies())
    return aiohttp.ClientSession(
        connector=connector, auto_decompress=True, cookie_jar=aiohttp.DummyCookieJar(), trust_env=proxied
    )


async def _begin(target: Target, response: aiohttp.ClientResponse) -> Answer:
    """A streamed answer whose first piece has come."""
    try:
        first = await anext(response.content.iter_any(), b"")
    except BaseException as error:
        response.close()
        if isinstance(error, (aiohttp.ClientError, OSError)) and not isinstance(error, TimeoutError):
            raise _unreachable(target, error) from None
        raise
    return _answer(target, response, first)


def _answer(target: Target, response: aiohttp.ClientResponse, first: bytes = b"") -> Answer:
    async def close() -> None:
        response.close()

    async def pieces() -> AsyncIterator[bytes]:
        if first:
            yield first
        size = len(first)
        try:
            async for piece in response.content.iter_any():
                size += len(piece)
                if size > _MAX_ANSWER_BYTES:
                    response.close()
                    raise UpstreamError(f"{target.label} sent more than {_MAX_ANSWER_BYTES // 2**20} MiB for one answer.")
                yield piece
        except TimeoutError:
            raise UpstreamTimeout(f"{target.label} stopped in the middle of its answer.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(target, error, begun=True) from None

    return Answer(pieces(), response.headers, close)


async def _refuse_private_literal(url: str) -> None:
    """Addresses are not resolved, so the resolver never sees them. The host is read as the client will read it."""
    host = URL(url).host or ""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        await check_public_url(f"http://[{host}]" if ":" in host else f"http://{host}", param="base_url")


def _too_slow(target: Target, timeout_s: float) -> UpstreamTimeout:
    return UpstreamTimeout(f"{target.label} did not answer within {timeout_s:.0f} s.", retry_after_s=5)


def _unreachable(target: Target, error: Exception, *, begun: bool = False) -> NoriaError:
    if target.local:
        what = "stopped in the middle of its answer" if begun else "went away before it answered"
        return Unavailable(
            f"The engine of {target.label} {what}; it is being restarted.", code="engine_restarting", retry_after_s=2
        )
    if isinstance(error.__cause__ or error, NoriaError):
        return error.__cause__ or error  # type: ignore[return-value]
    what = "broke off" if begun else "cannot be reached"
    return UpstreamError(f"{target.label} {what}: {error or type(error).__name__}.", hint="Check its base URL and the network.")


def _explain(target: Target, status: int, body: bytes, retry_after: str | None) -> NoriaError:
    message, param, code = _error_fields(body)
    wait_s = _seconds(retry_after)
    said = f"{target.label}: {message}" if message else f"{target.label} answered {status}."
    if target.local and status == 400:
        said = message or said
    if status in {400, 404, 413, 422}:
        if code == "context_length_exceeded":
            return ContextTooLong(said, param=param)
        kind = NotFound if status == 404 else InvalidRequest
        return kind(said, param=param, code=code)
    if status in {401, 403}:
        hint = "Set its key: in the environment, or with `noria config credential`, by the provider's name or the card's address."
        return UpstreamError(said, code="upstream_authentication", hint=hint)
    if status == 429:
        return RateLimited(said, retry_after_s=wait_s, code=code or "rate_limit_exceeded")
    if status in {408, 504}:
        return UpstreamTimeout(said, retry_after_s=wait_s)
    if status == 503 or (target.local and status >= 500):
        return Unavailable(said, retry_after_s=wait_s or 1)
    if 300 <= status < 400:
        message = f"{target.label} answered with a redirect ({status}), which is not followed."
        return UpstreamError(message, code="upstream_refused")
    if 400 <= status < 500:  # no credit (402), a conflict, a request it will not have: asking again changes nothing
        return UpstreamError(said, code="upstream_refused", hint=f"Its status was {status}.")
    return UpstreamError(said, retry_after_s=wait_s)


def _error_fields(body: bytes) -> tuple[str | None, str | None, str | None]:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body[:300].decode("utf-8", "replace").strip()
        return text or None, None, None
    error = data.get("error", data) if isinstance(data, dict) else data
    if not isinstance(error, dict):
        return str(error)[:300], None, None
    param, code = error.get("param"), error.get("code")
    message = error.get("message") or error.get("detail")
    return str(message)[:2000] if message else None, param if isinstance(param, str) else None, str(code) if code else None


def _seconds(text: str | None) -> float | None:
    try:
        return min(600.0, max(0.0, float(text))) if text else None
    except ValueError:
        return None
