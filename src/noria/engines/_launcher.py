"""Stands between the supervisor and one engine, so that the engine never outlives the server.

Run by path with the standard library only: `python -I -S _launcher.py LOG MAX_BYTES COMMAND…`. It writes the engine's
pid on its stdout, keeps the engine's output in LOG (rotated once, at MAX_BYTES), and ends with the engine's status.

The engine's process group is killed when the launcher's stdin closes (the server holds the other end) or the parent
dies (PR_SET_PDEATHSIG); SIGTERM is passed on. The engine itself is killed if the launcher dies. As a child subreaper the
launcher also finds processes that left the group.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STDIN, STDOUT = 0, 1
HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class RotatedLog:
    """Appends to a file; at `max_bytes` it becomes `NAME.1`. A full disk loses lines, never the engine."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._file.tell() + len(data) > self._max_bytes:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file.close()
                self._file = self._path.open("ab", buffering=0)
            self._file.write(data)


def main() -> int:
    path, max_bytes, *command = sys.argv[1:]
    log = RotatedLog(Path(path), int(max_bytes))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    heard = _listen()
    output, engine_end = os.pipe()

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    try:
        engine = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=engine_end,
            stderr=engine_end,
            process_group=0,
            preexec_fn=in_child,  # noqa: PLW1509  safe: this process has one thread
        )
    except OSError as error:
        log.write(f"{command[0]}: {error.strerror}\n".encode())
        return 127
    os.close(engine_end)
    os.write(STDOUT, f"{engine.pid}\n".encode())
    status = _watch(engine.pid, heard, output, log)
    _kill_rest(engine.pid)
    _drain(output, log)
    return status


def _listen() -> int:
    """The file descriptor from which the numbers of signals can be read."""
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in HEARD:
        signal.signal(number, lambda *_: None)
    return readable


def _watch(pid: int, heard: int, output: int, log: RotatedLog) -> int:
    """Serves events until the engine has ended; returns its status, as a shell gives it."""
    watched = [STDIN, heard, output]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if output in ready:
            data = os.read(output, 65536)
            if data:
                log.write(data)
            else:
                watched.remove(output)
        if STDIN in ready and not os.read(STDIN, 4096):
            watched.remove(STDIN)
            _kill_group(pid, signal.SIGKILL)
        if heard in ready:
            numbers = os.read(heard, 4096)
            if signal.SIGHUP in numbers:
                _kill_group(pid, signal.SIGKILL)
            elif signal.SIGTERM in numbers or signal.SIGINT in numbers:
                _kill_group(pid, signal.SIGTERM)
            status = _reap(pid)
            if status is not None:
                return status


def _reap(pid: int) -> int | None:
    """Collects every child that has ended; the engine's status if it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == 0:
                break
            if ended == pid:
                code = os.waitstatus_to_exitcode(status)
                found = code if code >= 0 else 128 - code
    return found


def _kill_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _kill_rest(pid: int) -> None:
    """What the engine left behind: its group, and orphans that came to this process."""
    _kill_group(pid, signal.SIGKILL)
    for _ in range(8):  # orphans may have children of their own, which come here in turn
        children = Path("/proc/self/task") / str(os.getpid()) / "children"
        try:
            orphans = [int(word) for word in children.read_text().split()]
        except OSError:
            return
        if not orphans:
            return
        for orphan in orphans:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(orphan, signal.SIGKILL)
                os.waitpid(orphan, 0)


def _drain(output: int, log: RotatedLog) -> None:
    while select.select([output], [], [], 0)[0]:
        data = os.read(output, 65536)
        if not data:
            return
        log.write(data)


if __name__ == "__main__":
    sys.exit(main())
