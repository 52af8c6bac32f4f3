"""The gateway beside its peers: what it adds to a 20 ms upstream, how many requests it carries, how fast streams pass.

One mock upstream (Noria's scripted model on a TCP port, 20 ms to the first byte) and one load generator, in processes of
their own; each gateway as one worker with its usual logging or tracing. All in one run, each gateway alone on the machine
while it is measured. Peers go into environments under the cache folder the first time: LiteLLM's proxy and OGX by pip,
Portkey's gateway by npm.

    python -m benchmarks.gateway --peers litellm,portkey,ogx --seconds 8
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import psutil

from benchmarks import results
from benchmarks.data import CACHE

# With the newest @hono/node-server that its range allows (1.19) every stream of Portkey's is a 500: its `new Response(stream,
# fetched)` then keeps the fetched answer's headers, which are immutable ("TypeError: immutable"). 1.13 passes them.
PORTKEY, PORTKEY_SERVER = "1.15.2", "1.13.8"
RATES = (25, 100, 250)
CONNECTIONS = 32
STREAMS = 50
WORDS = 100
BODY = {"messages": [{"role": "user", "content": "ping"}], "max_tokens": 16}
LONG = {"messages": [{"role": "user", "content": " ".join(f"word{i}" for i in range(WORDS))}], "stream": True}


@dataclass
class Side:
    """A running gateway: where it listens and what to send."""

    name: str
    url: str
    model: str
    headers: dict[str, str] = field(default_factory=dict)
    pids: list[int] = field(default_factory=list)
    version: str = ""
    failures: list[str] = field(default_factory=list)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(command: list[str], log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)


def wait(url: str, child: subprocess.Popen[bytes], log: Path, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise SystemExit(f"it ended with {child.returncode}:\n{log.read_text()[-3000:]}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2, trust_env=False).status_code < 500:
                return
        time.sleep(0.2)
    raise SystemExit(f"{url} did not answer in time:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[str]:
    script = folder / "script.toml"
    script.write_text("delay_s = 0.02\n")
    port = free_port()
    command = [sys.executable, "-m", "noria.engines.scripted", "--name", "mock", "--port", str(port), "--script", str(script)]
    with process(command, folder / "upstream.log") as child:
        wait(f"http://127.0.0.1:{port}/health", child, folder / "upstream.log")
        yield f"http://127.0.0.1:{port}/v1"


# --- gateways ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def noria(target: str, folder: Path) -> Iterator[Side]:
    home = folder / "home"
    env = {**os.environ, "NORIA_ALLOW_PRIVATE_URLS": "true"}
    log = folder / "noria.log"
    with process([sys.executable, "-m", "noria.server", "--home", str(home), "--port", "0"], log, env) as child:
        announced = home / "run" / "server.json"
        while not announced.exists():
            if child.poll() is not None:
                raise SystemExit(log.read_text()[-3000:])
            time.sleep(0.1)
        facts = json.loads(announced.read_text())
        wait(f"{facts['url']}/health", child, log)
        card = {"id": "mock", "source": "provider", "provider": "custom", "base_url": target}
        httpx.post(f"{facts['url']}/v1/noria/models", json=card, trust_env=False).raise_for_status()
        yield Side("noria", f"{facts['url']}/v1", "mock", {}, [child.pid])


def environment(name: str, packages: list[str]) -> Path:
    """A virtual environment with these packages, made once and compiled (else each start of it would compile)."""
    folder = CACHE / f"venv-{name}"
    python = folder / "bin" / "python"
    if not (folder / ".done").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        subprocess.run([str(python), "-m", "compileall", "-q", str(folder / "lib")], check=False, stdout=subprocess.DEVNULL)
        (folder / ".done").touch()
    return folder / "bin"


def version_of(bin_folder: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([str(bin_folder / "python"), "-c", code], capture_output=True, text=True, check=False).stdout.strip()


@contextlib.contextmanager
def litellm(target: str, folder: Path) -> Iterator[Side]:
    programs = environment("litellm", ["litellm[proxy]"])
    config, port, log = folder / "litellm.yaml", free_port(), folder / "litellm.log"
    config.write_text(
        f"model_list:\n  - model_name: mock\n    litellm_params: {{model: openai/mock, api_base: '{target}', api_key: x}}\n"
        "general_settings: {master_key: sk-bench}\n"
    )
    command = [
        str(programs / "litellm"),
        "--config",
        str(config),
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
        "--num_workers",
        "1",
    ]
    with process(command, log, {**os.environ, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}) as child:
        wait(f"http://127.0.0.1:{port}/health/liveliness", child, log)
        headers = {"authorization": "Bearer sk-bench"}
        yield Side("litellm", f"http://127.0.0.1:{port}", "mock", headers, [child.pid], version_of(programs, "litellm"))


@contextlib.contextmanager
def portkey(target: str, folder: Path) -> Iterator[Side]:
    place = CACHE / "portkey"
    wanted = json.dumps({"dependencies": {"@portkey-ai/gateway": PORTKEY}, "overrides": {"@hono/node-server": PORTKEY_SERVER}})
    manifest = place / "package.json"
    if not manifest.exists() or manifest.read_text() != wanted:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        manifest.write_text(wanted)
        try:
            subprocess.run(["npm", "install", "--silent", "--prefix", str(place)], check=True)
        except BaseException:
            manifest.unlink()
            raise
    package = place / "node_modules" / "@portkey-ai" / "gateway"
    port, log = free_port(), folder / "portkey.log"
    with process(["node", str(package / "build" / "start-server.js"), f"--port={port}", "--headless"], log) as child:
        wait(f"http://127.0.0.1:{port}/", child, log)
        headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": target, "authorization": "Bearer x"}
        version = json.loads((package / "package.json").read_text())["version"]
        yield Side("portkey", f"http://127.0.0.1:{port}/v1", "mock", headers, [child.pid], version)


@contextlib.contextmanager
def ogx(target: str, folder: Path) -> Iterator[Side]:
    programs = environment("ogx", ["ogx", "aiosqlite", "sqlalchemy[asyncio]"])  # needs Python 3.12: make the folder with it
    config, port, log = folder / "ogx.yaml", free_port(), folder / "ogx.log"
    config.write_text(
        f"""version: 2
