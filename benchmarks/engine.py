"""The local engine beside its peers in one run: tokens/s and time to first token at 1, 8 and 32 streams.

Sides, taken in turn within each round so that the machine's moods fall on all of them:
* noria: our worker process, over HTTP, streaming;
* genai: OpenVINO GenAI's bare ContinuousBatchingPipeline in a process of its own. Its host runs the same HTTP front and the
  same streaming client against it, so that the client's and the server's CPU time is charged to both;
* llama: llama-cpp-python's server (its own continuous batching does not exist: requests queue), if asked for;
* noise: our worker with randomised weights, for the quality guard: its answers must be worthless.

Run: python benchmarks/engine.py --gguf MODEL.gguf [--sides noria,genai,llama,noise] [--rounds 3] --out result.json
Peers are installed by pip into a virtual environment under --cache, once. llama-cpp-python compiles for about 13 minutes.
Prompts are distinct, greedy, of about 60 tokens; every answer has exactly --tokens tokens (the end token is forbidden; not so
for llama, whose streamed tokens are counted instead).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

PEERS = {
    "genai": ["openvino-genai==2026.4.1.0", "uvicorn", "uvloop", "httptools", "orjson"],
    "llama": ["llama-cpp-python[server]==0.3.16"],
}
JSON = {"Content-Type": "application/json"}
TOPICS = (
    "rivers",
    "glass",
    "bridges",
    "maps",
    "clocks",
    "bees",
    "iron",
    "paper",
    "tides",
    "wheat",
    "lenses",
    "salt",
    "wool",
    "kites",
)
GUARD = [  # (prompt of a completion, words of which one must come)
    ("The capital of France is", ["Paris"]),
    ("One, two, three, four,", ["five"]),
    ("Monday, Tuesday, Wednesday,", ["Thursday"]),
    ("The opposite of hot is", ["cold"]),
    ("Water freezes at 0 degrees", ["Celsius", "C"]),
    ("The sun rises in the", ["east", "morning", "sky"]),
    ("Romeo and", ["Juliet"]),
    ("A triangle has three", ["sides", "angles"]),
]


@dataclass(frozen=True)
class Side:
    name: str
    base_url: str
    socket: str | None
    process: subprocess.Popen[bytes]
    extra: dict[str, Any]


@dataclass(frozen=True)
class Stream:
    first_s: float
    whole_s: float
    num_tokens: int


def prompt(number: int) -> list[dict[str, str]]:
    topic, other = TOPICS[number % len(TOPICS)], TOPICS[(number * 7 + 3) % len(TOPICS)]
    return [{"role": "user", "content": f"Question {number}: tell me at length how {topic} and {other} changed daily life."}]


# Starting the sides ---------------------------------------------------------------------------------------------------


def peer_python(side: str, cache: Path) -> Path:
    """The interpreter of a virtual environment with the peer in it, made on first use."""
    folder = cache / f"bench-{side}"
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PEERS[side]], check=True)
        subprocess.run([str(python), "-m", "compileall", "-q", str(folder / "lib")], check=False)
        done.touch()
    return python


def start(name: str, options: argparse.Namespace, folder: Path) -> Side:
    socket = str(folder / f"{name}.sock")
    log = (folder / f"{name}.log").open("wb")
    if name in ("noria", "noise"):
        model = options.cache / f"bench-model-{name}"
        if not (model / "noria-model.json").exists():
            command = [sys.executable, "-m", "noria.engines.openvino.prepare", str(options.gguf), str(model)]
            subprocess.run([*command, *(["--randomise", "1"] if name == "noise" else [])], check=True)
        command = [sys.executable, "-m", "noria.engines.openvino", "--model", str(model), "--name", "bench", "--uds", socket]
        extra = {"logit_bias": {"0": -100, "2": -100}}
    elif name == "genai":
        command = [str(peer_python("genai", options.cache)), str(Path(__file__).with_name("engine_genai.py"))]
        command += [str(options.gguf), socket]
        extra = {}
    else:
        # Without interrupt_requests=False a new request cuts the one that runs, by llama-cpp-python's default.
        config: dict[str, Any] = {"host": "127.0.0.1", "port": 8777, "interrupt_requests": False}
        config["models"] = [{"model": str(options.gguf), "model_alias": "bench"}]
        config["models"][0] |= {"n_ctx": 2048, "n_batch": 512, "n_threads": os.cpu_count()}
        (folder / "llama.json").write_text(json.dumps(config))
        command = [
            str(peer_python("llama", options.cache)),
            "-m",
            "llama_cpp.server",
            "--config_file",
            str(folder / "llama.json"),
        ]
        return Side(name, "http://127.0.0.1:8777", None, subprocess.Popen(command, stdout=log, stderr=log), {})
    return Side(name, "http://engine", socket, subprocess.Popen(command, stdout=log, stderr=log), extra)


def client_of(side: Side) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=side.socket, limits=httpx.Limits(max_connections=64))
    return httpx.AsyncClient(transport=transport, base_url=side.base_url, timeout=600)


async def until_ready(side: Side, path: str) -> None:
    async with client_of(side) as client:
        for _ in range(1200):
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(path)).status_code == 200:
                    return
            if side.process.poll() is not None:
                raise SystemExit(f"{side.name} ended with status {side.process.returncode}")
            await asyncio.sleep(0.1)
    raise SystemExit(f"{side.name} did not become ready")


# Measuring ------------------------------------------------------------------------------------------------------------


async def one_stream(client: httpx.AsyncClient, side: Side, number: int, num_tokens: int) -> Stream:
    body = {
        "model": "bench",
        "messages": prompt(number),
        "max_tokens": num_tokens,
        "temperature": 0,
        "stream": True,
        **side.extra,
    }
    begun, first, pieces = time.perf_counter(), 0.0, 0
    async with client.stream("POST", "/v1/chat/completions", content=orjson.dumps(body), headers=JSON) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                choices = orjson.loads(line[6:])["choices"]
                if choices and choices[0]["delta"].get("content"):
                    pieces += 1
                    first = first or time.perf_counter() - begun
    # The end token is forbidden to the other two, which may send several tokens at once; llama.cpp may end, and sends each alone.
    return Stream(first, time.perf_counter() - begun, pieces if side.name == "llama" else num_tokens)


def cpu_seconds(side: Side) -> float:
    fields = Path(f"/proc/{side.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(side: Side, streams: int, first_number: int, num_tokens: int) -> dict[str, float]:
    async with client_of(side) as client:
        cpu, begun = cpu_seconds(side), time.perf_counter()
        done = await asyncio.gather(*(one_stream(client, side, first_number + i, num_tokens) for i in range(streams)))
        took = time.perf_counter() - begun
    return {
        "tokens_per_s": sum(s.num_tokens for s in done) / took,
        "ttft_s": statistics.median(s.first_s for s in done),
        "engine_cpu_s_per_ktoken": (cpu_seconds(side) - cpu) / sum(s.num_tokens for s in done) * 1000,
    }


async def guard(side: Side) -> float:
    """The share of eight plain facts that the model completes."""
    right = 0
    async with client_of(side) as client:
        for text, words in GUARD:
            body = {"model": "bench", "prompt": text, "max_tokens": 6, "temperature": 0}
            answer = (await client.post("/v1/completions", json=body)).json()["choices"][0]["text"]
            right += any(word in answer for word in words)
    return right / len(GUARD)


async def run(options: argparse.Namespace) -> dict[str, Any]:
    counts = [int(n) for n in options.streams.split(",")]
    result: dict[str, Any] = {"settings": settings(options), "sides": {}, "quality_guard": {}}
    with tempfile.TemporaryDirectory(prefix="noria-bench-") as folder:
        sides = [start(name, options, Path(folder)) for name in options.sides.split(",")]
        try:
            for side in sides:
                await until_ready(side, "/v1/models" if side.name == "llama" else "/health")
                if side.name in ("noria", "noise"):
                    result["quality_guard"][side.name] = await guard(side)
            timed = [side for side in sides if side.name != "noise"]
            got: dict[str, dict[int, list[dict[str, float]]]] = {s.name: {n: [] for n in counts} for s in timed}
            number = 1000
            for round_number in range(-1, options.rounds):  # round -1 warms up and is not kept
                for streams in counts:
                    for side in timed:
                        number += streams
                        tokens = 8 if round_number < 0 else options.tokens
                        figures = await measure(side, streams, number, tokens)
                        if round_number >= 0:
                            got[side.name][streams].append(figures)
                            print(f"{side.name:6} {streams:3} streams: {json.dumps(rounded(figures))}", flush=True)
            result["sides"] = {name: {str(n): summary(rows) for n, rows in by.items()} for name, by in got.items()}
        finally:
            for side in sides:
                side.process.terminate()
                side.process.wait(20)
    return result


def rounded(figures: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 3) if math.isfinite(value) else value for key, value in figures.items()}


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return {**rounded(medians), "rounds": [rounded(row) for row in rows]}


def settings(options: argparse.Namespace) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    packages = ("openvino", "numpy", "llguidance", "uvicorn")
    return {
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpus": os.cpu_count(), "cpu": cpu_name(), "load_before": os.getloadavg()[0]},
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "peers": {side: PEERS[side] for side in PEERS if side in options.sides},
        "gguf": options.gguf.name,
        "tokens": options.tokens,
        "rounds": options.rounds,
    }


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--sides", default="noria,genai")
    parser.add_argument("--streams", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/noria").expanduser())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = asyncio.run(run(options))
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(json.dumps({n: {k: v["tokens_per_s"] for k, v in by.items()} for n, by in result["sides"].items()}))
    print("quality guard:", result["quality_guard"])


if __name__ == "__main__":
    main()
