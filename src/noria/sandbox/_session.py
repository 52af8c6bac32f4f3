"""One function of a Python source, called many times behind the walls without starting anew each time.

Each call runs the source in a fresh namespace. A call that loops, allocates without end or kills its process costs that
process only: the next call gets another. After many such ends the source is given up, so that a thousand rows do not wait a
thousand times. A process whose call left something running behind its answer is ended too, without being counted.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import orjson

from ._contract import Limits, Outcome, Stop
from ._process import Walled

__all__ = ["PythonSession"]

_MAX_STOPS = 20
_SAID = {
    "time": "it took longer than {wall_s:g} s, or more than {cpu_s} s of processor time",
    "memory": "it used more than {memory_mb} MiB of memory",
    "processes": "it started more than {processes} processes",
    "output": "its answer was longer than {output_kb} KiB",
    "ended": "its process ended in the middle of the call",
}


class PythonSession:
    """Use `async with`. Calls are served one after another."""

    def __init__(self, source: str, function: str, limits: Limits | None = None) -> None:
        self._head = {"mode": "serve", "source": source, "function": function}
        self._limits = limits or Limits()
        self._walled: Walled | None = None
        self._drained: asyncio.Task[bytes] | None = None
        self._turn = asyncio.Lock()
        self._stops = 0

    async def __aenter__(self) -> PythonSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def close(self) -> None:
        """Ends its process; the next call gets another."""
        await self._end()

    async def call(self, *arguments: Any) -> Outcome:
        """Calls the function with JSON values. Its error, or the limit it met, is in the outcome.

        Raises NotBuilt without bubblewrap.
        """
        async with self._turn:
            if self._stops >= _MAX_STOPS:
                return Outcome(error=f"It was stopped {_MAX_STOPS} times and is not run any more.", stopped="ended")
            try:
                return await self._call(orjson.dumps(arguments))
            except BaseException:
                await self._end()  # its next answer would be that of this call
                raise

    async def _call(self, line: bytes) -> Outcome:
        walled = self._walled
        if walled is None or walled.stopped is not None or walled.process.returncode is not None:
            await self._end()
            walled = self._walled = await Walled.start(self._limits, self._head, {}, cpu=False)
            assert walled.process.stderr is not None
            self._drained = asyncio.ensure_future(_drain(walled.process.stderr))
        assert walled.process.stdout is not None
        walled.begin()
        answer = b""
        try:
            async with asyncio.timeout(self._limits.wall_s):
                await walled.send(line)
                answer = await walled.process.stdout.readline()
        except TimeoutError:
            walled.stop("time")
        except ValueError:  # a line above the stream's limit
            walled.stop("output")
        if answer.endswith(b"\n"):
            if not walled.rest():
                await self._end()
            return _read(answer)
        return await self._broken(walled)

    async def _broken(self, walled: Walled) -> Outcome:
        self._stops += 1
        drained = self._drained
        await self._end()
        why: Stop = walled.stopped or "ended"
        if walled.stopped is None and drained is not None and (said := drained.result()).startswith(b"SyntaxError"):
            return Outcome(error=said.decode("utf-8", "replace").strip())
        facts = {name: getattr(self._limits, name) for name in ("wall_s", "cpu_s", "memory_mb", "processes", "output_kb")}
        return Outcome(error=f"The code was stopped: {_SAID[why].format(**facts)}.", stopped=why)

    async def _end(self) -> None:
        walled, self._walled = self._walled, None
        drained, self._drained = self._drained, None
        if walled is not None:
            await walled.close()
        if drained is not None:
            with contextlib.suppress(Exception):
                await drained


def _read(line: bytes) -> Outcome:
    try:
        reply: Any = orjson.loads(line)
        return Outcome(value=reply.get("value"), error=reply.get("error"))
    except (orjson.JSONDecodeError, AttributeError):
        return Outcome(error="The code wrote something of its own where its answer was expected.")


async def _drain(stream: asyncio.StreamReader) -> bytes:
    """Reads what the code prints so that it never blocks; the beginning is kept."""
    kept = b""
    while piece := await stream.read(65536):
        kept += piece[: max(0, 4096 - len(kept))]
    return kept
