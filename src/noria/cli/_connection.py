"""Finding the server: a URL that was given, the one that runs on the home, or one started for the call."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from noria.client import Announced, announced
from noria.errors import ConfigurationError, NoriaError, Unavailable
from noria.settings import Loaded, load

from ._command import target
from ._processes import Child, wait_until

if TYPE_CHECKING:
    from ._api import Api

__all__ = ["connect", "console_login", "console_url", "find_running", "settings_of", "start_server"]

_START_S = 60.0


def settings_of(**overrides: Any) -> Loaded:
    """The settings, with `--home` and what else was given on the command line."""
    return load({"home": target().home, **overrides})


@contextlib.contextmanager
def connect() -> Generator[Api, None, None]:
    """The server for this command. One that is started for it ends with it."""
    from ._api import Api

    url = target().url or (None if target().home else os.environ.get("NORIA_URL"))
    if url:
        api = Api(url, os.environ.get("NORIA_API_KEY"))
        try:
            yield api
        finally:
            api.close()
        return
    home = settings_of().settings.home
    running = find_running(home)
    child = None
    if running is None:
        print("No server runs here: starting one for this command…", file=sys.stderr)
        running, child = start_server(home, ["--port", "0"])
    api = Api(running.url, running.token, lasting=child is None)
    try:
        yield api
    finally:
        api.close()
        if child is not None:
            child.stop()


def find_running(home: Path) -> Announced | None:
    """The live server of this home: its file is there, its process lives, and it answers."""
    running = announced(home / "run" / "server.json")
    if running is None or not _lives(running.pid):
        return None
    return running if _healthy(running.url) else None


def console_url(home: Path) -> str | None:
    """Where the console of this home is, if one runs."""
    found = announced(home / "run" / "console.json")
    return found.url if found is not None and _lives(found.pid) else None


def console_login(home: Path, out: TextIO) -> str | None:
    """The console's address that signs its bearer in as the owner, needed once API keys exist; without that secret where `out` is
    no terminal, for it would stay in a journal or a log."""
    found = announced(home / "run" / "console.json")
    if found is None or not _lives(found.pid):
        return None
    return f"{found.url}/enter?token={found.token}" if found.token and out.isatty() else found.url


def start_server(home: Path, options: Sequence[str], *, echo: bool = False) -> tuple[Announced, Child | None]:
    """Starts a server on the home and waits until it listens. When another was faster, that one, without a child."""
    child = Child("server", server_command(home, options), home / "logs" / "server.log", echo=echo)
    path = home / "run" / "server.json"

    def settled() -> bool:
        found = announced(path)
        return child.exit_code() is not None or (found is not None and found.pid == child.pid)

    try:
        started = wait_until(settled, timeout_s=_START_S)
    except BaseException:
        child.stop()
        raise
    if child.exit_code() is not None:
        code, lines = child.exit_code(), child.last_lines()
        child.stop()
        if any("Another Noria is running" in line for line in lines) and (other := _wait_for_other(home)):
            return other, None
        raise _start_failed(child, code, lines)
    found = announced(path)
    if not started or found is None:
        child.stop()
        raise Unavailable(f"The server did not listen within {_START_S:.0f} s.", hint=f"Its log: {child.log_path}")
    return found, child


def server_command(home: Path, options: Sequence[str]) -> list[str]:
    return ["-m", "noria.server", "--home", str(home), *options]


def _wait_for_other(home: Path) -> Announced | None:
    """Two commands started a server at the same moment: the home's lock let one through."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if running := find_running(home):
            return running
        time.sleep(0.2)
    return None


def _start_failed(child: Child, code: int | None, lines: list[str]) -> NoriaError:
    """What the server said when it could not start, in its own words where it has any."""
    said = [line.removeprefix("noria: ") for line in lines if line.startswith("noria: ")]
    if said:
        return ConfigurationError(said[-1])
    shown = "\n  ".join(line for line in lines[-8:] if line.strip())
    return Unavailable(f"The server ended at its start (exit code {code}):\n  {shown}", hint=f"Its log: {child.log_path}")


def _lives(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _healthy(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
