"""How long until something answers: `noria --help`, and `noria up` until it is ready and until the first token of a chat.

Beside the help pages of other gateways (where the gateway benchmark has installed them) and llama-cpp-python's server with
the same weights, until its first token (where the engine benchmark has). Weights and compiled models are on the disk; each
start of Noria has a new, empty home, so migrations and the indexing of its own documentation are in it.
    python -m benchmarks.start --rounds 5
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks import results
from benchmarks.data import CACHE

LLAMA = Path.home() / ".cache" / "noria" / "bench-llama" / "bin" / "python"
CHAT = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, "stream": True}
_LONGEST_S = 120
_PORT = 8931


def helps() -> dict[str, list[str]]:
    """Each command line that shows a help page."""
    own = Path(sys.executable).parent / "noria"
    found = {"noria": [str(own), "--help"]}
    for name, program in (("litellm", CACHE / "venv-litellm/bin/litellm"), ("ogx", CACHE / "venv-ogx/bin/ogx")):
        if program.exists():
            found[name] = [str(program), "--help"]
    return found


def time_help(command: Sequence[str]) -> float:
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begun


def first_token(url: str, model: str, begun: float, headers: dict[str, str] | None = None) -> float:
    """Seconds from `begun` until the first text of a streamed answer; asks again until somebody listens."""
    body = {**CHAT, "model": model}
    while time.monotonic() - begun < _LONGEST_S:
        with (
            contextlib.suppress(httpx.TransportError),
            httpx.stream("POST", f"{url}/chat/completions", json=body, headers=headers, timeout=60, trust_env=False) as reply,
        ):
            for line in reply.iter_lines() if reply.status_code == 200 else ():
                if line.startswith("data: {") and (json.loads(line[6:])["choices"] or [{}])[0].get("delta", {}).get("content"):
                    return time.monotonic() - begun
        time.sleep(0.05)
    raise SystemExit(f"{url} gave no token within {_LONGEST_S} s")


def time_noria() -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="noria-start-") as folder:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NORIA_")}
        command = [str(Path(sys.executable).parent / "noria"), "up", "--home", folder, "--port", str(_PORT)]
        begun = time.monotonic()
        server = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        try:
            ready: float | None = None
            while ready is None:
                if server.poll() is not None or time.monotonic() - begun > _LONGEST_S:
                    raise SystemExit("noria up did not start")
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{_PORT}/health", timeout=5, trust_env=False).status_code == 200:
                        ready = time.monotonic() - begun
                time.sleep(0.02)
            token_s = first_token(f"http://127.0.0.1:{_PORT}/v1", "smollm2-135m-instruct", begun)
        finally:
            os.killpg(server.pid, signal.SIGINT)
            stopping = time.monotonic()
            server.wait(60)
            stopped = time.monotonic() - stopping
    return {"ready_s": ready, "first_token_s": token_s, "stop_s": stopped}


def time_llama(gguf: Path) -> dict[str, float]:
    command = [str(LLAMA), "-m", "llama_cpp.server", "--model", str(gguf), "--port", str(_PORT + 2), "--n_threads", "2"]
    begun = time.monotonic()
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return {"first_token_s": first_token(f"http://127.0.0.1:{_PORT + 2}/v1", "any", begun)}
    finally:
        server.terminate()
        server.wait(60)


def middle(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians, and the slowest."""
    found: dict[str, float] = {}
    for name in rounds[0]:
        values = [each[name] for each in rounds]
        found |= {name: round(statistics.median(values), 3), f"slowest_{name}": round(max(values), 3)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    pages = helps()
    for command in pages.values():
        time_help(command)  # byte code is compiled, files are in memory
    shown: dict[str, list[dict[str, float]]] = {name: [] for name in pages}
    for _ in range(options.rounds):
        for name, command in pages.items():
            shown[name].append({"seconds": time_help(command)})
    starts: dict[str, list[dict[str, float]]] = {"noria up": []}
    gguf = next((Path.home() / ".cache/noria/models/smollm2-135m-instruct/source").glob("*.gguf"), None)
    for _ in range(options.rounds):
        starts["noria up"].append(time_noria())
        if LLAMA.exists() and gguf is not None:
            starts.setdefault("llama-cpp-python's server", []).append(time_llama(gguf))
    result: dict[str, Any] = {
        "settings": vars(options),
        "help": {name: middle(rounds) for name, rounds in shown.items()},
        "start": {name: middle(rounds) for name, rounds in starts.items()},
    }
    print(json.dumps(result, indent=1))
    results.save("start", result)


if __name__ == "__main__":
    main()
