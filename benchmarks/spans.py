"""Spans in and out: spans/s over OTLP/HTTP and query latency, beside Arize Phoenix and MLflow.

    python benchmarks/spans.py --spans 20000 --sizes 100000,1000000 --peers phoenix,mlflow --out benchmarks/results/spans.json

Each server runs in a process of its own; the client sends the same protobuf bodies (100 spans of about 2.4 KB each, four
at a time) and the clock stops when every span is in the server's database, not when the last answer came. Peers are
installed in virtual environments under the cache folder the first time. Noria's query latencies are measured in
process on stores filled by the same writer; Phoenix's through its REST API at the size that `--peer-size` names.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import random
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from noria.tracing import TraceFilter, TracingOptions, configure
from noria.tracing._otlp import from_protobuf

CACHE = Path(os.environ.get("NORIA_BENCH_CACHE", Path.home() / ".cache" / "noria" / "bench"))
BATCH, CONNECTIONS = 100, 4
START_NS = 1_790_000_000_000_000_000

SERVER = """
import sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from noria.tracing import TracingOptions, configure

tracing = configure(TracingOptions(sys.argv[1]), set_global=False)

async def traces(request):
    headers = request.headers
    reply = await tracing.ingest_otlp(await request.body(), headers["content-type"], headers.get("content-encoding"))
    return Response(reply.body, media_type=reply.content_type)

uvicorn.run(Starlette(routes=[Route("/v1/traces", traces, methods=["POST"])]), port=int(sys.argv[2]), log_level="warning")
"""


class Spans:
    """Endless chat spans whose words follow Zipf's law, as texts do."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._words = ["".join(self._random.choices(letters, k=self._random.randint(2, 10))) for _ in range(20_000)]
        self._weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(20_000)))
        self._made = 0

    def text(self, words: int) -> str:
        return " ".join(self._random.choices(self._words, cum_weights=self._weights, k=words))

    def body(self, count: int = BATCH) -> bytes:
        """An export request of this many traces of one span."""
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        group.resource.attributes.add(key="service.name").value.string_value = f"app-{self._made // BATCH % 5}"
        spans = group.scope_spans.add().spans
        for _ in range(count):
            start_ns = START_NS + self._made * 1_000_000
            span = spans.add(
                trace_id=self._random.randbytes(16), span_id=self._random.randbytes(8), name="chat model", kind=3,
                start_time_unix_nano=start_ns, end_time_unix_nano=start_ns + int(self._random.expovariate(1e-9)),
            )  # fmt: skip
            span.status.code = 2 if self._random.random() < 0.02 else 0
            self._attributes(span)
            self._made += 1
        return request.SerializeToString()

    def _attributes(self, span: Any) -> None:
        number = self._random.randrange(10_000)
        asked = [{"role": "system", "parts": [{"type": "text", "content": "You are a helpful assistant."}]},
                 {"role": "user", "parts": [{"type": "text", "content": self.text(90)}]}]  # fmt: skip
        said = [{"role": "assistant", "parts": [{"type": "text", "content": self.text(190)}], "finish_reason": "stop"}]
        for key, value in (
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "openai"),
            ("gen_ai.request.model", f"model-{number % 7}"),
            ("gen_ai.conversation.id", f"conversation-{number}"),
            ("gen_ai.input.messages", json.dumps(asked)),
            ("gen_ai.output.messages", json.dumps(said)),
            ("noria.metadata.tenant", f"tenant-{number % 100}"),
        ):
            span.attributes.add(key=key).value.string_value = value
        span.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = 120
        span.attributes.add(key="gen_ai.usage.output_tokens").value.int_value = number
        span.attributes.add(key="noria.cost_usd").value.double_value = number / 1e6


@dataclass(frozen=True)
class Target:
    """A server that takes OTLP: how to start it, and how many spans its database holds."""

    name: str
    command: Callable[[Path, int], list[str]]
    environment: Callable[[Path, int], dict[str, str]]
    headers: dict[str, str]
    database: str
    table: str
    ready: str


def venv(name: str, packages: list[str]) -> Path:
    """A virtual environment with these packages, built once."""
    home = CACHE / name
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        subprocess.run([home / "bin" / "pip", "install", "-q", *packages], check=True)
        subprocess.run([home / "bin" / "python", "-m", "compileall", "-q", home / "lib"], check=False)
        (home / "ready").touch()
    return home / "bin"


