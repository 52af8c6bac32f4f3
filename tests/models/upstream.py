"""A remote model's API on loopback that misbehaves on demand: a real HTTP server in a thread of the test's process.

Each request takes the next of `planned`; with none left it answers well. What arrived is in `seen`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn

Send = Callable[[dict[str, Any]], Awaitable[None]]
Behaviour = Callable[[Any, Send], Awaitable[None]]

ANSWER = {
    "id": "upstream-id",
    "object": "chat.completion",
    "created": 1,
    "model": "upstream-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "well done"}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 400},
    },
}


@dataclass
class Seen:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    gone: threading.Event = field(default_factory=threading.Event)
    """Set when the client left before its answer was whole."""


class Upstream:
    def __init__(self) -> None:
        self.planned: deque[Behaviour] = deque()
        self.seen: list[Seen] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.origin = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(self, host="127.0.0.1", port=self.port, log_level="error", lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)

    def plan(self, *behaviours: Behaviour) -> None:
        self.planned.extend(behaviours)

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        seen = Seen(scope["path"], headers, json.loads(body) if body else {})
        if scope["path"] != "/health":
            self.seen.append(seen)
        behave = self.planned.popleft() if self.planned and scope["path"] != "/health" else good

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            seen.gone.set()

        watcher = asyncio.ensure_future(watch())
        try:
            await behave(seen.body, send)
        finally:
            watcher.cancel()


@contextlib.contextmanager
def running_upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    upstream.start()
    try:
        yield upstream
    finally:
        upstream.stop()


# --- behaviours -------------------------------------------------------------------------------------------------------


async def good(body: Any, send: Send) -> None:
    if body.get("stream"):
        await stream(chunk({"role": "assistant", "content": ""}), chunk({"content": "well "}), chunk({"content": "done"}))(
            body, send
        )
    else:
        await answer(ANSWER)(body, send)


def answer(value: Any, status: int = 200, **headers: str) -> Behaviour:
    """A whole body: JSON, or bytes as they are."""

    async def behave(_: Any, send: Send) -> None:
        await _start(send, status, {"content-type": "application/json", **headers})
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        await send({"type": "http.response.body", "body": data, "more_body": False})

    return behave


def failure(status: int, message: str = "no", **headers: str) -> Behaviour:
    return answer({"error": {"message": message, "type": "x", "code": None}}, status, **headers)


def slow(seconds: float, then: Behaviour) -> Behaviour:
    async def behave(body: Any, send: Send) -> None:
        await asyncio.sleep(seconds)
        await then(body, send)

    return behave


def chunk(delta: dict[str, Any], reason: str | None = None, **fields: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}]
    frame = {"id": "upstream-id", "object": "chat.completion.chunk", "created": 1, "model": "upstream-model"}
    return {**frame, "choices": choices, **fields}


def encoded(*chunks: dict[str, Any], done: bool = True, spaced: bool = False) -> bytes:
    separators = None if spaced else (",", ":")
    usage = {**chunk({}), "choices": [], "usage": ANSWER["usage"]}
    events = [*chunks, chunk({}, "stop"), usage] if done else list(chunks)
    data = b"".join(b"data: " + json.dumps(event, separators=separators).encode() + b"\n\n" for event in events)
    return data + (b"data: [DONE]\n\n" if done else b"")


def raw_stream(*pieces: bytes, pause_s: float = 0.0, end: bool = True, first_s: float = 0.0) -> Behaviour:
    """Bytes as they are, one write each; without `end` the connection is then broken."""

    async def behave(_: Any, send: Send) -> None:
        await _start(send, 200, {"content-type": "text/event-stream"})
        await asyncio.sleep(first_s)
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(pause_s)
        if not end:
            raise ConnectionAbortedError  # the server drops the connection in mid-answer
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return behave


def stream(
    *chunks: dict[str, Any], pause_s: float = 0.0, end: bool = True, spaced: bool = False, first_s: float = 0.0
) -> Behaviour:
    """A well-formed stream; `end=False` breaks it off after the chunks."""
    data = encoded(*chunks, done=end, spaced=spaced)
    pieces = [event + b"\n\n" for event in data.split(b"\n\n")[:-1]]
    return raw_stream(*pieces, pause_s=pause_s, end=end, first_s=first_s)


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
