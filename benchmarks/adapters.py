"""What LoRA adapters cost the local engine: base alone, base and three adapters mixed, and an adapter alone, in one process.

Each side at 1, 8 and 32 streams, taken in turn within each round so that the machine's moods fall on all of them: tokens/s,
seconds of the engine's CPU a thousand tokens, median time to the first token. Base alone is measured before the first adapter is
loaded, too: loading must not slow it down. Then how long loading takes (the first has the graph compiled once more), how long
until the first answer, and memory at each stage. Adapters are random, of rank 16 on all projections: speed does not depend on
what they learned.

Run: python -m benchmarks.adapters [--rounds 3] [--tokens 64] [--streams 1,8,32]
Every answer has exactly --tokens tokens (the end token is forbidden, which also turns guessing off); prompts are distinct.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil

from noria.engines import WeightsStore
from noria.engines.openvino._source import tensor_shapes
from noria.engines.openvino._tensors import write_tensors
from noria.settings import load

from .engine import Side, Stream, client_of, cpu_seconds, prompt, until_ready
from .results import save

MODEL = "smollm2-135m-instruct"
ADAPTERS = ("ft:one", "ft:two", "ft:three")
RANK = 16
MIXES: dict[str, tuple[str, ...]] = {"base": (MODEL,), "mixed": (MODEL, *ADAPTERS), "one adapter": ADAPTERS[:1]}


def write_adapter(prepared: Path, folder: Path, seed: int) -> None:
    """A random adapter in PEFT's files, for every projection."""
    from noria.engines.openvino._gguf import GgufModel

    spec = GgufModel(next((prepared / "source").glob("*.gguf"))).spec()
    random, shapes = np.random.default_rng(seed), dict[str, tuple[int, ...]]()
    for name, (out, size) in ((n, s) for n, s in tensor_shapes(spec).items() if "_proj." in n):
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        shapes |= {f"{stem}.lora_A.weight": (RANK, size), f"{stem}.lora_B.weight": (out, RANK)}
    folder.mkdir(parents=True)
    write_tensors(folder / "adapter_model.safetensors", shapes, lambda name: random.normal(0, 0.01, shapes[name]))
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK}
    (folder / "adapter_config.json").write_text(json.dumps(config))


async def stream(client: Any, model: str, number: int, num_tokens: int) -> Stream:
    body = {"model": model, "messages": prompt(number), "max_tokens": num_tokens, "temperature": 0, "stream": True}
    body["logit_bias"] = {"0": -100, "2": -100}
    begun, first = time.perf_counter(), 0.0
    async with client.stream("POST", "/v1/chat/completions", content=orjson.dumps(body)) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not first and line.startswith("data: {") and '"content":"' in line and '"content":""' not in line:
                first = time.perf_counter() - begun
    return Stream(first, time.perf_counter() - begun, num_tokens)


async def measure(side: Side, models: tuple[str, ...], streams: int, number: int, num_tokens: int) -> dict[str, float]:
    names = list(itertools.islice(itertools.cycle(models[::-1]), streams))  # one stream of a mix is an adapter's
    async with client_of(side) as client:
        cpu, begun = cpu_seconds(side), time.perf_counter()
        done = await asyncio.gather(*(stream(client, name, number + i, num_tokens) for i, name in enumerate(names)))
        took = time.perf_counter() - begun
    tokens = streams * num_tokens
    return {
        "tokens_per_s": round(tokens / took, 1),
        "ttft_s": round(statistics.median(s.first_s for s in done), 3),
        "engine_cpu_s_per_ktoken": round((cpu_seconds(side) - cpu) / tokens * 1000, 2),
    }


def memory_mb(side: Side) -> dict[str, float]:
    """Resident memory, and what of it belongs to nobody else (the model's file on disk is mapped, not copied)."""
    found = psutil.Process(side.process.pid).memory_full_info()
    return {"rss": round(found.rss / 2**20), "uss": round(found.uss / 2**20)}


async def load_adapters(side: Side, folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    async with client_of(side) as client:
        for name in ADAPTERS:
            begun = time.perf_counter()
            body = {"name": name, "folder": str(folder / name)}
            (await client.post("/v1/noria/adapters", json=body)).raise_for_status()
            loaded = time.perf_counter() - begun
            await stream(client, name, len(rows), 8)
            answered = time.perf_counter() - begun
            rows.append({"load_s": round(loaded, 2), "first_answer_s": round(answered, 2), "memory_mb": memory_mb(side)})
    return rows


async def rounds(side: Side, mixes: list[str], options: argparse.Namespace, numbers: itertools.count[int]) -> dict[str, Any]:
    """Medians by mix and number of streams. A first round warms up and is not kept."""
    counts = [int(n) for n in options.streams.split(",")]
    kept: dict[str, dict[int, list[dict[str, float]]]] = {mix: {n: [] for n in counts} for mix in mixes}
    for round_number in range(-1, options.rounds):
        for streams, mix in itertools.product(counts, mixes):
            tokens = 8 if round_number < 0 else options.tokens
            got = await measure(side, MIXES[mix], streams, 1000 * next(numbers), tokens)
            if round_number >= 0:
                kept[mix][streams].append(got)
                print(f"{mix:12} {streams:3} streams: {json.dumps(got)}", flush=True)
    return {
        mix: {str(n): {key: statistics.median(row[key] for row in rows) for key in rows[0]} for n, rows in by.items()}
        for mix, by in kept.items()
    }


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command)


async def run(options: argparse.Namespace) -> dict[str, Any]:
    prepared = WeightsStore(load().settings.models_dir).find(MODEL)
    if prepared is None:
        raise SystemExit(f"{MODEL} is not on this machine: noria models pull {MODEL}")
    with tempfile.TemporaryDirectory(prefix="noria-bench-") as name:
        folder = Path(name)
        for seed, adapter in enumerate(ADAPTERS):
            write_adapter(prepared, folder / adapter, seed)
        socket = str(folder / "s")
        command = [sys.executable, "-m", "noria.engines.openvino", "--model", str(prepared), "--name", MODEL, "--uds", socket]
        side = Side("noria", "http://engine", socket, _started(command), {})
        numbers = itertools.count(1)
        try:
            await until_ready(side, "/health")
            before = await rounds(side, ["base"], options, numbers)
            memory = {"base": memory_mb(side)}
            loading = await load_adapters(side, folder)
            after = await rounds(side, list(MIXES), options, numbers)
            memory["with 3 adapters"] = memory_mb(side)
        finally:
            side.process.terminate()
            side.process.wait(30)
    share = {n: round(after["mixed"][n]["tokens_per_s"] / after["base"][n]["tokens_per_s"], 2) for n in after["base"]}
    return {
        "settings": {"model": MODEL, "rank": RANK, "tokens": options.tokens, "rounds": options.rounds},
        "base_before_any_adapter": before["base"],
        "sides": after,
        "mixed_share_of_base": share,
        "loading": loading,
        "memory_mb": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--no-save", action="store_true", help="print the result only")
    options = parser.parse_args()
    result = asyncio.run(run(options))
    print(json.dumps({key: result[key] for key in ("mixed_share_of_base", "loading", "memory_mb")}, indent=1))
    if not options.no_save:
        save("adapters", result)


if __name__ == "__main__":
    main()