def targets() -> dict[str, Target]:
    def noria(home: Path, port: int) -> list[str]:
        return [sys.executable, "-c", SERVER, f"sqlite:///{home / 'traces.db'}", str(port)]

    def phoenix(home: Path, port: int) -> list[str]:
        return [str(venv("phoenix", ["arize-phoenix"]) / "phoenix"), "serve"]

    def mlflow(home: Path, port: int) -> list[str]:
        return [
            str(venv("mlflow", ["mlflow"]) / "mlflow"), "server", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}", "--artifacts-destination", str(home / "artifacts"),
        ]  # fmt: skip

    def phoenix_settings(home: Path, port: int) -> dict[str, str]:
        return {"PHOENIX_PORT": str(port), "PHOENIX_GRPC_PORT": str(free_port()), "PHOENIX_WORKING_DIR": str(home),
                "PHOENIX_TELEMETRY_ENABLED": "false"}  # fmt: skip

    return {
        "noria": Target("noria", noria, lambda *_: {}, {}, "traces.db", "trace_spans", "/"),
        "phoenix": Target("phoenix", phoenix, phoenix_settings, {}, "phoenix.db", "spans", "/"),
        "mlflow": Target("mlflow", mlflow, lambda *_: {}, {"x-mlflow-experiment-id": "0"}, "mlflow.db", "spans", "/health"),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(target: Target, home: Path) -> Iterator[tuple[int, psutil.Process]]:
    port = free_port()
    environment = {**os.environ, **target.environment(home, port)}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(target.command(home, port), env=environment, stdout=log, stderr=log, cwd=home)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{target.ready}", timeout=5)
                break
            except urllib.error.HTTPError:
                break  # it answers
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((home / "log").read_text(errors="replace")[-2000:]) from None
                time.sleep(0.3)
        yield port, psutil.Process(process.pid)
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        for child in children:
            child.terminate()
        process.wait(30)


def resident_mb(process: psutil.Process) -> float:
    alive = [process, *process.children(recursive=True)]
    return sum(each.memory_info().rss for each in alive) / 2**20


def stored(path: Path, table: str) -> int:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10) as database:
            return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def measure_ingest(target: Target, bodies: list[bytes]) -> dict[str, Any]:
    home = Path(tempfile.mkdtemp(prefix=f"noria-bench-{target.name}-"))
    total = len(bodies) * BATCH
    headers = {"Content-Type": "application/x-protobuf", **target.headers}
    peak = 0.0
    try:
        with running(target, home) as (port, process):

            def send(body: bytes) -> None:
                request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/traces", body, headers)
                while True:
                    try:
                        urllib.request.urlopen(request, timeout=120).read()
                        return
                    except urllib.error.HTTPError as error:
                        if error.code != 503:
                            raise
                        time.sleep(0.2)

            send(bodies[0])  # warm; counted in `total`, not in the time
            while stored(home / target.database, target.table) < BATCH:
                time.sleep(0.05)
            began = time.perf_counter()
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                for done, _ in enumerate(pool.map(send, bodies[1:])):
                    if done % 20 == 0:
                        peak = max(peak, resident_mb(process))
            answered = time.perf_counter() - began
            while stored(home / target.database, target.table) < total:
                if time.perf_counter() - began > 1200:
                    raise RuntimeError(f"{target.name} did not store all spans")
                time.sleep(0.05)
            took = time.perf_counter() - began
            peak = max(peak, resident_mb(process))
            cpu = process.cpu_times()
        size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return {
        "spans": total, "spans_per_s": round((total - BATCH) / took), "answered_s": round(answered, 2),
        "stored_s": round(took, 2), "peak_rss_mb": round(peak), "server_cpu_s": round(cpu.user + cpu.system, 2),
        "disk_bytes_per_span": round(size / total),
    }  # fmt: skip


