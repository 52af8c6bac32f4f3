"""Mixes the inputs of all requests into batches, and lets a short query overtake a long ingest.

Two lanes. A request of few tokens (a search query) goes to the quick lane, which is served at every batch boundary; the
rest goes to the bulk lane, where a window of inputs is drawn from the waiting requests in turn, sorted by length and cut
into batches. One thread computes; everything else happens on the event loop. It knows nothing about HTTP or text.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from noria.engines.embedding._encoder import cut_batches, padded_length
from noria.errors import Unavailable

__all__ = ["Batcher", "Encodes"]

QUICK_TOKENS = 256
"""A request of at most this many tokens in all is quick."""

WINDOW_INPUTS = 256
"""Bulk inputs sorted and cut together: enough that lengths within a batch are alike."""

QUICK_IN_A_ROW = 8
"""After so many quick batches a bulk batch gets its turn, so that queries cannot starve an ingest."""

CAREFUL_S = 5.0
"""For so long after a quick request bulk batches are kept small, for the next one is likely to come soon …"""
CAREFUL_TOKENS = 600
"""… and may have to wait for one of them. Batches of 584 tokens ran at 0.9 of the rate of those of 1,168."""

MAX_WAITING_TOKENS = 8_000_000


class Encodes(Protocol):
    def encode(self, batch: Sequence[Sequence[int]], /) -> NDArray[np.float32]: ...


class _Job:
    """One request: its inputs, and the vectors as they come."""

    __slots__ = ("done", "inputs", "missing", "next", "vectors")

    def __init__(self, inputs: Sequence[Sequence[int]], dimensions: int) -> None:
        self.inputs = inputs
        self.vectors = np.empty((len(inputs), dimensions), np.float32)
        self.missing = len(inputs)
        self.next = 0  # the first input that no window has drawn
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


_Item = tuple[_Job, int]  # one input of a job


class Batcher:
    """Runs one encoder for many requests. Use `await batcher.encode(inputs)`; close with `await batcher.aclose()`."""

    def __init__(self, encoder: Encodes, dimensions: int) -> None:
        self._encoder = encoder
        self._dimensions = dimensions
        self._quick: deque[_Item] = deque()
        self._bulk: deque[_Job] = deque()
        self._window: deque[list[_Item]] = deque()
        self._quick_run = 0
        self._quick_at = float("-inf")
        self._waiting_tokens = 0
        self._work = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "encoder")
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting_tokens(self) -> int:
        return self._waiting_tokens

    async def encode(self, inputs: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The inputs' vectors, `[len(inputs), dimensions]`; cancelling drops what has not run.

        Raises Unavailable when too much is waiting already.
        """
        tokens = sum(map(len, inputs))
        if self._waiting_tokens and self._waiting_tokens + tokens > MAX_WAITING_TOKENS:
            raise Unavailable("The embedder's queue is full.", code="overloaded", retry_after_s=5.0)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        job = _Job(inputs, self._dimensions)
        if tokens <= QUICK_TOKENS:
            self._quick_at = time.monotonic()
            self._quick.extend((job, index) for index in range(len(inputs)))
        else:
            self._bulk.append(job)
        self._waiting_tokens += tokens
        self._work.set()
        try:
            await job.done
        finally:
            self._waiting_tokens -= tokens
        return job.vectors

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = self._next_batch()
            if not batch:
                self._work.clear()
                await self._work.wait()
                continue
            rows = [job.inputs[index] for job, index in batch]
            try:
                vectors = await loop.run_in_executor(self._thread, self._encoder.encode, rows)
            except Exception as error:
                for job, _ in batch:
                    if not job.done.done():
                        job.done.set_exception(error)
                continue
            for row, (job, index) in enumerate(batch):
                job.vectors[index] = vectors[row]
                job.missing -= 1
                if job.missing == 0 and not job.done.done():
                    job.done.set_result(None)

    def _next_batch(self) -> list[_Item]:
        """The next inputs to run together; empty when nothing waits."""
        bulk_waits = bool(self._window or self._bulk)
        if self._quick and not (bulk_waits and self._quick_run >= QUICK_IN_A_ROW):
            self._quick_run += 1
            if batch := self._quick_batch():
                return batch
        self._quick_run = 0
        while bulk_waits:
            if not self._window:
                self._draw_window()
            if not self._window:
                break
            if batch := [item for item in self._window.popleft() if not item[0].done.done()]:
                return self._not_too_much(batch)
        return self._quick_batch()

    def _not_too_much(self, batch: list[_Item]) -> list[_Item]:
        """The batch, or while queries are about its first part; the rest goes back."""
        if time.monotonic() - self._quick_at > CAREFUL_S:
            return batch
        longest = max(len(job.inputs[index]) for job, index in batch)
        size = max(1, CAREFUL_TOKENS // padded_length(longest))
        if size < len(batch):
            self._window.appendleft(batch[size:])
        return batch[:size]

    def _quick_batch(self) -> list[_Item]:
        waiting = [item for item in self._quick if not item[0].done.done()]
        if not waiting:
            self._quick.clear()
            return []
        chosen = next(cut_batches([len(job.inputs[index]) for job, index in waiting]))
        picked = set(chosen)
        self._quick = deque(item for position, item in enumerate(waiting) if position not in picked)
        return [waiting[position] for position in chosen]

    def _draw_window(self) -> None:
        """Takes inputs from the bulk jobs in turn, so that a small one is not stuck behind a huge one."""
        items: list[_Item] = []
        while self._bulk and len(items) < WINDOW_INPUTS:
            share = max(1, WINDOW_INPUTS // len(self._bulk))
            job = self._bulk.popleft()
            if job.done.done():
                continue
            last = min(job.next + share, len(job.inputs))
            items.extend((job, index) for index in range(job.next, last))
            job.next = last
            if job.next < len(job.inputs):
                self._bulk.append(job)
        lengths = [len(job.inputs[index]) for job, index in items]
        self._window.extend([items[position] for position in chosen] for chosen in cut_batches(lengths))
