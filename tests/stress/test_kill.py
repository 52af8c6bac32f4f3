"""`kill -9`: of the server while it ingests, streams and pulls, and of an engine under load."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import NoriaServer, running_server
from tests.engines.file_server import FileServer
from tests.jobs.ingesting import ALLOW, assert_whole, begin, completed, embed_slowly, rows, settled, until, upload_many

from .conftest import LONG, chat_slowly, engine_pid, idle

MODEL_PATH = "/org/model/resolve/c0ffee/model.safetensors"


def revive(server: NoriaServer) -> None:
    again = server.restart()
    server.process, server.url, server.token = again.process, again.url, again.token


def test_ingestion_survives_three_kills(server: NoriaServer) -> None:
    embed_slowly(server, 0.1)
    store_id = begin(server, upload_many(server, 24, paragraphs=30))
    for _ in range(3):
        have = completed(server, store_id)
        until(lambda have=have: completed(server, store_id) >= have + 2)
        time.sleep(random.uniform(0, 0.3))
        server.kill()
        revive(server)
    assert settled(server, store_id).file_counts.completed == 24
    assert_whole(server.home, store_id, 24)
    until(lambda: rows(server.home, "SELECT 1 FROM job WHERE status='completed' AND subject=?", store_id))
    assert rows(server.home, "SELECT count(*) FROM job WHERE subject=?", store_id) == [(1,)]
    hits = server.openai().vector_stores.search(store_id, query="File 17, part 3", max_num_results=50)
    assert len({(hit.file_id, hit.content[0].text) for hit in hits}) == 50


def test_streams_end_and_what_was_stored_stays(server: NoriaServer) -> None:
    client = server.openai()
    stored = [client.chat.completions.create(model="scripted", messages=LONG, store=True).id for _ in range(10)]
    response = client.responses.create(model="scripted", input="keep this").id
    chat_slowly(server, 0.05)
    outcomes: Counter[str] = Counter()

    def read() -> None:
        try:
            with (
                server.client() as http,
                http.stream(
                    "POST", "/v1/chat/completions", json={"model": "scripted", "messages": LONG, "stream": True}
                ) as answer,
            ):
                for line in answer.iter_lines():
                    outcomes["pieces"] += line.startswith("data:")
            outcomes["whole"] += 1
        except httpx.HTTPError:
            outcomes["cut"] += 1

    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    until(lambda: outcomes["pieces"] > 50)
    engine = engine_pid(server)
    server.kill()
    for thread in threads:
        thread.join(10)
    assert outcomes["cut"] == 20, "nobody may hang, nobody may take half an answer for a whole one"
    assert engine is not None
    until(lambda: not Path(f"/proc/{engine}").exists(), 10)  # no engine outlives its server
    revive(server)
    client = server.openai()
    for identity in stored:
        assert client.chat.completions.retrieve(identity).choices[0].message.content
    assert client.responses.retrieve(response).output_text == "keep this"


def test_an_idempotency_key_of_a_killed_call_is_free_again(server: NoriaServer) -> None:
    chat_slowly(server, 0.2)

    def call() -> httpx.Response:
        with server.client() as http:
            body = {"model": "scripted", "messages": LONG}
            return http.post("/v1/chat/completions", json=body, headers={"idempotency-key": "k"})

    def break_off() -> None:
        with contextlib.suppress(httpx.HTTPError):
            call()

    thread = threading.Thread(target=break_off)
    thread.start()
    until(lambda: rows(server.home, "SELECT 1 FROM idempotency"))
    time.sleep(1)
    server.kill()
    thread.join(10)
    time.sleep(1)
    revive(server)
    chat_slowly(server, 0)
    assert call().status_code == 200


def _serve_model(files: FileServer) -> bytes:
    tensors = (2).to_bytes(8, "little") + b"{}" + os.urandom(4_000_000)
    digest = hashlib.sha256(tensors).hexdigest()
    listed = [{"rfilename": "model.safetensors", "size": len(tensors), "lfs": {"sha256": digest, "size": len(tensors)}}]
    files.add_json("/api/models/org/model/revision/main?blobs=true", {"sha": "c0ffee", "siblings": listed})
    files.add(MODEL_PATH, tensors, etag=f'"{digest}"', chunk_pause_s=0.03)
    return tensors


@pytest.mark.parametrize("how", ["kill", "stop", "cancel"])
def test_an_interrupted_pull_goes_on_where_it_was(tmp_path: Path, how: str) -> None:
    files = FileServer()
    tensors = _serve_model(files)
    env = {**ALLOW, "NORIA_CACHE": str(tmp_path / "cache"), "HF_ENDPOINT": files.url}
    try:
        with running_server(tmp_path / "home", **env) as server:
            command = ["/bin/false", "{socket}", "{model_dir}"]
            server.add_model({"id": "m", "source": "engine", "engine": "command", "command": command, "weights": "hf:org/model"})
            job = _pull(server)
            until(lambda: (_job(server, job)["done"] or 0) > 500_000)
            if how == "cancel":
                with server.client() as client:
                    client.post(f"/v1/noria/jobs/{job}/cancel").raise_for_status()
                until(lambda: _job(server, job)["status"] == "cancelled", 5)
                begun = time.monotonic()
                job = _pull(server)  # waits for the cancelled one's lock: its thread must have let go
            else:
                begun = time.monotonic()
                if how == "kill":
                    server.kill()
                revive(server)
            assert time.monotonic() - begun < 10
            until(lambda: _job(server, job)["status"] in {"completed", "failed"})
            assert _job(server, job)["status"] == "completed", _job(server, job)
        (pulled,) = (tmp_path / "cache").rglob("model.safetensors")
        assert pulled.read_bytes() == tensors
        assert len(files.requests(MODEL_PATH)) == 2
        assert int(files.requests(MODEL_PATH)[1]["range"].removeprefix("bytes=").removesuffix("-")) > 400_000
    finally:
        files.close()


def _pull(server: NoriaServer) -> str:
    with server.client() as client:
        return client.post("/v1/noria/pulls", json={"model": "m"}).raise_for_status().json()["id"]


def _job(server: NoriaServer, identity: str) -> dict[str, Any]:
    with server.client() as client:
        return client.get(f"/v1/noria/jobs/{identity}").json()


def test_an_engine_killed_under_load_comes_back(server: NoriaServer) -> None:
    chat_slowly(server, 0.02)
    server.openai().chat.completions.create(model="scripted", messages=[{"role": "user", "content": "up"}])
    outcomes: Counter[str] = Counter()
    stop = threading.Event()

    def load(streaming: bool) -> None:
        with server.client() as http:
            while not stop.is_set():
                outcomes[_ask(http, streaming=streaming)] += 1

    threads = [threading.Thread(target=load, args=(number % 2 == 0,)) for number in range(16)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            time.sleep(1.5)
            pid = until(lambda: engine_pid(server), 30)
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: engine_pid(server) not in {None, pid}, 30)
        before = outcomes["whole"] + outcomes["streamed"]
        until(lambda: outcomes["whole"] + outcomes["streamed"] > before + 20, 30)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    print("outcomes:", dict(outcomes))
    assert set(outcomes) <= {"whole", "streamed", "503 with Retry-After", "error event"}
    assert outcomes["503 with Retry-After"] > 0
    assert outcomes["error event"] > 0
    until(lambda: idle(server), 10)


def _ask(http: httpx.Client, *, streaming: bool) -> str:
    body: dict[str, Any] = {"model": "scripted", "messages": LONG, "stream": streaming}
    with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            answer.read()
            return f"{answer.status_code} with Retry-After" if "retry-after" in answer.headers else f"{answer.status_code} alone"
        if not streaming:
            answer.read()
            return "whole"
        last = [line for line in answer.iter_lines() if line.startswith("data: ")][-1].removeprefix("data: ")
        return "streamed" if last == "[DONE]" else "error event" if "error" in json.loads(last) else "cut silently"
