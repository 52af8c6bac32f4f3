"""Reading files in processes of their own, so that no file can crash, hang or eat the server.

A pool of reusable child processes (`_extractor_child.py`), each with limits on memory, CPU time, open files and written
files, spoken to over pipes: a JSON header and the bytes go in, a JSON document comes out (never a pickle: the child has
read hostile input). A child is replaced after a number of files, when it dies and when it is too slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from noria.errors import InvalidRequest, NoriaError, PayloadTooLarge, Unavailable
from noria.knowledge._document import Document, Limits, unreadable

__all__ = ["ExtractorPool"]

_START_TIMEOUT_S = 30.0
# The package's public face pulls in the database and the indexes; the child needs neither their memory nor the second
# that they take to import. So it is given an empty package of that name whose submodules import as usual.
_START_CHILD = """
import sys, types, noria
package = types.ModuleType("noria.knowledge")
package.__path__ = [noria.__path__[0] + "/knowledge"]
sys.modules["noria.knowledge"] = package
from noria.knowledge._extractor_child import main
main()
"""
_ERRORS: dict[str, type[NoriaError]] = {"InvalidRequest": InvalidRequest, "PayloadTooLarge": PayloadTooLarge}


class ExtractorPool:
    """`async with ExtractorPool() as pool: document = await pool.extract(data, filename="a.pdf")`.

    `size` files are read at the same time; further calls wait their turn. A child serves `files_per_process` files, so
    that memory lost inside native libraries is given back.
    """

    def __init__(self, *, size: int = 2, files_per_process: int = 100, limits: Limits | None = None) -> None:
        self._size = size
        self._files_per_process = files_per_process
        self._limits = limits or Limits()
        # None stands for a child not started yet: an idle pool costs no memory.
        self._idle: asyncio.LifoQueue[_Child | None] = asyncio.LifoQueue()
        self._children: set[_Child] = set()
        self._open = False

    async def __aenter__(self) -> Self:
        self._idle = asyncio.LifoQueue()
        for _ in range(self._size):
            self._idle.put_nowait(None)
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open = False
        await asyncio.gather(*(child.stop() for child in self._children))
        self._children.clear()

    async def extract(self, source: bytes | Path, *, filename: str) -> Document:
        """The document in `source` (a Path is read by the child, not here); `filename` decides nothing but hints.

        Raises InvalidRequest (`unreadable_file`) naming the file and what is wrong with it, PayloadTooLarge beyond a limit.
        """
        if not self._open:
            raise Unavailable("The extractor pool is closed.", hint="Use it inside `async with`.")
        num_bytes = await asyncio.to_thread(_size_of, source, filename)
        if num_bytes > self._limits.max_bytes:
            raise PayloadTooLarge(
                f"{filename}: {num_bytes:,} bytes are more than the limit of {self._limits.max_bytes:,}.",
                code="file_too_large",
            )
        child = await self._idle.get()
        try:
            if child is None:
                child = await _Child.start(self._limits)
                self._children.add(child)
            return await child.extract(source, filename=filename, time_s=self._limits.time_s(num_bytes))
        finally:
            if child is not None and (not child.usable or child.num_files >= self._files_per_process):
                self._children.discard(child)
                await asyncio.shield(child.stop())
                child = None
            self._idle.put_nowait(child)


class _TooLong(Exception):
    """An answer is longer than any document within the limits."""


class _Child:
    """One extractor process. `usable` is false from the moment its pipes may be out of step."""

    def __init__(self, process: asyncio.subprocess.Process, max_answer_bytes: int) -> None:
        self._process = process
        self._max_answer_bytes = max_answer_bytes
        self.num_files = 0
        self.usable = True

    @classmethod
    async def start(cls, limits: Limits) -> _Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-c",
            _START_CHILD,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        child = cls(process, limits.max_wire_bytes)
        fields = {name: getattr(limits, name) for name in limits.__slots__}
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await child._ask(fields, b"")
        except (TimeoutError, EOFError, OSError) as error:
            await child.stop()
            raise Unavailable("The extractor process did not start.", hint="Is memory short?") from error
        return child

    async def extract(self, source: bytes | Path, *, filename: str, time_s: float) -> Document:
        data, path = (source, None) if isinstance(source, bytes) else (b"", str(source))
        self.num_files += 1
        self.usable = False
        try:
            async with asyncio.timeout(time_s):
                answer = await self._ask({"filename": filename, "path": path, "time_s": time_s}, data)
        except TimeoutError as error:
            raise unreadable(filename, f"reading it took longer than {time_s:.0f} s.", hint="Split the file.") from error
        except _TooLong as error:
            raise unreadable(filename, "what was read from it is longer than any document may be.") from error
        except (EOFError, OSError, ValueError) as error:
            raise unreadable(filename, f"reading it {await self._how_it_ended()}.") from error
        self.usable = not answer.get("spent", False)
        failure = answer.get("error")
        if failure is not None:
            raise _ERRORS[failure["class"]](
                failure["message"], param=failure["param"], code=failure["code"], hint=failure["hint"]
            )
        try:
            return await asyncio.to_thread(Document.from_wire, answer["document"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise unreadable(filename, "what was read from it makes no document.") from error

    async def stop(self) -> None:
        self.usable = False
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def _ask(self, header: dict[str, Any], data: bytes) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        encoded = orjson.dumps(header)
        stdin.write(len(encoded).to_bytes(8, "big") + len(data).to_bytes(8, "big") + encoded)
        stdin.write(data)
        await stdin.drain()
        size = int.from_bytes(await stdout.readexactly(8), "big")
        if size > self._max_answer_bytes:
            raise _TooLong
        return await asyncio.to_thread(orjson.loads, await stdout.readexactly(size))

    async def _how_it_ended(self) -> str:
        try:
            async with asyncio.timeout(1.0):
                code = await self._process.wait()
        except TimeoutError:
            return "failed"
        if code == -signal.SIGXCPU:
            return "took too much processor time"
        return f"crashed the extractor ({signal.Signals(-code).name})" if code < 0 else "failed for lack of memory"


def _size_of(source: bytes | Path, filename: str) -> int:
    if isinstance(source, bytes):
        return len(source)
    try:
        return source.stat().st_size
    except OSError as error:
        raise unreadable(filename, f"it cannot be opened ({error.strerror}).") from error
