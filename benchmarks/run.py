"""All benchmarks, one after the other, results under benchmarks/results: `python -m benchmarks.run [NAME …]`.

Takes an hour or more on two cores and wants the machine for itself. A Noria server with the default models is started for
those that need one. One that fails is reported at the end; the others run on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

_RESULTS = Path(__file__).parent / "results"
NOISE = "noise"
"""The default model with randomised weights: whatever is measured of answers must collapse with it."""


def commands(url: str, gguf: Path) -> dict[str, list[str]]:
    """Each benchmark's command line; `url` is a running server's."""

    def script(name: str, *options: str) -> list[str]:
        return [sys.executable, f"benchmarks/{name}.py", *options, "--out", str(_RESULTS / f"{name}.json")]

    def module(name: str, *options: str) -> list[str]:
        return [sys.executable, "-m", f"benchmarks.{name}", *options]

    return {
        "start": [sys.executable, "-m", "benchmarks.start"],
        "gateway": [sys.executable, "-m", "benchmarks.gateway"],
        "engine": script("engine", "--gguf", str(gguf), "--sides", "noria,genai,llama"),
        "adapters": [sys.executable, "-m", "benchmarks.adapters"],
        "spans": script("spans", "--peers", "phoenix,mlflow", "--sizes", "100000,1000000"),
        "search": script("search", "--embeddings-url", f"{url}/v1", "--query-prefix", "query: "),
        "ingest": script("ingest", "--url", f"{url}/v1"),
        "evals": [sys.executable, "-m", "benchmarks.evals", "--model", "smollm2-135m-instruct", "--rows", "1000"],
        "answers": [sys.executable, "-m", "benchmarks.answers", "--url", url, "--models", f"smollm2-135m-instruct,{NOISE}"],
        "training": module("training", "--rows", "64"),
        "wheel-injection": module("wheel.injection", "--rows", "4000", "--minutes", "9", "--label", "quick"),
        "wheel-injection-long": module("wheel.injection", "--epochs", "2", "--minutes", "45", "--label", "long"),
        "wheel-answers": module("wheel.answers", "--rows", "2000", "--minutes", "20"),
        "wheel-preference": module("wheel.preference", "--minutes", "30"),
        "wheel-planted": module("wheel.planted", "--failures", "20", "--drops", "10"),
    }


def add_noise(url: str, home: Path, gguf: Path) -> None:
    """Prepares the model of noise in a server's home and tells the server of it."""
    folder = home / "models" / NOISE
    subprocess.run([sys.executable, "-m", "noria.engines.openvino.prepare", gguf, folder, "--randomise", "1"], check=True)
    card = {"id": NOISE, "task": "chat", "source": "engine", "engine": "openvino", "folder": f"models/{NOISE}"}
    httpx.post(f"{url}/v1/noria/models", json={**card, "context_tokens": 8192, "memory_mb": 1300}).raise_for_status()


def main() -> int:
    root = Path(__file__).parent.parent
    _RESULTS.mkdir(exist_ok=True)
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="noria-bench-") as folder:
        home = Path(folder)
        server = subprocess.Popen([sys.executable, "-m", "noria.server", "--home", folder, "--port", "0"])
        try:
            announced = home / "run" / "server.json"
            while not announced.exists():
                if server.poll() is not None:
                    print("The server did not start.", file=sys.stderr)
                    return 1
                time.sleep(0.1)
            gguf = next((Path.home() / ".cache" / "noria" / "models" / "smollm2-135m-instruct" / "source").glob("*.gguf"))
            url = json.loads(announced.read_text())["url"]
            every = commands(url, gguf)
            wanted = sys.argv[1:] or list(every)
            if unknown := [name for name in wanted if name not in every]:
                print(f"No benchmark {unknown[0]!r}. There are: {', '.join(every)}.", file=sys.stderr)
                return 2
            for name in wanted:
                print(f"== {name}", flush=True)
                if name == "answers":
                    add_noise(url, home, gguf)
                if subprocess.run(every[name], cwd=root, check=False).returncode:
                    failed.append(name)
        finally:
            server.terminate()
            server.wait(30)
    if failed:
        print(f"Failed: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
