"""What the stress tests share: a slow scripted chat model, a look at a process's resources, and a small disk.

All are `slow`. `NORIA_STRESS_S` is how long the flood lasts (default 60; the ten minutes are NORIA_STRESS_S=600),
`NORIA_STRESS_CLIENTS` how many flood (200).
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.conftest import SCRIPTED_CHAT, NoriaServer, running_server
from tests.jobs.ingesting import ALLOW

FLOOD_S = float(os.environ.get("NORIA_STRESS_S", "60"))
CLIENTS = int(os.environ.get("NORIA_STRESS_CLIENTS", "200"))
LONG = [{"role": "user", "content": "word " * 60}]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/stress" in str(item.path):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(900 + 2 * FLOOD_S))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NoriaServer]:
    with running_server(tmp_path / "home", **ALLOW) as server:
        yield server


def chat_slowly(server: NoriaServer, chunk_delay_s: float) -> None:
    """The chat model takes so long for each word from here on."""
    script = server.home / "chat.toml"
    script.write_text(f"chunk_delay_s = {chunk_delay_s}\n")
    server.add_model({**SCRIPTED_CHAT, "script": str(script)})


@dataclass(frozen=True)
class Resources:
    rss_mb: float
    files: int
    connections: int
    threads: int


def resources(server: NoriaServer) -> Resources:
    process = psutil.Process(server.process.pid)
    return Resources(
        process.memory_info().rss / 2**20, process.num_fds(), len(process.net_connections("inet")), process.num_threads()
    )


def open_files(server: NoriaServer) -> list[str]:
    """What the server's descriptors point at; sockets and pipes without their numbers."""
    shown: list[str] = []
    for descriptor in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            shown.append(re.sub(r":\[\d+\]$", "", str(descriptor.readlink())))
    return shown


def idle(server: NoriaServer) -> bool:
    """No call is admitted and no engine is leased."""
    with server.client() as client:
        running = client.get("/v1/noria/status").json()["running_calls"]
        engines = client.get("/v1/noria/engines").json()["data"]
    return running == 0 and all(engine["in_flight"] == 0 for engine in engines)


def engine_pid(server: NoriaServer, name: str = "scripted") -> int | None:
    with server.client() as client:
        engines = client.get("/v1/noria/engines").json()["data"]
    return next((engine["pid"] for engine in engines if engine["name"] == name and engine["state"] == "ready"), None)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 24 MiB; needs root."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=False)
