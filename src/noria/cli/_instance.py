"""An instance in the foreground: server and console started in order, watched, and stopped in reverse."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import typer

from noria.client import Announced
from noria.errors import Conflict, NoriaError, Unavailable
from noria.settings import Settings

from ._api import Api
from ._connection import console_login, console_url, find_running, settings_of, start_server
from ._processes import Child, wait_until
from ._show import note

__all__ = ["UpOptions", "run_serve", "run_up"]

_CONSOLE_START_S = 30.0


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the command line says; None leaves it to the settings."""

    host: str | None = None
    port: int | None = None
    console_port: int | None = None
    console: bool | None = None
    verbose: bool = False


class _Stopped(BaseException):
    """SIGTERM or Ctrl-C. Not an Exception: nothing on the way may take it for a failure."""


def run_serve(options: UpOptions) -> None:
    """The server until it is stopped."""
    settings = settings_of(host=options.host, port=options.port).settings
    with _until_stopped(), contextlib.ExitStack() as stack:
        running, child = _server(settings, options, stack)
        print(f"Noria serves {running.url}/v1 (home {settings.home}). Ctrl-C stops it.", flush=True)
        _watch([child])


def run_up(options: UpOptions) -> None:
    """Server, models, console, documentation; then waits."""
    from ._prepare import index_docs, print_banner, pull_missing, warm

    overrides = {"host": options.host, "port": options.port, "console_port": options.console_port, "console": options.console}
    settings = settings_of(**overrides).settings
    with _until_stopped(), contextlib.ExitStack() as stack:
        running, child = _server(settings, options, stack)
        api = Api(running.url, running.token)
        stack.callback(api.close)
        _try(lambda: pull_missing(api), child)
        warming = threading.Thread(target=warm, args=(api,), daemon=True)
        warming.start()
        console = _console(settings, running, options, stack) if settings.console else None
        while warming.is_alive():
            warming.join(0.1)
            _check([child])
        keys = api.get("/v1/noria/status")["keys_required"]
        address = console_login(settings.home, sys.stdout) if keys else console_url(settings.home)
        print_banner(settings, running, address, keys=keys)
        _try(lambda: index_docs(api), child)
        _watch([child, *([console] if console else [])])


def _try(step: Callable[[], None], child: Child) -> None:
    """What may fail without taking the server down with it; when the server is what failed, that is said instead."""
    try:
        step()
    except NoriaError as error:
        wait_until(lambda: child.exit_code() is not None, timeout_s=0.5)
        _check([child])
        note(f"{error}")


def _server(settings: Settings, options: UpOptions, stack: contextlib.ExitStack) -> tuple[Announced, Child]:
    if other := find_running(settings.home):
        raise _runs_already(settings.home, other)
    note(f"Starting Noria (home {settings.home})…")
    listen = ["--host", settings.host, "--port", str(settings.port)]
    running, child = start_server(settings.home, listen, echo=options.verbose)
    if child is None:
        raise _runs_already(settings.home, running)
    stack.callback(child.stop)
    return running, child


def _runs_already(home: Path, other: Announced) -> NoriaError:
    where = f"{other.url}/v1 (process {other.pid})"
    console = console_login(home, sys.stderr)
    shown = f" Its console: {console}" if console else ""
    return Conflict(
        f"Noria runs already on {home}: {where}.{shown}", hint="Use it, stop it, or start a second one with --home DIR --port N."
    )


def _console(settings: Settings, running: Announced, options: UpOptions, stack: contextlib.ExitStack) -> Child | None:
    """The console, or None (and a word why) where it is not installed or does not start."""
    if importlib.util.find_spec("noria.console") is None or importlib.util.find_spec("noria.console.__main__") is None:
        note("The web console is not part of this installation: going on without it.")
        return None
    port = settings.console_port
    if port is None:
        wanted = int(running.url.rpartition(":")[2]) + 1
        port = wanted if _is_free(settings.host, wanted) else 0
    arguments = ["-m", "noria.console", "--home", str(settings.home), "--port", str(port), "--api-url", running.url]
    child = Child("console", arguments, settings.home / "logs" / "console.log", echo=options.verbose)
    stack.callback(child.stop)
    wait_until(lambda: child.exit_code() is not None or console_url(settings.home) is not None, timeout_s=_CONSOLE_START_S)
    if console_url(settings.home) is None:
        child.stop()
        note(_ended(child, "did not start") + "\nGoing on without it.")
        return None
    return child


def _watch(children: list[Child]) -> NoReturn:
    """Waits for a signal; if a child dies, says so with the end of its log."""
    while True:
        _check(children)
        time.sleep(0.3)


def _check(children: list[Child]) -> None:
    for child in children:
        if child.exit_code() is not None:
            raise Unavailable(_ended(child, "has ended by itself"), hint=f"Its log: {child.log_path}")


def _ended(child: Child, what: str) -> str:
    code = child.exit_code()
    how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
    lines = "\n  ".join(line for line in child.last_lines()[-10:] if line.strip())
    return f"The {child.name} {what} ({how})." + (f" It said last:\n  {lines}" if lines else "")


@contextlib.contextmanager
def _until_stopped() -> Generator[None, None, None]:
    """Turns SIGINT, SIGTERM and SIGHUP into an orderly end with exit code 0: that is how one ends these commands."""

    def stop(number: int, frame: object) -> NoReturn:
        for each in numbers:  # once is enough; children are given their time, or see Child.stop
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_IGN)
        os.write(2, b"\nStopping...\n")  # not print: the signal may have come in the middle of one
        raise _Stopped

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except _Stopped:
        print("Stopped.", file=sys.stderr)
        raise typer.Exit(0) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_free(host: str, port: int) -> bool:
    if port > 65535:
        return False
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
