"""One sandboxed process: started, watched from outside, ended with all it has started.

The kernel's own limits hold for each process; what all of them use together is looked at from here a few times a second. What
no process is charged for (shared memory of every kind) is either refused by the filter or lies in folders of a fixed size.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import re
import signal
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from noria.errors import InvalidRequest

from ._bubblewrap import command, open_filter, require_sandbox, site_packages
from ._contract import Limits, Stop

__all__ = ["Walled"]

_PROGRAM = (Path(__file__).parent / "_inside.py").read_text(encoding="utf-8")
_LOOK_EVERY_S = 0.1
_NOBODY = 65534
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_OWN_MEMORY = re.compile(rb"^(?:RssAnon|VmSwap):\s*(\d+) kB$", re.MULTILINE)
_RESTING_CPU_S = 0.5
"""What may be used after an answer: Python puts away what the call has left."""
_FILE_BYTES = 1024
"""What the kernel holds for a file in memory, be it empty."""
_FRAME = 3
"""bubblewrap's two processes and Python itself."""


class Walled:
    """A process behind the walls. `stopped` says why it was ended, if it was."""

    def __init__(self, process: asyncio.subprocess.Process, limits: Limits) -> None:
        self.process, self.limits = process, limits
        self.stopped: Stop | None = None
        self._most_cpu_s: float = limits.cpu_s
        self._guard = asyncio.ensure_future(self._watch())

    @classmethod
    async def start(cls, limits: Limits, head: Mapping[str, Any], files: Mapping[str, bytes], *, cpu: bool) -> Walled:
        """Raises NotBuilt where there is no bubblewrap, InvalidRequest for a file name that leads out."""
        await asyncio.to_thread(require_sandbox)
        full = orjson.dumps({**head, **_frame(limits, files, cpu=cpu)})
        pipe = asyncio.subprocess.PIPE
        with open_filter() as fd:
            process = await asyncio.create_subprocess_exec(
                *command(limits, _PROGRAM, fd),
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                limit=limits.output_kb * 1024,
                start_new_session=True,
                pass_fds=[fd],
            )
        walled = cls(process, limits)
        await walled.send(full)
        return walled

    async def send(self, line: bytes) -> None:
        """Writes one line; a process that is gone is noticed when it is read from."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.process.stdin.write(line + b"\n")
            await self.process.stdin.drain()

    def begin(self) -> None:
        """A call begins: the limit on processor time counts from here."""
        self._most_cpu_s = _cpu_s(_tree(self.process.pid)) + self.limits.cpu_s

    def rest(self) -> bool:
        """A call has been answered: from here on nothing may be done. False where it has left processes behind."""
        tree = _tree(self.process.pid)
        self._most_cpu_s = _cpu_s(tree) + _RESTING_CPU_S
        return len(tree) <= _FRAME

    def stop(self, why: Stop) -> None:
        """Ends it and, with its process namespace, everything it started."""
        if self.stopped is None and self.process.returncode is None:
            self.stopped = why
            self._kill()

    def _kill(self) -> None:
        # The first process of the namespace, with which all others in it die: bubblewrap outside then collects it and ends. Not
        # by `process.kill()`, which may reap behind the event loop's back, so that it never learns the exit code.
        inner = _tree(self.process.pid)[1:2] or [self.process.pid]
        with contextlib.suppress(ProcessLookupError):
            os.kill(inner[0], signal.SIGKILL)

    async def _watch(self) -> None:
        most_bytes = self.limits.memory_mb * 2**20
        while self.process.returncode is None:
            await asyncio.sleep(_LOOK_EVERY_S)
            tree = _tree(self.process.pid)
            if len(tree) - _FRAME >= self.limits.processes:
                self.stop("processes")
            elif sum(map(_private_bytes, tree)) + _bytes_of_files(tree) > most_bytes:
                self.stop("memory")
            elif _cpu_s(tree) > self._most_cpu_s:
                self.stop("time")

    async def close(self) -> None:
        """Ends it if it still runs, and waits until it is gone."""
        self._guard.cancel()
        if self.process.returncode is None:
            self._kill()
        # `wait` alone would wait for ever on pipes that nobody reads.
        if self.process.stdin is not None:
            self.process.stdin.close()
        transport = getattr(self.process, "_transport", None)
        await self.process.wait()
        if transport is not None:
            transport.close()


def _frame(limits: Limits, files: Mapping[str, bytes], *, cpu: bool) -> dict[str, Any]:
    kernel = {
        "AS": limits.memory_mb * 2**20,
        "NPROC": limits.processes,
        "FSIZE": limits.disk_mb * 2**20,
        "NOFILE": 128,
        "CORE": 0,
    }
    if cpu:
        kernel["CPU"] = limits.cpu_s
    return {
        "uids": [random.randrange(2**30, 2**31 - 2), _NOBODY],  # noqa: S311
        "limits": kernel,
        "path": site_packages(),
        "files": {_inner_name(name): base64.b64encode(content).decode() for name, content in files.items()},
    }


def _inner_name(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in name:
        raise InvalidRequest(f"The file name {name!r} leads out of the sandbox's folder.", param="files")
    return str(path)


def _tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    found, open_ = [pid], [pid]
    while open_:
        try:
            listed = Path(f"/proc/{open_.pop()}").glob("task/*/children")
            children = [int(child) for path in listed for child in path.read_text().split()]
        except OSError:  # it ended meanwhile
            continue
        found += children
        open_ += children
        if len(found) > 4096:
            break
    return found


def _private_bytes(pid: int) -> int:
    """Its memory that lies in no file, be it swapped out or not."""
    try:
        return sum(map(int, _OWN_MEMORY.findall(Path(f"/proc/{pid}/status").read_bytes()))) * 1024
    except OSError:
        return 0


def _bytes_of_files(tree: list[int]) -> int:
    """What the kernel holds for the files inside beside their content, which the folders' sizes bound."""
    total = 0
    for pid in tree[2:3]:  # not before the program itself is there: until then the folders are the host's
        for folder in ("tmp", "dev/shm"):
            with contextlib.suppress(OSError):
                found = os.statvfs(f"/proc/{pid}/root/{folder}")
                total += (found.f_files - found.f_ffree) * _FILE_BYTES
    return total


def _cpu_s(tree: list[int]) -> float:
    """The processor time of these processes and of those they have waited for."""
    ticks = 0
    for pid in tree:
        with contextlib.suppress(OSError):
            # What stands in brackets is a name of the program's choice, in any bytes.
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[11:15]))
    return ticks / _TICKS_PER_S