async def measure_queries(size: int, repeats: int) -> dict[str, Any]:
    home = Path(tempfile.mkdtemp(prefix="noria-bench-queries-"))
    makes = Spans(2)
    tracing = configure(TracingOptions(f"sqlite:///{home / 'traces.db'}"), set_global=False)
    # 200 different bodies, re-dated and re-identified: making a million texts would take longer than storing them.
    prepared = [from_protobuf(makes.body(), TraceFilter().project)[0] for _ in range(min(200, size // BATCH))]
    began, number = time.perf_counter(), 0
    while number < size:
        for records in prepared:
            batch = []
            for record in records:
                copy = type(record)(**{name: getattr(record, name) for name in record.__slots__})
                copy.trace_id, copy.span_id = os.urandom(16).hex(), os.urandom(8).hex()
                length = record.end_ns - record.start_ns
                copy.start_ns = START_NS + number * 1_000_000
                copy.end_ns = copy.start_ns + length
                copy.attributes = dict(record.attributes)
                copy.attributes["noria.metadata.number"] = str(number)
                batch.append(copy)
                number += 1
            tracing._writer.put_all(batch, 2400 * len(batch)).result(60)
            if number >= size:
                break
    tracing.flush(600)
    filled = time.perf_counter() - began
    store = tracing.store
    rare = next(word for word in reversed(makes._words) if len(word) > 8)
    queries: dict[str, Callable[[], Any]] = {
        "latest_50": lambda: store.list(TraceFilter()),
        "model": lambda: store.list(TraceFilter(model="model-3")),
        "status_error": lambda: store.list(TraceFilter(status="error")),
        "slow_over_7_s": lambda: store.list(TraceFilter(min_latency_s=7)),
        "model_and_error_and_slow": lambda: store.list(TraceFilter(model="model-3", status="error", min_latency_s=2)),
        "costly": lambda: store.list(TraceFilter(min_cost_usd=0.0099)),
        "session": lambda: store.list(TraceFilter(session_id="conversation-17")),
        "metadata_1_percent": lambda: store.list(TraceFilter(metadata={"tenant": "tenant-5"})),
        "metadata_one": lambda: store.list(TraceFilter(metadata={"number": str(size // 2)})),
        "time_range": lambda: store.list(TraceFilter(from_ns=START_NS + size * 500_000, to_ns=START_NS + size * 510_000)),
        "text_rare_word": lambda: store.list(TraceFilter(text=rare)),
        "text_common_words": lambda: store.list(TraceFilter(text=f"{makes._words[3]} {makes._words[40]}")),
        "slowest_50": lambda: store.list(TraceFilter(), order="slowest"),
    }
    result: dict[str, Any] = {"filled_spans_per_s": round(size / filled), "bytes": (home / "traces.db").stat().st_size}
    for name, query in queries.items():
        times = []
        for _ in range(repeats):
            at = time.perf_counter()
            page = await query()
            times.append((time.perf_counter() - at) * 1000)
        times.sort()
        result[name] = {
            "p50_ms": round(statistics.median(times), 2),
            "p95_ms": round(times[int(len(times) * 0.95)], 2),
            "found": len(page.traces),
        }
    one = (await store.list(TraceFilter(), limit=1)).traces[0].trace_id
    at = time.perf_counter()
    await store.get(one)
    result["get_ms"] = round((time.perf_counter() - at) * 1000, 2)
    tracing.close()
    shutil.rmtree(home, ignore_errors=True)
    return result


def machine() -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "commit": commit, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version,
        "cpus": os.cpu_count(), "load_before": os.getloadavg(),
        "settings": {"batch": BATCH, "connections": CONNECTIONS},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spans", type=int, default=20_000, help="spans sent to Noria")
    parser.add_argument("--peer-spans", type=int, default=3_000, help="spans sent to each peer, which are slower")
    parser.add_argument("--peers", default="", help="comma-separated: phoenix, mlflow")
    parser.add_argument("--sizes", default="100000", help="comma-separated sizes of the stores queried; empty for none")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "ingest": {}, "queries": {}}
    known, makes = targets(), Spans()
    for name in ["noria", *filter(None, options.peers.split(","))]:
        count = options.spans if name == "noria" else options.peer_spans
        if count:
            bodies = [makes.body() for _ in range(count // BATCH)]
            result["bytes_per_span"] = round(sum(map(len, bodies)) / (len(bodies) * BATCH))
            result["ingest"][name] = measure_ingest(known[name], bodies)
            print(name, result["ingest"][name], flush=True)
    for size in filter(None, options.sizes.split(",")):
        result["queries"][size] = asyncio.run(measure_queries(int(size), options.repeats))
        print(size, json.dumps(result["queries"][size], indent=1), flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
