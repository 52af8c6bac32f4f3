"""Queues: everything comes back to its owner, queries overtake, the cancelled is dropped."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from noria.engines.embedding import _batcher
from noria.engines.embedding._batcher import Batcher
from noria.errors import Unavailable


class Slow:
    """An encoder whose vector is (first token, number of tokens); it notes its batches."""

    def __init__(self, seconds_per_batch: float = 0.0) -> None:
        self.seconds = seconds_per_batch
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def encode(self, batch: Sequence[Sequence[int]], /) -> np.ndarray:
        self.gate.wait()
        self.batches.append([tokens[0] for tokens in batch])
        time.sleep(self.seconds)
        if any(tokens[0] == 666 for tokens in batch):
            raise RuntimeError("bad input")
        return np.array([[tokens[0], len(tokens)] for tokens in batch], np.float32)


async def test_every_vector_comes_back_to_its_place() -> None:
    batcher = Batcher(Slow(), 2)
    rng = np.random.default_rng(1)
    requests = [
        [[int(rng.integers(1, 500))] * int(rng.integers(1, 200)) for _ in range(int(rng.integers(1, 80)))] for _ in range(30)
    ]
    answers = await asyncio.gather(*(batcher.encode(request) for request in requests))
    for request, vectors in zip(requests, answers, strict=True):
        assert vectors.tolist() == [[tokens[0], len(tokens)] for tokens in request]
    assert batcher.waiting_tokens == 0
    await batcher.aclose()


async def test_a_query_overtakes_an_ingest() -> None:
    encoder = Slow(0.01)
    batcher = Batcher(encoder, 2)
    ingest = asyncio.create_task(batcher.encode([[1] * 500] * 60))
    await asyncio.sleep(0.03)
    begun = len(encoder.batches)
    await batcher.encode([[2] * 8])
    assert not ingest.done()
    assert len(encoder.batches) <= begun + 4  # of 30
    await ingest
    await batcher.aclose()


async def test_queries_do_not_starve_an_ingest() -> None:
    encoder = Slow(0.002)
    batcher = Batcher(encoder, 2)

    async def ask_on_and_on() -> None:
        while True:
            await batcher.encode([[2] * 8])

    askers = [asyncio.create_task(ask_on_and_on()) for _ in range(4)]
    await asyncio.wait_for(batcher.encode([[1] * 500] * 20), 5)
    for asker in askers:
        asker.cancel()
    await batcher.aclose()


async def test_a_small_ingest_is_not_stuck_behind_a_huge_one() -> None:
    encoder = Slow(0.002)
    batcher = Batcher(encoder, 2)
    huge = asyncio.create_task(batcher.encode([[1] * 500] * 1000))
    await asyncio.sleep(0.01)
    await batcher.encode([[2] * 500] * 4)
    assert not huge.done()
    huge.cancel()
    await batcher.aclose()


async def test_what_was_cancelled_is_not_computed() -> None:
    encoder = Slow()
    encoder.gate.clear()
    batcher = Batcher(encoder, 2)
    first = asyncio.create_task(batcher.encode([[1] * 500] * 50))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    encoder.gate.set()
    await batcher.encode([[2] * 8])
    assert sum(1 in batch for batch in encoder.batches) <= 1
    assert batcher.waiting_tokens == 0
    await batcher.aclose()


async def test_a_failing_batch_fails_its_requests_only() -> None:
    batcher = Batcher(Slow(), 2)
    with pytest.raises(RuntimeError, match="bad input"):
        await batcher.encode([[666]])
    assert (await batcher.encode([[5, 5]])).tolist() == [[5, 2]]
    await batcher.aclose()


async def test_a_full_queue_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batcher, "MAX_WAITING_TOKENS", 1000)
    encoder = Slow()
    encoder.gate.clear()
    batcher = Batcher(encoder, 2)
    first = asyncio.create_task(batcher.encode([[1] * 900]))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as caught:
        await batcher.encode([[2] * 200])
    assert caught.value.retry_after_s
    encoder.gate.set()
    await first
    await batcher.aclose()