image_name: bench
apis: [inference]
providers:
  inference:
    - provider_id: mock
      provider_type: remote::vllm
      config: {{base_url: '{target}', url: '{target}', api_token: x}}
storage:
  backends:
    kv: {{type: kv_sqlite, db_path: '{folder}/kv.db'}}
    sql_default: {{type: sql_sqlite, db_path: '{folder}/sql.db'}}
    kv_default: {{type: kv_sqlite, db_path: '{folder}/kv2.db'}}
  stores:
    metadata: {{namespace: registry, backend: kv}}
    inference: {{table_name: inference_store, backend: sql_default}}
    conversations: {{table_name: conversations, backend: sql_default}}
    prompts: {{table_name: prompts, backend: sql_default}}
registered_resources:
  models: [{{model_id: mock, provider_id: mock, provider_model_id: mock, model_type: llm}}]
server: {{port: {port}}}
"""
    )
    with process(
        [str(programs / "ogx"), "run", str(config), "--port", str(port), "--insecure"], log, {**os.environ, "HOME": str(folder)}
    ) as child:
        wait(f"http://127.0.0.1:{port}/v1/health", child, log)
        yield Side("ogx", f"http://127.0.0.1:{port}/v1", "mock/mock", {}, [child.pid], version_of(programs, "ogx"))


@contextlib.contextmanager
def direct(target: str, folder: Path) -> Iterator[Side]:
    yield Side("direct", target, "mock")


GATEWAYS = {"noria": noria, "litellm": litellm, "portkey": portkey, "ogx": ogx, "direct": direct}


# --- load -------------------------------------------------------------------------------------------------------------


def cpu_seconds(side: Side) -> float:
    total = 0.0
    for pid in side.pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(pid)
            for one in [parent, *parent.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = one.cpu_times()
                    total += times.user + times.system
    return total


async def one(session: aiohttp.ClientSession, side: Side) -> float:
    begun = time.perf_counter()
    async with session.post(f"{side.url}/chat/completions", json={"model": side.model, **BODY}, headers=side.headers) as answer:
        data = await answer.read()
    if answer.status != 200:
        side.failures.append(f"{answer.status} {data[:200]!r}")
    return time.perf_counter() - begun


async def at_rate(side: Side, rate: int, seconds: float) -> dict[str, float]:
    """Requests sent on a fixed schedule, whether or not earlier ones are done (no coordinated omission)."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        begun = time.perf_counter()
        tasks: list[asyncio.Task[float]] = []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            tasks.append(asyncio.ensure_future(one(session, side)))
        done = sorted(await asyncio.gather(*tasks))
    return {"p50_ms": 1000 * statistics.median(done), "p99_ms": 1000 * done[int(0.99 * (len(done) - 1))]}


