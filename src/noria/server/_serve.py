"""Runs one instance: opens it, listens, tells the home where, and closes everything on SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Generator
from pathlib import Path

import uvicorn

from noria.errors import ConfigurationError
from noria.settings import Loaded

from ._app import build_app
from ._wiring import open_noria

__all__ = ["SERVER_FILE", "serve"]

_SWITCH_S = 0.0005
SERVER_FILE = "server.json"
"""In the home's run folder while a server runs: where it listens, its process id, and a key for the owner's own tools."""


async def serve(loaded: Loaded) -> None:
    """Serves until stopped. Raises ConfigurationError when the port is taken or the home is in use."""
    settings = loaded.settings
    with _listener(settings.host, settings.port) as listener:
        async with open_noria(loaded) as noria:
            config = uvicorn.Config(
                build_app(noria),
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="off",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=10,
                timeout_keep_alive=75,
            )
            server = _Server(config)
            _spare_collector()
            url = _url(settings.host, listener.getsockname()[1])
            noria.supervisor.environment |= _exporter(url, noria.keys.issue_local("engine", ("spans",)))
            with _announced(settings.run_dir, url, noria.keys.issue_local()):
                await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again when it is done, which would end the process before it has closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            self.force_exit = self.should_exit  # the second time: do not wait for answers under way
            self.should_exit = True

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        yield  # the handlers stay: while we close, one more signal changes nothing


@contextlib.contextmanager
def _listener(host: str, port: int) -> Generator[socket.socket, None, None]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"Cannot listen on {host}:{port}: {error.strerror}.", hint="Choose another with --port N (0: any free one)."
            ) from None
        listener.listen(2048)  # before the address is announced: who reads it may connect at once
        yield listener
    finally:
        listener.close()


def _spare_collector() -> None:
    """Takes what the imports made out of the garbage collector's sight, and has it run less often.

    Else every full collection walks some 200,000 objects that live as long as the process, and stops the event loop for
    0.1 s and more: seen as the 99th percentile at 250 requests/s.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 20)
    gc.enable()


def _url(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104
    return f"http://{shown}:{port}"


def _exporter(url: str, token: str) -> dict[str, str]:
    """The variables by which every OpenTelemetry SDK finds where to send spans: an engine that makes some needs no setting.

    Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
    """
    return {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{url}/v1/traces",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"authorization=Bearer%20{token}",
    }


@contextlib.contextmanager
def _announced(run_dir: Path, url: str, token: str) -> Generator[None, None, None]:
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / SERVER_FILE
    facts = {"url": url, "pid": os.getpid(), "token": token}
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        json.dump(facts, file)
    part.rename(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def run(loaded: Loaded) -> None:
    """The process's main: sets logging up and serves."""
    logging.basicConfig(
        level=loaded.settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    for noisy in ("dbos", "httpx", "aiosqlite", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # The thread that writes spans computes too. By default it keeps the interpreter for 5 ms each time it gets it, which the
    # event loop would wait for at every socket call (https://bugs.python.org/issue7946).
    sys.setswitchinterval(_SWITCH_S)
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        import uvloop

        uvloop.run(serve(loaded))
