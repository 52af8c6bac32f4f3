"""One sandboxed process: started, watched from outside, ended with all it has started.

The kernel's own limits hold for each process; what all of them use together is looked at from here a few times a second.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import signal
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from noria.errors import InvalidRequest

from ._bubblewrap import command, require_sandbox, site_packages
from ._contract import Limits, Stop

__all__ = ["Walled"]

_PROGRAM = (Path(__file__).parent / "_inside.py").read_text(encoding="utf-8")
_LOOK_EVERY_S = 0.1
_NOBODY = 65534
_PAGE = os.sysconf("SC_PAGE_SIZE")
_FRAME = 3
"""bubblewrap's two processes and Python itself."""


class Walled:
    """A process behind the walls. `stopped` says why it was ended, if it was."""

    def __init__(self, process: asyncio.subprocess.Process, limits: Limits) -> None:
        self.process, self.limits = process, limits
        self.stopped: Stop | None = None
        self._guard = asyncio.ensure_future(self._watch())

    @classmethod
    async def start(cls, limits: Limits, head: Mapping[str, Any], files: Mapping[str, bytes], *, cpu: bool) -> Walled:
        """Raises NotBuilt where there is no bubblewrap, InvalidRequest for a file name that leads out."""
        await asyncio.to_thread(require_sandbox)
        full = orjson.dumps({**head, **_frame(limits, files, cpu=cpu)})
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command(limits, _PROGRAM),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            limit=limits.output_kb * 1024,
            start_new_session=True,
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
            elif sum(map(_private_bytes, tree)) > most_bytes:
                self.stop("memory")

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
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * _PAGE
