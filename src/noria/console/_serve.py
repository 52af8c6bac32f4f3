"""Assembles the pages, listens, tells the home where, and watches the API.

NiceGUI keeps each visitor's preferences (language, theme, time zone) in the home's `console/` folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from nicegui import app as nicegui_app
from nicegui import ui
from nicegui.storage import Storage

from noria.console._connection import Connection
from noria.console._edge import ConsoleEdge, is_loopback
from noria.console._frame import add_pages
from noria.console._session import Backend
from noria.console._sign_in import enter
from noria.errors import ConfigurationError, NoriaError

__all__ = ["CONSOLE_FILE", "serve"]

CONSOLE_FILE = "console.json"
"""In the home's run folder while a console runs: `url`, `pid`, and on loopback `token`: `/enter?token=…` lets the owner in."""

_STATIC = Path(__file__).parent / "static"


async def serve(home: Path, connection: Connection, host: str, port: int) -> None:
    """Serves until SIGINT or SIGTERM. Raises ConfigurationError when the port is taken."""
    loopback = is_loopback(host)
    async with httpx.AsyncClient(timeout=httpx.Timeout(30.0, connect=3.0), trust_env=False) as client:
        if not loopback:
            await _require_keys(connection, client)
        backend = Backend(connection, client, loopback)
        with _listener(host, port) as listener:
            await _serve(home, backend, host, listener)


async def _serve(home: Path, backend: Backend, host: str, listener: socket.socket) -> None:
    port: int = listener.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(
            ConsoleEdge(_build(home, backend, port), loopback=backend.loopback),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # who connects is who asks: a proxy's word makes nobody local
            timeout_graceful_shutdown=3,
        )
    )
    _stop_on_signals(server)
    watch = asyncio.create_task(_watch(backend))
    try:
        with _announced(backend, host, port):
            await server.serve(sockets=[listener])
    finally:
        watch.cancel()


def _build(home: Path, backend: Backend, port: int) -> FastAPI:
    """The pages. NiceGUI has one set of them a process."""

    async def entered(request: Request) -> Response:
        return await enter(backend, request)

    Storage.path = home / "console"
    asgi = FastAPI(openapi_url=None)
    nicegui_app.add_route("/favicon.ico", lambda _: FileResponse(_STATIC / "favicon.svg"))  # browsers ask for it unasked
    nicegui_app.add_route("/enter", entered)
    nicegui_app.add_static_files("/static", _STATIC)
    add_pages(backend)
    ui.run_with(
        asgi,
        title="Noria",
        favicon=_STATIC / "favicon.svg",
        tailwind=False,
        dark=None,
        storage_secret=_secret(home / "console"),
        # Browsers send a host's cookies to all its ports: by its name, another console's does not take this one's place.
        session_middleware_kwargs={"same_site": "strict", "session_cookie": f"noria-{port}"},
        show_welcome_message=False,
        reconnect_timeout=30.0,
    )
    return asgi


async def _require_keys(connection: Connection, client: httpx.AsyncClient) -> None:
    """Raises ConfigurationError unless the API asks for keys: else this would hand its owner's rights to the network."""
    url = connection.find().url
    try:
        status = (await client.get(f"{url}/v1/noria/status")).status_code
    except httpx.HTTPError:
        raise ConfigurationError(f"The API at {url} does not answer.", hint="Start it with: noria up") from None
    if status != 401:
        raise ConfigurationError(
            "The console listens beyond this machine only once an API key exists.", hint="Run: noria keys create NAME"
        )


def _stop_on_signals(server: uvicorn.Server) -> None:
    """uvicorn's own handlers raise the signal again at the end, before what is open here has been closed."""

    @contextlib.contextmanager
    def keep() -> Generator[None, None, None]:
        def stop(number: int, frame: FrameType | None) -> None:
            server.force_exit = server.should_exit
            server.should_exit = True

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        yield

    server.capture_signals = keep


async def _watch(backend: Backend) -> None:
    """Keeps `backend.reachable` true to life, for the banner."""
    while True:
        try:
            url = backend.connection.find().url
            backend.reachable = (await backend.client.get(f"{url}/health", timeout=5.0)).status_code < 500
        except (NoriaError, httpx.HTTPError):
            backend.reachable = False
        await asyncio.sleep(1.0 if not backend.reachable else 3.0)


def _secret(folder: Path) -> str:
    """Signs the session cookies; kept, so that a restart signs nobody's preferences away."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "session.key"
    if not path.exists():
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text()


@contextlib.contextmanager
def _listener(host: str, port: int) -> Generator[socket.socket, None, None]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"Cannot listen on {host}:{port}: {error.strerror}.", hint="Choose another with --port N (0: any free one)."
            ) from None
        listener.listen(128)  # now, not when uvicorn does: whoever reads the file below must get through
        yield listener


@contextlib.contextmanager
def _announced(backend: Backend, host: str, port: int) -> Generator[None, None, None]:
    """Says where the console is; the socket listens already, so that whoever reads this can connect."""
    path = backend.connection.run_dir / CONSOLE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = f"[{host}]" if ":" in host else "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    facts: dict[str, object] = {"url": f"http://{shown}:{port}", "pid": os.getpid()}
    if backend.loopback:
        facts["token"] = backend.visitors.login_token
    with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        json.dump(facts, file)
    part.rename(path)
    if sys.stdout.isatty():  # not into the log that `noria up` makes of it
        print(f"Console: {facts['url']}" + (f"/enter?token={facts['token']}" if backend.loopback else ""), flush=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
