"""Runs one Python program behind the walls, to its end or to a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from ._contract import Finished, Limits
from ._process import Walled

__all__ = ["run_python"]

_PIECE = 65536


async def run_python(source: str, files: Mapping[str, bytes] | None = None, limits: Limits | None = None) -> Finished:
    """Runs `source` with `files` in its private working folder. What it prints is cut at the output limit.

    Raises NotBuilt without bubblewrap. A program that fails or is stopped is a result, not an error.
    """
    limits = limits or Limits()
    begun = time.perf_counter()
    walled = await Walled.start(limits, {"mode": "run", "source": source}, files or {}, cpu=True)
    assert walled.process.stdout is not None
    assert walled.process.stderr is not None
    budget = _Budget(walled, limits.output_kb * 1024)
    reading = asyncio.gather(budget.read(walled.process.stdout), budget.read(walled.process.stderr))
    try:
        stdout, stderr = await asyncio.wait_for(asyncio.shield(reading), max(0.0, limits.wall_s - (time.perf_counter() - begun)))
    except TimeoutError:
        walled.stop("time")
        stdout, stderr = await reading
    finally:
        if not reading.done():
            reading.cancel()
        await walled.close()
    code = walled.process.returncode
    if walled.stopped is None and code in {-24, 128 + 24, -9, 128 + 9}:  # SIGXCPU, or SIGKILL at the hard limit
        walled.stopped = "time"
    text = stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace")
    return Finished(*text, None if walled.stopped else code, walled.stopped, time.perf_counter() - begun)


class _Budget:
    """What both streams may print together."""

    def __init__(self, walled: Walled, most: int) -> None:
        self._walled, self._left = walled, most

    async def read(self, stream: asyncio.StreamReader) -> bytes:
        kept: list[bytes] = []
        while piece := await stream.read(_PIECE):
            kept.append(piece[: self._left])
            self._left -= min(self._left, len(piece))
            if self._left == 0:
                self._walled.stop("output")
        return b"".join(kept)
