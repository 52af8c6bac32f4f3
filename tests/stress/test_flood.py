"""Many clients at once of which half leave in mid-stream: nothing may stay behind."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import httpx
from benchmarks import results

from tests.conftest import NoriaServer
from tests.jobs.ingesting import begin, settled, until, upload_many

from .conftest import CLIENTS, FLOOD_S, LONG, Resources, chat_slowly, idle, open_files, resources

GROWTH_MB = 120.0


def test_half_of_the_clients_leave_in_mid_stream(server: NoriaServer) -> None:
    chat_slowly(server, 0.01)
    store_id = begin(server, upload_many(server, 2))
    settled(server, store_id)
    outcomes = asyncio.run(_flood(server, min(10.0, FLOOD_S), store_id))  # warm: pools, caches, allocator
    until(lambda: idle(server), 20)
    time.sleep(20)  # kept-alive connections to the engine end
    before = resources(server)
    with ThreadPoolExecutor(1) as pool:
        halfway = pool.submit(_halfway, server)
        outcomes = asyncio.run(_flood(server, FLOOD_S, store_id))
        middle = halfway.result()
    end = resources(server)
    until(lambda: idle(server), 20)
    with contextlib.suppress(AssertionError):
        until(lambda: resources(server).files <= before.files + 5, 40)
    after = resources(server)
    print(f"{CLIENTS} clients for {FLOOD_S:.0f} s: {dict(outcomes)}; before {before}; middle {middle}; end {end}; after {after}")
    if FLOOD_S >= 600:
        figures = {"before": before, "middle": middle, "end": end, "after": after}
        server_was = {moment: {name: round(value, 1) for name, value in asdict(of).items()} for moment, of in figures.items()}
        results.save("stress-flood", {"clients": CLIENTS, "seconds": FLOOD_S, "outcomes": dict(outcomes), "server": server_was})
    assert outcomes["left"] > 0
    assert outcomes["whole"] > 0
    assert set(outcomes) <= {"left", "whole", "left before the answer"}, "nobody may be refused or cut"
    assert after.connections <= before.connections + 2
    # The pool of sixteen database connections may have filled only now: two files and a thread each.
    assert after.files <= before.files + 40, sorted(Counter(open_files(server)).items())
    assert after.threads <= before.threads + 20
    assert after.rss_mb - before.rss_mb < GROWTH_MB
    # Caches and the allocator fill in the first half; what still grows in the second, with as many clients, is a leak.
    assert end.rss_mb - middle.rss_mb < GROWTH_MB / 3
    assert end.files <= middle.files + 3 * CLIENTS  # of those in flight, whose number varies
    answer = server.openai().chat.completions.create(model="scripted", messages=LONG, max_tokens=3)
    assert answer.usage and answer.usage.completion_tokens == 3


def _halfway(server: NoriaServer) -> Resources:
    time.sleep(FLOOD_S / 2)
    return resources(server)


async def _flood(server: NoriaServer, seconds: float, store_id: str) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=CLIENTS)
    headers = {"authorization": f"Bearer {server.token}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, limits=limits, timeout=120, trust_env=False) as http:

        async def client(number: int) -> None:
            while time.monotonic() < deadline:
                outcomes[await _once(http, store_id, leaves=number % 2 == 0)] += 1

        await asyncio.gather(*[client(number) for number in range(CLIENTS)])
    return outcomes


async def _once(http: httpx.AsyncClient, store_id: str, *, leaves: bool) -> str:
    """A chat or a grounded response, streamed or whole; who leaves does so after some pieces, or before any."""
    kind = random.choice(["chat", "chat", "response"])
    streaming = random.random() < 0.8
    path = "/v1/chat/completions"
    body: dict[str, object] = {"model": "scripted", "messages": LONG, "stream": streaming}
    if kind == "response":
        path = "/v1/responses"
        tool = {"type": "file_search", "vector_store_ids": [store_id]}
        body = {"model": "scripted", "input": "What lifts the wheel?", "stream": streaming, "tools": [tool], "store": False}
    if leaves and not streaming:
        try:
            await asyncio.wait_for(http.post(path, json=body), random.uniform(0.02, 0.3))
        except TimeoutError:
            return "left before the answer"
        return "whole"
    async with http.stream("POST", path, json=body) as answer:
        if answer.status_code != 200:
            await answer.aread()
            return f"status {answer.status_code}"
        stay = random.randint(1, 8)
        last = ""
        async for line in answer.aiter_lines():
            if line:
                last = line
                stay -= 1
            if leaves and stay < 0:
                return "left"
    return "whole" if "[DONE]" in last or "completed" in last or not streaming else "cut"
