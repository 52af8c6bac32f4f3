"""An eval's run beside a plain asyncio loop over the same endpoint: rows a second, asked, compared and kept.

One server with a scripted model that answers after a while (`--delays`, in ms), and with `--model` the same on a real one. The
plain loop asks `/v1/chat/completions` with as many requests at once as the run has rows under way, compares the answers and
writes JSON lines; the run does what a run does: grades, traces each row, and keeps everything in the database, durably. Sides
take turns.

    python -m benchmarks.evals --rows 1000 --delays 20,200
    python -m benchmarks.evals --rows 200 --delays '' --model smollm2-135m-instruct
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from benchmarks import results

CONCURRENCY = 32
EXACT = {"type": "string_check", "name": "exact", "input": "{{sample.output_text}}", "reference": "{{item.a}}", "operation": "eq"}
PYTHON = {
    "type": "python",
    "name": "python",
    "source": "def grade(sample, item):\n    return float(sample['output_text'].strip() == item['a'])\n",
}
SAMPLING = {"temperature": 0, "max_completion_tokens": 16, "seed": 1}


def rows(count: int, salt: int) -> list[dict[str, str]]:
    """No two alike, nor like those of another turn: a prefix cache must not help the later one."""
    return [{"q": f"{salt}-{number}: name one colour", "a": f"{salt}-{number}: name one colour"} for number in range(count)]


async def plain(url: str, token: str, model: str, items: list[dict[str, str]], out: Path) -> float:
    """Seconds of the loop that one writes by hand."""
    place = iter(items)
    done: list[dict[str, Any]] = []
    headers = {"authorization": f"Bearer {token}"}

    async def worker(session: aiohttp.ClientSession) -> None:
        for item in place:
            body = {"model": model, "messages": [{"role": "user", "content": item["q"]}], **SAMPLING}
            async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
                answer = await reply.json()
            text = answer["choices"][0]["message"]["content"]
            done.append({**item, "text": text, "passed": text == item["a"]})

    begun = time.perf_counter()
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(worker(session) for _ in range(CONCURRENCY)))
    out.write_text("\n".join(map(json.dumps, done)))  # noqa: ASYNC240  (as one does in a loop of one's own)
    assert len(done) == len(items)
    return time.perf_counter() - begun


def run(http: httpx.Client, model: str, items: list[dict[str, str]], criteria: list[dict[str, Any]]) -> float:
    """Seconds from the request that makes the run until it says that it is complete."""
    config = {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True}
    owner = http.post("/v1/evals", json={"data_source_config": config, "testing_criteria": criteria}).raise_for_status().json()
    data = {
        "type": "completions",
        "model": model,
        "input_messages": {"type": "template", "template": [{"role": "user", "content": "{{item.q}}"}]},
        "sampling_params": SAMPLING,
        "source": {"type": "file_content", "content": [{"item": item} for item in items]},
    }
    begun = time.perf_counter()
    made = http.post(f"/v1/evals/{owner['id']}/runs", json={"data_source": data}).raise_for_status().json()
    path = f"/v1/evals/{owner['id']}/runs/{made['id']}"
    while (made := http.get(path).json())["status"] in {"queued", "in_progress"}:
        time.sleep(0.02)
    taken = time.perf_counter() - begun
    assert made["status"] == "completed", made["error"]
    assert made["result_counts"]["total"] == len(items)
    assert made["result_counts"]["errored"] == 0
    http.delete(f"/v1/evals/{owner['id']}")
    return taken


def measure(http: httpx.Client, facts: dict[str, Any], model: str, count: int, turns: int, folder: Path) -> dict[str, Any]:
    """Rows a second of each side: the median of its turns, and every one of them."""
    rates: dict[str, list[float]] = {"plain": [], "noria": [], "noria_python": []}
    for turn in range(turns + 1):  # the first warms up and is not counted
        for place, side in enumerate(rates):
            items = rows(count, turn * 10 + place)
            if side == "plain":
                taken = asyncio.run(plain(facts["url"], facts["token"], model, items, folder / "plain.jsonl"))
            else:
                taken = run(http, model, items, [EXACT] if side == "noria" else [EXACT, PYTHON])
            if turn:
                rates[side].append(count / taken)
    found: dict[str, Any] = {side: {"rows_per_s": statistics.median(each), "turns": each} for side, each in rates.items()}
    found["ratio"] = found["noria"]["rows_per_s"] / found["plain"]["rows_per_s"]
    found["ratio_python"] = found["noria_python"]["rows_per_s"] / found["plain"]["rows_per_s"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--delays", default="20,200", help="Milliseconds to the scripted model's answer; several, or none.")
    parser.add_argument("--model", help="A real model of this machine as well.")
    options = parser.parse_args()
    found: dict[str, Any] = {"rows": options.rows, "concurrency": CONCURRENCY, "turns": options.turns, "sides": {}}
    with tempfile.TemporaryDirectory(prefix="noria-evals-") as temporary:
        folder = Path(temporary)
        command = [sys.executable, "-m", "noria.server", "--home", str(folder / "home"), "--port", "0"]
        server = subprocess.Popen(command, env={**os.environ, "NORIA_ALLOW_ENGINE_COMMANDS": "true"})
        try:
            announced = folder / "home" / "run" / "server.json"
            while not announced.exists():
                assert server.poll() is None, "the server did not start"
                time.sleep(0.1)
            facts = json.loads(announced.read_text())
            headers = {"authorization": f"Bearer {facts['token']}"}
            with httpx.Client(base_url=facts["url"], headers=headers, timeout=600, trust_env=False) as http:
                for delay in filter(None, options.delays.split(",")):
                    script = folder / f"{delay}.toml"
                    script.write_text(f"delay_s = {int(delay) / 1000}\n")
                    card = {"id": f"delay-{delay}", "task": "chat", "source": "engine", "engine": "scripted"}
                    http.post("/v1/noria/models", json={**card, "context_tokens": 4096, "script": str(script)}).raise_for_status()
                    name = f"scripted, {delay} ms"
                    found["sides"][name] = measure(http, facts, card["id"], options.rows, options.turns, folder)
                    print(name, json.dumps(found["sides"][name]), flush=True)
                if options.model:
                    found["sides"][options.model] = measure(http, facts, options.model, options.rows, options.turns, folder)
                    print(options.model, json.dumps(found["sides"][options.model]), flush=True)
        finally:
            server.terminate()
            server.wait(30)
    results.save("evals", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
