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
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from noria.access import check_public_url
from noria.engines import Endpoint
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

__all__ = ["Answer", "Target", "WireClient", "engine_target"]

_MAX_ERROR_BYTES = 64 * 1024
_ERROR_BODY_S = 10.0  # nobody waits longer for the words of a failure that is known already
_MAX_ANSWER_BYTES = 256 * 1024 * 1024  # what one answer may cost in memory; the largest batch of embeddings is a tenth of it


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send: `url` is the full address; over `socket_path` its host is only a name. `label` is for messages.

    Connections to a socket of an earlier `generation` (the engine has restarted since) are dropped. `public_only` refuses
    addresses that are not public: direct connections go to the address that was checked. Through a proxy of the server's
    environment the name is checked before it is handed over; what it leads to there, the proxy decides.
    """

    url: str
    label: str
    headers: Mapping[str, str]
    socket_path: str | None = None
    generation: int = 0
    public_only: bool = False
    local: bool = False


def engine_target(
    endpoint: Endpoint, path: str, headers: Mapping[str, str] | None = None, *, public_only: bool = False
) -> Target:
    """A route of a leased engine."""
    socket_path = str(endpoint.socket_path) if endpoint.socket_path else None
    url = f"{endpoint.base_url}{path}"
    return Target(url, endpoint.name, headers or {}, socket_path, endpoint.generation, public_only=public_only, local=True)


@dataclass(slots=True)
class Answer:
    pieces: AsyncIterator[bytes]
    headers: Mapping[str, str]
    close: Callable[[], Awaitable[None]]


class _PublicResolver(AbstractResolver):
    """Resolves a name and refuses it when any address is not public: what was checked is what is connected to."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        addresses = await _public_addresses(host, port)
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

    def _session(self, target: Target, proxy: str | None = None) -> aiohttp.ClientSession:
        # An engine has connections of its own: those of its last life are dropped, and nobody else's.
        kind = "proxied" if proxy else "public" if target.public_only else "any"
        key = f"engine {target.label}" if target.local else kind
        place = (target.socket_path, target.public_only, target.generation if target.local else 0)
        session = self._sessions.get(key)
        if session is not None and self._places[key] != place:
            task = asyncio.ensure_future(session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            session = None
        if session is None or session.closed:
            session = _new_session(target, guarded=target.public_only and proxy is None)
            self._sessions[key] = session
            self._places[key] = place
        return session

    async def post(self, target: Target, body: bytes, *, timeout_s: float, stream: bool) -> Answer:
        """Sends one JSON body. Raises a NoriaError unless the upstream answered 2xx (and, streaming, sent a first piece)."""
        return await self._call("POST", target, body, timeout_s=timeout_s, stream=stream)

    async def ask(self, target: Target, body: Any = None, *, method: str = "POST", timeout_s: float = 10.0) -> Any:
        """JSON for JSON, whole. Raises as `post`, and UpstreamError where the answer is not JSON."""
        sent = None if body is None else orjson.dumps(body)
        answer = await self._call(method, target, sent, timeout_s=timeout_s, stream=False)
        try:
            return orjson.loads(b"".join([piece async for piece in answer.pieces]))
        except orjson.JSONDecodeError:
            raise UpstreamError(f"{target.label} answered with something that is not JSON.") from None

    async def _call(self, method: str, target: Target, body: bytes | None, *, timeout_s: float, stream: bool) -> Answer:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=self._connect_timeout_s)
        try:
            response = await self._send(method, target, body, timeout)
        except aiohttp.ConnectionTimeoutError:
            waited_s = min(timeout_s, self._connect_timeout_s)
            raise UpstreamTimeout(f"{target.label} took no connection within {waited_s:.1f} s.", retry_after_s=5) from None
        except TimeoutError:
            raise _too_slow(target, timeout_s) from None
        except NoriaError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(target, error) from None
        if response.status // 100 != 2:
            raise _explain(target, response.status, await _error_body(response), response.headers.get("retry-after"))
        if not stream:
            return _answer(target, response)
        try:
            return await _begin(target, response)
        except TimeoutError:
            raise _too_slow(target, timeout_s) from None

    async def _send(
        self, method: str, target: Target, body: bytes | None, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Again, once, where an engine closed a connection that it had kept open, just as this request was on its way."""
        async with asyncio.timeout(timeout.total):
            proxy = await _check_public(target) if target.public_only else None
        headers = {"content-type": "application/json", **target.headers}
        for attempt in (1, 2):
            try:
                return await self._session(target, proxy).request(
                    method, target.url, data=body, headers=headers, timeout=timeout, proxy=proxy, allow_redirects=False
                )
            except (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError):
                if attempt == 2 or not target.local:
                    raise
        raise AssertionError("unreachable: the second attempt returns or raises")

    async def aclose(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()


def _new_session(target: Target, *, guarded: bool) -> aiohttp.ClientSession:
    if target.socket_path:
        connector: aiohttp.BaseConnector = aiohttp.UnixConnector(target.socket_path, limit=0)
    else:
        resolver = _PublicResolver() if guarded else None
        connector = aiohttp.TCPConnector(limit=0, resolver=resolver, ttl_dns_cache=60, keepalive_timeout=60)
    # Looking for a proxy in the environment costs aiohttp a thread a request: only where there is one to find, and not where
    # `_check_public` has looked already.
    proxied = not target.local and not target.public_only and bool(getproxies())
    return aiohttp.ClientSession(
        connector=connector, auto_decompress=True, cookie_jar=aiohttp.DummyCookieJar(), trust_env=proxied
    )


async def _error_body(response: aiohttp.ClientResponse) -> bytes:
    """What an upstream says of its failure, as far as it comes."""
    said = bytearray()
    try:
        async with asyncio.timeout(_ERROR_BODY_S):
            async for piece in response.content.iter_any():
                said += piece
                if len(said) >= _MAX_ERROR_BYTES:
                    break
    except (aiohttp.ClientError, TimeoutError, OSError):
        pass
    finally:
        response.close()
    return bytes(said[:_MAX_ERROR_BYTES])


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


async def _check_public(target: Target) -> str | None:
    """Refuses what need not be resolved to be seen as private; gives the operator's proxy for this URL, if there is one.

    The host is read as the client will read it. A proxy resolves the name itself, so the name is resolved here before.
    """
    try:
        url = URL(target.url)
    except ValueError:
        raise aiohttp.InvalidURL(target.url) from None
    proxy = await asyncio.to_thread(_proxy_for, url) if not target.local and getproxies() else None
    if proxy is not None:
        await _public_addresses(url.host or "", url.port or 443)
        return proxy
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(url.host or "")
        await _public_addresses(url.host or "", url.port or 443)  # aiohttp asks no resolver for an address
    return None


def _proxy_for(url: URL) -> str | None:
    """From the server's environment, as for any other call. Only http proxies: aiohttp speaks to no others."""
    proxy = getproxies().get(url.scheme)
    if proxy is None or not proxy.startswith("http://") or proxy_bypass(url.host or ""):
        return None
    return proxy


async def _public_addresses(host: str, port: int) -> list[str]:
    """A name without an address is the upstream's trouble at this time of day, and no fault of the request."""
    try:
        return await check_public_url(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", param="base_url")
    except InvalidRequest as error:
        if error.code == "unresolvable_host":
            raise socket.gaierror(socket.EAI_NONAME, error.message) from None
        raise


def _too_slow(target: Target, timeout_s: float) -> UpstreamTimeout:
    return UpstreamTimeout(f"{target.label} did not answer within {round(timeout_s, 1):g} s.", retry_after_s=5)


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