async def at_most(side: Side, seconds: float) -> dict[str, float]:
    """As many as a fixed number of connections can carry."""
    count, cpu, begun = 0, cpu_seconds(side), time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def worker() -> None:
            nonlocal count
            while time.perf_counter() - begun < seconds:
                await one(session, side)
                count += 1

        await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))
    elapsed = time.perf_counter() - begun
    return {"requests_per_s": count / elapsed, "cpu_ms_per_request": 1000 * (cpu_seconds(side) - cpu) / count}


async def streams(side: Side, rounds: int) -> dict[str, float]:
    """Chunks a second over concurrent streams of a hundred words."""
    chunks, begun = 0, time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def stream() -> None:
            nonlocal chunks
            body = {"model": side.model, **LONG}
            async with session.post(f"{side.url}/chat/completions", json=body, headers=side.headers) as answer:
                if answer.status != 200:
                    side.failures.append(f"stream: {answer.status} {(await answer.read())[:200]!r}")
                    return
                async for line in answer.content:
                    chunks += line.startswith(b"data: {")

        for _ in range(rounds):
            await asyncio.gather(*(stream() for _ in range(STREAMS)))
    return {"chunks_per_s": chunks / (time.perf_counter() - begun), "chunks": chunks}


async def measure(side: Side, seconds: float) -> dict[str, Any]:
    await at_rate(side, 20, 2)  # warm
    row: dict[str, Any] = {"version": side.version}
    for rate in RATES:
        row[f"rate_{rate}"] = await at_rate(side, rate, seconds)
    row["maximum"] = await at_most(side, seconds)
    row["streams"] = await streams(side, 4)
    row["failures"] = len(side.failures)
    if side.failures:
        row["first_failure"] = side.failures[0]
    return row


def summary(row: dict[str, Any], direct_row: dict[str, Any]) -> dict[str, Any]:
    """The figures to be quoted: what is added to the upstream's own latency, and what is carried at most."""
    short: dict[str, Any] = {"version": row["version"]}
    for rate in RATES:
        for key in ("p50_ms", "p99_ms"):
            short[f"added {key} at {rate}/s"] = round(row[f"rate_{rate}"][key] - direct_row[f"rate_{rate}"][key], 2)
    short["max requests/s"] = round(row["maximum"]["requests_per_s"], 1)
    short["CPU ms/request"] = round(row["maximum"]["cpu_ms_per_request"], 2)
    short["chunks/s, 50 streams"] = round(row["streams"]["chunks_per_s"]) or "failed"
    short["failures"] = row["failures"]
    return short


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="litellm,portkey,ogx")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    for name in ["direct", "noria", *filter(None, options.peers.split(","))]:
        with tempfile.TemporaryDirectory(prefix="gateway-") as place:
            folder = Path(place)
            try:
                with upstream(folder) as target, GATEWAYS[name](target, folder) as side:
                    rows[name] = asyncio.run(measure(side, options.seconds))
            except (SystemExit, AssertionError, aiohttp.ClientError, subprocess.CalledProcessError) as error:
                rows[name] = {"failed": str(error)[-600:]}
        print(name, json.dumps(rows[name]))
    table = {name: row if "failed" in row else summary(row, rows["direct"]) for name, row in rows.items()}
    if not options.no_save:
        results.save("gateway", {"settings": vars(options), "upstream_ms": 20, "rows": table})


if __name__ == "__main__":
    main()
