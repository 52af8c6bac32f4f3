"""The public HTTP API as the console calls it: JSON in and out, streams, uploads; failures as Noria's own errors."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import httpx

from noria.client import EventReader, error_from, event_error, json_of, no_noria
from noria.console._connection import Connection, Endpoint
from noria.errors import PayloadTooLarge, Unavailable, UpstreamError

__all__ = ["Api", "Stream"]

_Params = Mapping[str, Any]
_MOST_BYTES = 100 * 1024 * 1024


class Stream:
    """A streamed answer: its headers, and its events as JSON objects. The last, `[DONE]`, is left out."""

    def __init__(self, response: httpx.Response) -> None:
        self.trace_id: str | None = response.headers.get("x-noria-trace-id")
        self._response = response

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Raises the error that an error event carries."""
        reader = EventReader()
        async for piece in self._response.aiter_bytes():
            for data in reader.feed(piece):
                if data == "[DONE]":
                    return
                yield _event(data)
        for data in reader.end():
            if data != "[DONE]":
                yield _event(data)


def _event(data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        raise UpstreamError(f"An event of the stream is not JSON: {data[:200]}") from None
    if (error := event_error(event)) is not None:
        raise error
    return event


class Api:
    """Calls on behalf of one browser session. `token` gives the key that it calls with, out of the owner's; it may raise."""

    def __init__(self, connection: Connection, client: httpx.AsyncClient, token: Callable[[str | None], str | None]) -> None:
        self._connection, self._client, self._token = connection, client, token

    def endpoint(self) -> Endpoint:
        """The address, and the key to use, None for none."""
        found = self._connection.find()
        return Endpoint(found.url, self._token(found.token))

    async def get(self, path: str, params: _Params | None = None) -> Any:
        return await self._call("GET", path, params=_given(params))

    async def post(self, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = 60.0) -> Any:
        return await self._call("POST", path, json=dict(body or {}), timeout=timeout_s)

    async def put(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._call("PUT", path, json=dict(body))

    async def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._call("PATCH", path, json=dict(body))

    async def delete(self, path: str, params: _Params | None = None) -> Any:
        return await self._call("DELETE", path, params=_given(params))

    async def upload(
        self,
        filename: str,
        content_type: str,
        pieces: AsyncIterable[bytes],
        *,
        path: str = "/v1/files",
        fields: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Sends a file without holding it in memory; by default one for knowledge."""
        given = {"purpose": "assistants"} if fields is None else fields
        boundary, body = _multipart(filename, content_type or "application/octet-stream", pieces, given)
        headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
        return await self._call("POST", path, content=body, headers=headers, timeout=600.0)

    async def download(self, path: str, params: _Params | None = None) -> tuple[str, bytes]:
        """A file's name and content, for the browser. Raises PayloadTooLarge beyond what a page should hold."""
        found = self.endpoint()
        content = bytearray()
        try:
            async with self._client.stream(
                "GET", found.url + path, params=_given(params), headers=_authorization(found), timeout=600.0
            ) as response:
                await _check(found, response)
                async for piece in response.aiter_bytes():
                    content += piece
                    if len(content) > _MOST_BYTES:
                        raise PayloadTooLarge("This is too large for the browser.", hint="Use the command line: noria --help")
                disposition = response.headers.get("content-disposition", "")
                name = unquote(disposition.partition("filename*=utf-8''")[2].partition(";")[0])
        except httpx.HTTPError as error:
            raise _unreachable(found, error) from None
        return name or "export", bytes(content)

    @asynccontextmanager
    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[Stream]:
        """A POST whose answer is server-sent events. Leaving the block hangs up, which frees the model's slot."""
        found = self.endpoint()
        timeout = httpx.Timeout(600.0, connect=5.0)
        try:
            async with self._client.stream(
                "POST", found.url + path, json=dict(body), headers=_authorization(found), timeout=timeout
            ) as response:
                await _check(found, response)
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise no_noria(found.url, "its answer is no stream of events")
                yield Stream(response)
        except httpx.HTTPError as error:
            raise _unreachable(found, error) from None

    async def _call(self, method: str, path: str, **given: Any) -> Any:
        found = self.endpoint()
        given["headers"] = {**given.get("headers", {}), **_authorization(found)}
        try:
            response = await self._client.request(method, found.url + path, **given)
        except httpx.HTTPError as error:
            raise _unreachable(found, error) from None
        return json_of(found.url, response.status_code, response.content, response.headers)


def _given(params: _Params | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value not in (None, "")}


def _authorization(found: Endpoint) -> dict[str, str]:
    return {"authorization": f"Bearer {found.token}"} if found.token else {}


async def _check(found: Endpoint, response: httpx.Response) -> None:
    """Of an answer that is not JSON."""
    if not response.is_success:
        raise error_from(found.url, response.status_code, await response.aread(), response.headers)


def _unreachable(found: Endpoint, error: httpx.HTTPError) -> Unavailable:
    if isinstance(error, httpx.ReadTimeout):
        return Unavailable(f"The API at {found.url} took too long to answer.", code="api_timeout")
    if isinstance(error, httpx.RemoteProtocolError):
        return Unavailable(
            "The API hung up in the middle of its answer.", code="api_cut_off", hint="Its log says why; try again."
        )
    return Unavailable(f"The API at {found.url} does not answer.", code="api_unreachable", hint="Start it with: noria up")


def _multipart(
    filename: str, content_type: str, pieces: AsyncIterable[bytes], fields: Mapping[str, str]
) -> tuple[str, AsyncIterator[bytes]]:
    """RFC 7578 by hand: httpx encodes files from blocking objects only."""
    import secrets

    boundary = secrets.token_hex(16)
    quoted = filename.replace("\\", "\\\\").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    kind = content_type.replace("\r", "").replace("\n", "")

    async def body() -> AsyncIterator[bytes]:
        for name, value in fields.items():
            yield f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\nContent-Type: {kind}\r\n\r\n'
        yield head.encode()
        async for piece in pieces:
            yield piece
        yield f"\r\n--{boundary}--\r\n".encode()

    return boundary, body()
