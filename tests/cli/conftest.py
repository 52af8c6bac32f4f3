"""Runs commands in this process, against a real server or one that answers from a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from noria.cli import _show
from noria.cli._app import app

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("stores", "list", "--home", home)`; 80 columns, no settings of the environment."""
    for name in ("NORIA_HOME", "NORIA_URL", "NORIA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    _show.out.cache_clear()
    _show.err.cache_clear()

    def run(*arguments: object, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=input)

    return run


@dataclass
class Scripted:
    """Answers each method and path with what the test says, and keeps what was asked."""

    url: str
    answers: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)

    def on(self, method: str, path: str, body: Any, status: int = 200) -> None:
        """`body`: JSON, or bytes that are sent as an event stream."""
        self.answers[method, path] = (status, body)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length)
            parsed = json.loads(body) if body[:1] in (b"{", b"[") else None
            script.asked.append((self.command, self.path, parsed))
            status, reply = script.answers.get((self.command, self.path.partition("?")[0]), (404, {"error": {"message": "No."}}))
            raw = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("content-type", "text/event-stream" if isinstance(reply, bytes) else "application/json")
            self.send_header("content-length", str(len(raw)))
            self.send_header("x-noria-trace-id", "f" * 32)
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script = Scripted(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield script
    server.shutdown()
    server.server_close()
    thread.join()


def stream_of(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {event.get('type')}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
