"""Processes that a command starts: the server and the console, their logs, and their orderly end.

A child is in a session of its own, so that Ctrl-C reaches only us and we stop things in order; should we be killed, the kernel
tells it to end too (Linux: PR_SET_PDEATHSIG). What it prints goes to a log file that is rotated by size.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

__all__ = ["Child", "LogFile"]

_KEEP_LINES = 30
_STOP_S = 20.0
_PR_SET_PDEATHSIG = 1


class LogFile:
    """A text file that is appended to and renamed to `.1`, `.2`, … when it has grown to `max_bytes`."""

    def __init__(self, path: Path, *, max_bytes: int = 10 * 1024 * 1024, keep: int = 3) -> None:
        self.path, self._max_bytes, self._keep = path, max_bytes, keep
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("ab")

    def write(self, line: bytes) -> None:
        if self._file.tell() + len(line) > self._max_bytes:
            self._rotate()
        self._file.write(line)
        self._file.flush()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._keep - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        self._file = self.path.open("ab")

    def close(self) -> None:
        self._file.close()


class Child:
    """A process of ours. `log` gets what it prints; `echo` shows each line to the user as well."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path, *, echo: bool = False) -> None:
        self.name = name
        self._log, self._echo = LogFile(log), echo
        self._tail: deque[str] = deque(maxlen=_KEEP_LINES)
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent(),  # noqa: PLW1509  (no threads hold locks: it is one system call)
        )
        self._pump = threading.Thread(target=self._copy, daemon=True)
        self._pump.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log_path(self) -> Path:
        return self._log.path

    def exit_code(self) -> int | None:
        """None while it runs; negative after a signal."""
        return self._process.poll()

    def last_lines(self) -> list[str]:
        """The end of what it printed; complete when it has ended."""
        if self._process.poll() is not None:
            self._pump.join(timeout=2)
        return list(self._tail)

    def stop(self, *, timeout_s: float = _STOP_S) -> None:
        """Asks it to end, and makes it after a while. Ctrl-C while we wait makes it end at once."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout_s)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                self._process.kill()
                self._process.wait()
        self._pump.join(timeout=2)
        self._log.close()

    def _copy(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._tail.append(line.decode("utf-8", "replace").rstrip())
            with contextlib.suppress(OSError, ValueError):  # a full disk must not stop the child
                self._log.write(line)
            if self._echo:
                print(self._tail[-1], file=sys.stderr, flush=True)


def wait_until(ready: Callable[[], bool], *, timeout_s: float, step_s: float = 0.05) -> bool:
    """Whether `ready` came true in time."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(step_s)
    return True


def _end_with_parent() -> Callable[[], None] | None:
    """What the new process calls before it becomes the program; None where the system has no such thing."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we could ask
            os._exit(1)

    return arrange
