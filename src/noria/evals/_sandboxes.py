"""How many sandboxes live at once in the whole instance: each may take half a gigabyte and a core.

One that rests keeps its process for its next call, until somebody else needs the place. Knows nothing about graders.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from typing import Protocol

from noria.errors import Unavailable

__all__ = ["Sandboxes"]


class _Session(Protocol):
    async def close(self) -> None: ...


class Sandboxes:
    """`most` live at once; default: one for each core, at least two."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most or max(2, os.cpu_count() or 2)
        self._places = asyncio.Semaphore(self._most)
        self._busy = 0
        self._resting: dict[_Session, None] = {}  # the one that rests longest is first

    @contextlib.asynccontextmanager
    async def place(self, session: _Session, wait_s: float | None = None) -> AsyncGenerator[None]:
        """While the block runs, `session` may have a process. Raises Unavailable after `wait_s`; None waits for ever."""
        try:
            async with asyncio.timeout(wait_s):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable(
                f"All {self._most} sandboxes were busy for {wait_s:g} s.", code="sandboxes_busy", retry_after_s=5.0
            ) from None
        self._busy += 1
        self._resting.pop(session, None)
        try:
            while self._busy + len(self._resting) > self._most:
                oldest = next(iter(self._resting))
                del self._resting[oldest]
                await oldest.close()
            yield
        finally:
            self._busy -= 1
            self._resting[session] = None
            self._places.release()

    async def end(self, session: _Session) -> None:
        self._resting.pop(session, None)
        await session.close()
