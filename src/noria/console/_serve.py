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
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse
from nicegui import app as nicegui_app
from nicegui import ui
from nicegui.storage import Storage

from noria.console._connection import Connection
from noria.console._edge import ConsoleEdge, is_loopback
from noria.console._frame import add_pages
from noria.console._session import Backend
from noria.errors import ConfigurationError, NoriaError

__all__ = ["CONSOLE_FILE", "serve"]

CONSOLE_FILE = "console.json"
"""In the home's run folder while a console runs: `url` and `pid`."""

_STATIC = Path(__file__).parent / "static"


async def serve(home: Path, connection: Connection, host: str, port: int) -> None:
    """Serves until SIGINT or SIGTERM. Raises ConfigurationError when the port is taken."""
    loopback = is_loopback(host)
    async with httpx.AsyncClient(timeout=httpx.Timeout(30.0, connect=3.0), trust_env=False) as client:
        # The owner's key works for whoever sits at this machine. Others bring their own.
        backend = Backend(connection, client, lend_owner=loopback)
        Storage.path = home / "console"
        asgi = FastAPI(openapi_url=None)
        nicegui_app.add_route("/favicon.ico", lambda _: FileResponse(_STATIC / "favicon.svg"))  # browsers ask for it unasked
        nicegui_app.add_static_files("/static", _STATIC)
        add_pages(backend)
        ui.run_with(
            asgi,
            title="Noria",
            favicon=_STATIC / "favicon.svg",
            tailwind=False,
            dark=None,
            storage_secret=_secret(home / "console"),
            session_middleware_kwargs={"same_site": "strict"},
            show_welcome_message=False,
            reconnect_timeout=30.0,
        )
        with _listener(host, port) as listener:
            config = uvicorn.Config(
                ConsoleEdge(asgi, loopback=loopback),
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=3,
            )
            server = uvicorn.Server(config)
            _stop_on_signals(server)
            watch = asyncio.create_task(_watch(backend))
            try:
                with _announced(connection.run_dir, host, listener.getsockname()[1]):
                    await server.serve(sockets=[listener])
            finally:
                watch.cancel()


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
def _announced(run_dir: Path, host: str, port: int) -> Generator[None, None, None]:
    """Says where the console is; the socket listens already, so that whoever reads this can connect."""
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / CONSOLE_FILE
    shown = f"[{host}]" if ":" in host else "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"url": f"http://{shown}:{port}", "pid": os.getpid()}), encoding="utf-8")
    part.rename(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
