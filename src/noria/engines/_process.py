"""One engine process behind its launcher: started, measured, stopped. Knows nothing about HTTP or policies."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from noria.engines import _launcher

__all__ = ["EngineProcess", "die_with_parent", "tail"]

LOG_BYTES = 4 * 1024 * 1024
"""A log is rotated at this size; one old one is kept."""


class EngineProcess:
    """A running engine. Made by `await EngineProcess.start(…)`."""

    def __init__(self, launcher: asyncio.subprocess.Process, pid: int | None, log: Path) -> None:
        self._launcher = launcher
        self.pid = pid
        """The engine's own, not its launcher's; None if it could not be started."""
        self.log = log

    @classmethod
    async def start(cls, command: Sequence[str], env: Mapping[str, str], cwd: Path | None, log: Path) -> EngineProcess:
        """Starts it in a process group of its own. A command that does not exist shows as an early end."""
        log.parent.mkdir(parents=True, exist_ok=True)
        launcher = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_launcher.__file__), str(log), str(LOG_BYTES), *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,  # a Ctrl-C in the terminal is for the server, which stops its engines in order
        )
        assert launcher.stdout is not None
        try:
            line = await launcher.stdout.readline()
        except BaseException:
            await cls(launcher, None, log).kill()  # nobody else knows of it
            raise
        return cls(launcher, int(line) if line.strip() else None, log)

    @property
    def returncode(self) -> int | None:
        """None while it runs; 128 + n if signal n ended it."""
        return self._launcher.returncode

    async def wait(self) -> int:
        return await self._launcher.wait()

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and after `grace_s` the whole group is killed."""
        if self.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._launcher.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._launcher.wait(), grace_s)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Kills the engine's group now; the launcher does it when its stdin closes."""
        if self.returncode is None and self._launcher.stdin is not None:
            self._launcher.stdin.close()
        try:
            await asyncio.wait_for(self._launcher.wait(), 5.0)
        except TimeoutError:  # the launcher itself hangs: the engine dies with it
            with contextlib.suppress(ProcessLookupError):
                self._launcher.kill()
            await self._launcher.wait()

    def rss_mb(self) -> float:
        """Resident memory of the engine and its children, in MiB (shared pages count in each)."""
        if self.pid is None or self.returncode is not None:
            return 0.0
        total = 0
        with contextlib.suppress(psutil.Error):
            engine = psutil.Process(self.pid)
            for process in (engine, *engine.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
        return total / 2**20


def tail(log: Path, num_lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in lines if line.strip()][-num_lines:])


def die_with_parent() -> None:
    """Has the kernel kill this process when the thread that started it ends (Linux; elsewhere nothing happens)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_launcher.PR_SET_PDEATHSIG, signal.SIGKILL)
