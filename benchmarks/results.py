"""Where results go: one JSON file each under benchmarks/results, with the commit, the machine and the versions."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

__all__ = ["facts", "save"]

_FOLDER = Path(__file__).parent / "results"
_PACKAGES = ("noria-llm", "openvino", "openvino-genai", "fastapi", "uvicorn", "aiohttp", "faiss-cpu", "tantivy", "numpy")


def facts() -> dict[str, Any]:
    """What a figure depends on beside the program itself."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    versions: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?"
    )
    return {
        "commit": commit,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": platform.python_version(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": versions,
    }


def save(name: str, result: dict[str, Any]) -> Path:
    """Writes `benchmarks/results/NAME.json`."""
    _FOLDER.mkdir(exist_ok=True)
    path = _FOLDER / f"{name}.json"
    path.write_text(json.dumps({"facts": facts(), **result}, indent=1, ensure_ascii=False) + "\n")
    print(f"saved {path}")
    return path
