"""A loopback file server for the tests of pulling: ranges, validators, and the faults that networks have."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Served:
    """One address: its bytes and its behaviour."""

    body: bytes
    content_type: str = "application/octet-stream"
    etag: str | None = None
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    """For each of the next requests: how many bytes are sent before the connection breaks."""
    statuses: list[int] = field(default_factory=list)
    """For each of the next requests: a status to answer with instead."""
    redirect: str | None = None
    chunk_pause_s: float = 0.0


class FileServer:
    """Serves `files[path]`; `seen` lists the requests as (path, headers)."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.seen.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
                outer.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, path: str, body: bytes, **behaviour: object) -> Served:
        served = self.files[path] = Served(body, **behaviour)  # type: ignore[arg-type]
        return served

    def add_json(self, path: str, value: object, content_type: str = "application/json") -> None:
        self.add(path, json.dumps(value).encode(), content_type=content_type)

    def requests(self, path: str) -> list[dict[str, str]]:
        return [headers for seen, headers in self.seen if seen == path]

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        served = self.files.get(handler.path)
        if served is None:
            _empty(handler, 404)
            return
        if served.statuses:
            _empty(handler, served.statuses.pop(0))
            return
        if served.redirect:
            handler.send_response(302)
            handler.send_header("location", served.redirect)
            handler.send_header("content-length", "0")
            handler.end_headers()
            return
        start = _range_start(handler, served)
        if start >= len(served.body) and start:
            _empty(handler, 416)
            return
        handler.send_response(206 if start else 200)
        handler.send_header("content-type", served.content_type)
        handler.send_header("content-length", str(len(served.body) - start))
        if start:
            handler.send_header("content-range", f"bytes {start}-{len(served.body) - 1}/{len(served.body)}")
        if served.etag:
            handler.send_header("etag", served.etag)
        handler.end_headers()
        _send(handler, served, start)


def _range_start(handler: http.server.BaseHTTPRequestHandler, served: Served) -> int:
    wanted = handler.headers.get("range")
    if not wanted or not served.ranges:
        return 0
    if (condition := handler.headers.get("if-range")) and condition != served.etag:
        return 0
    return int(wanted.removeprefix("bytes=").removesuffix("-"))


def _send(handler: http.server.BaseHTTPRequestHandler, served: Served, start: int) -> None:
    end = len(served.body)
    cut = served.cut_after.pop(0) if served.cut_after else None
    if cut is not None:
        end = min(end, start + cut)
    step = 65536 if served.chunk_pause_s else max(1, end - start)
    try:
        for at in range(start, end, step):
            handler.wfile.write(served.body[at : min(end, at + step)])
            if served.chunk_pause_s:
                time.sleep(served.chunk_pause_s)
    except OSError:
        handler.close_connection = True
        return
    if cut is not None:
        handler.close_connection = True


def _empty(handler: http.server.BaseHTTPRequestHandler, status: int) -> None:
    handler.send_response(status)
    handler.send_header("content-length", "0")
    handler.end_headers()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
