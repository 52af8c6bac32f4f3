"""The HTTP API as the commands call it: JSON in and out, pages, streams; errors as the tree of `noria.errors`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from noria import errors
from noria.client import error_from, event_error, events, json_of, no_noria

__all__ = ["Api", "EventReply"]

_TIMEOUT = httpx.Timeout(600.0, connect=10.0)
_PAGE = 100


@dataclass(frozen=True, slots=True)
class EventReply:
    """A streamed answer: its events as they come, and the trace that records it."""

    events: Iterator[Any]
    trace_id: str | None


class Api:
    """One server. `lasting` is False when it was started for this call and ends with it."""

    def __init__(self, url: str, token: str | None, *, lasting: bool = True) -> None:
        self.url, self.lasting = url.rstrip("/"), lasting
        headers = {"authorization": f"Bearer {token}"} if token else {}
        with _translated():
            # A proxy of the environment has no business between this process and this machine's own server.
            local = httpx.URL(self.url).host in {"127.0.0.1", "::1", "localhost"}
            self._client = httpx.Client(base_url=self.url, headers=headers, timeout=_TIMEOUT, trust_env=not local)
        self.token = token

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **params: Any) -> Any:
        return self._call("GET", path, params=params)

    def post(self, path: str, body: Any = None) -> Any:
        return self._call("POST", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        return self._call("PATCH", path, json=body)

    def put(self, path: str, body: Any) -> Any:
        return self._call("PUT", path, json=body)

    def delete(self, path: str, **params: Any) -> Any:
        return self._call("DELETE", path, params=params)

    def text(self, path: str, **params: Any) -> str:
        """GET of something that is not JSON."""
        with _translated():
            reply = self._client.get(path, params=params)
        self._check(reply)
        return reply.text

    def find(self, path: str) -> Any | None:
        """GET, with None for 404."""
        try:
            return self.get(path)
        except errors.NotFound:
            return None

    def upload(self, path: Path) -> Any:
        """A file into /v1/files, read as it is sent."""
        with path.open("rb") as file:
            return self._call("POST", "/v1/files", data={"purpose": "assistants"}, files={"file": (path.name, file)})

    def send_file(self, path: str, file: Path, **fields: Any) -> Any:
        """A file into a route of its own, with form fields."""
        given = {name: _query(value) for name, value in fields.items() if value is not None}
        with file.open("rb") as source:
            return self._call("POST", path, data=given, files={"file": (file.name, source)})

    def download(self, path: str, into: IO[bytes], **params: Any) -> int:
        """An answer's bytes as they come; how many there were."""
        given = {key: _query(value) for key, value in params.items() if value is not None}
        with _translated(), self._client.stream("GET", path, params=given) as reply:
            self._check(reply)
            return sum(into.write(piece) for piece in reply.iter_bytes())

    def pages(self, path: str, *, limit: int | None = None, **params: Any) -> Iterator[dict[str, Any]]:
        """The rows of a list, page by page, at most `limit` of them."""
        left = limit
        after: str | None = None
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            reply = self.get(path, limit=size, after=after, **params)
            yield from reply["data"]
            if left is not None:
                left -= len(reply["data"])
            after = reply.get("next_cursor") or reply.get("last_id")
            if not reply["has_more"] or not reply["data"] or after is None:
                return

    @contextlib.contextmanager
    def stream(self, path: str, body: Any) -> Generator[EventReply, None, None]:
        """A POST answered with server-sent events. An event that carries an error raises it."""
        with _translated(), self._client.stream("POST", path, json=body) as reply:
            self._check(reply)
            if not reply.headers.get("content-type", "").startswith("text/event-stream"):
                raise no_noria(self.url, "its answer is no stream of events")
            yield EventReply(_checked(events(reply.iter_bytes())), reply.headers.get("x-noria-trace-id"))

    def _call(self, method: str, path: str, **how: Any) -> Any:
        if "params" in how:
            how["params"] = {key: _query(value) for key, value in how["params"].items() if value is not None}
        with _translated():
            reply = self._client.request(method, path, **how)
        return json_of(self.url, reply.status_code, reply.content, reply.headers)

    def _check(self, reply: httpx.Response) -> None:
        """Of an answer that is not JSON."""
        if not reply.is_success:
            raise error_from(self.url, reply.status_code, reply.read(), reply.headers)


def _query(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _checked(found: Iterable[str]) -> Iterator[Any]:
    for data in found:
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError:
            raise errors.UpstreamError(f"An event of the stream is not JSON: {data[:200]}") from None
        if (error := event_error(event)) is not None:
            raise error
        yield event


@contextlib.contextmanager
def _translated() -> Generator[None, None, None]:
    """Failures of the connection, said so that one knows what to do."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise errors.UpstreamTimeout(f"The server did not answer in time ({type(error).__name__}).") from None
    except httpx.HTTPError as error:
        raise errors.Unavailable(
            f"The connection to the server failed: {error or type(error).__name__}.",
            hint="Does it still run? Try: noria doctor",
        ) from None
    except httpx.InvalidURL as error:
        raise errors.ConfigurationError(f"The server's URL is not one: {error}.") from None
