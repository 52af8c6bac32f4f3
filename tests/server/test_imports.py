"""A GGUF file becomes a model by one command: from hubs (on loopback) and from the disk, for the real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conftest import NoriaServer, running_server
from tests.engines import tiny_gguf
from tests.engines.file_server import FileServer, sha256


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """Both hubs' routes, with one repository each."""
    data = tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")
    other = tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "other.gguf", architecture="mamba")
    server = FileServer()
    files = {"tiny-Q4_K_M.gguf": data, "other.gguf": other}
    siblings = [{"rfilename": name, "lfs": {"sha256": sha256(body), "size": len(body)}} for name, body in files.items()]
    server.add_json("/api/models/org/tiny/revision/main?blobs=true", {"sha": "c0ffee", "siblings": siblings})
    for name, body in files.items():
        server.add(f"/org/tiny/resolve/c0ffee/{name}", body)
    listed = [{"Path": "tiny.gguf", "Type": "blob", "Size": len(data), "Sha256": sha256(data)}]
    base = "/api/v1/models/org/tiny/repo"
    server.add_json(f"{base}/files?Revision=master&Recursive=true", {"Code": 200, "Data": {"Files": listed}})
    server.add(f"{base}?Revision=master&FilePath=tiny.gguf", data)
    yield server
    server.close()


@pytest.fixture(scope="module")
def instance(hub: FileServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    cache = str(tmp_path_factory.mktemp("cache"))
    env = {"NORIA_CACHE": cache, "HF_ENDPOINT": hub.url, "MODELSCOPE_DOMAIN": hub.url, "HF_TOKEN": ""}
    with running_server(tmp_path_factory.mktemp("imports"), scripted=False, **env) as server:
        yield server


def noria(server: NoriaServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "NORIA_HOME": str(server.home)}
    command = [sys.executable, "-m", "noria.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=60)


def imported(server: NoriaServer, model: str, gguf: str) -> dict[str, Any]:
    """The job at its end."""
    with server.client() as client:
        job = client.post("/v1/noria/imports", json={"model": model, "gguf": gguf}).raise_for_status().json()
        deadline = time.monotonic() + 60
        while job["status"] in {"queued", "running"}:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            job = client.get(f"/v1/noria/jobs/{job['id']}").json()
    return job


def test_one_command_makes_a_model_of_a_hub_s_file(instance: NoriaServer, hub: FileServer) -> None:
    done = noria(instance, "models", "add", "mine", "--gguf", "hf:org/tiny/tiny-Q4_K_M.gguf", "--title", "My own", "--json")
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert (card["id"], card["title"], card["state"], card["added"]) == ("mine", "My own", "ready", True)
    assert (card["licence"], card["languages"], card["context_tokens"]) == ("apache-2.0", ["en"], tiny_gguf.CONTEXT)
    assert card["parameters"] > 10_000
    assert "tools" in card["supports"]
    answer = instance.openai().chat.completions.create(
        model="mine", messages=[{"role": "user", "content": "hello"}], max_tokens=4, temperature=0
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    asked = len(hub.seen)
    assert imported(instance, "again", "hf:org/tiny/tiny-Q4_K_M.gguf")["status"] == "completed"
    assert len(hub.seen) == asked, "what is on the disk needs no network"


@pytest.mark.slow
def test_by_pattern_from_the_other_hub_and_from_the_disk(instance: NoriaServer, tmp_path: Path) -> None:
    assert imported(instance, "by-pattern", "hf:org/tiny/*Q4_K_M.gguf")["status"] == "completed"
    assert imported(instance, "from-ms", "ms:org/tiny/tiny.gguf")["status"] == "completed"
    tiny_gguf.write(tmp_path / "local.gguf", template=None)
    done = noria(instance, "models", "add", "local", "--gguf", f"file:{os.path.relpath(tmp_path)}/local.gguf")
    assert done.returncode == 0, done.stderr
    assert "no chat template" in " ".join(done.stdout.split()), done.stdout  # a long path moves the line breaks
    with instance.client() as client:
        assert client.get("/v1/noria/models/local").json()["supports"].count("tools") == 0
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        instance.openai().chat.completions.create(model="local", messages=[{"role": "user", "content": "hello"}])
    text = instance.openai().completions.create(model="local", prompt="hello", max_tokens=3)
    assert text.usage is not None


def test_weights_are_removed_of_a_model_that_never_ran(instance: NoriaServer) -> None:
    assert imported(instance, "unused", "ms:org/tiny/tiny.gguf")["status"] == "completed"
    done = noria(instance, "models", "remove", "unused", "--weights", "--yes")
    assert done.returncode == 0, done.stderr
    with instance.client() as client:
        assert client.get("/v1/noria/models/unused").json()["state"] == "missing_weights"


@pytest.mark.slow
def test_many_pulls_leave_room_for_the_rest(instance: NoriaServer, hub: FileServer) -> None:
    body = b"GGUF" + bytes(4_000_000)
    names = [f"slow-{number}.gguf" for number in range(10)]
    siblings = [{"rfilename": name, "lfs": {"sha256": sha256(body), "size": len(body)}} for name in names]
    hub.add_json("/api/models/org/slow/revision/main?blobs=true", {"sha": "c0ffee", "siblings": siblings})
    for name in names:
        hub.add(f"/org/slow/resolve/c0ffee/{name}", body, chunk_pause_s=0.5)
    with instance.client() as client:
        deadline = time.monotonic() + 15  # one file takes twice as long: nothing waits for another's end
        asked = [{"model": name[:-5], "gguf": f"hf:org/slow/{name}"} for name in names]
        jobs = [client.post("/v1/noria/imports", json=each).raise_for_status().json()["id"] for each in asked]
        while sum(bool(hub.requests(f"/org/slow/resolve/c0ffee/{name}")) for name in names) < len(names):
            assert time.monotonic() < deadline, "all of them pull at once"
            time.sleep(0.05)
        client.post(
            "/v1/files", data={"purpose": "assistants"}, files={"file": ("a.txt", b"hello")}, timeout=5
        ).raise_for_status()
        for job in jobs:
            client.post(f"/v1/noria/jobs/{job}/cancel")


def test_what_cannot_be_served_makes_no_card(instance: NoriaServer) -> None:
    job = imported(instance, "alien", "hf:org/tiny/other.gguf")
    assert job["status"] == "failed"
    assert "mamba" in job["error"]
    assert "llama-server" in job["error"]
    assert imported(instance, "alien", "hf:org/tiny/none.gguf")["status"] == "failed"
    assert imported(instance, "alien", "file:/no/such.gguf")["status"] == "failed"
    with instance.client() as client:
        assert client.get("/v1/noria/models/alien").status_code == 404
        for wrong in (
            "hf:org/tiny",
            "hf:org/tiny/model.safetensors",
            "x",
            "gguf:hf:org/tiny/a.gguf",
            "file:a.gguf",
            "hf:o/r/../a.gguf",
        ):
            refused = client.post("/v1/noria/imports", json={"model": "alien", "gguf": wrong})
            assert refused.status_code == 400, wrong
        assert client.post("/v1/noria/imports", json={"model": "a b", "gguf": "hf:o/r/a.gguf"}).status_code == 400
    done = noria(instance, "models", "add", "alien", "--gguf", "hf:org/tiny/other.gguf", "--provider", "openai")
    assert done.returncode == 2
    assert "--provider" in done.stderr
