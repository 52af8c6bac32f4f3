"""A full disk: what is asked of it fails with 503 and says so, what is there stays, and all is well once there is room."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conftest import running_server
from tests.jobs.ingesting import ALLOW, assert_whole, begin, completed, embed_slowly, settled, until, upload_many

HELLO = [{"role": "user", "content": "hello"}]


def test_a_full_disk_loses_nothing_and_passes(small_disk: Path, tmp_path: Path) -> None:
    with running_server(small_disk / "home", TMPDIR=str(tmp_path), **ALLOW) as server:
        with server.client() as client:
            made = client.post("/v1/noria/keys", json={"name": "k"}).json()
        embed_slowly(server, 0.05)
        client = server.openai()
        kept = client.files.create(file=("kept.txt", io.BytesIO(b"Water lifts the wheel.")), purpose="assistants")
        stored = client.chat.completions.create(model="scripted", messages=HELLO, store=True)
        files = upload_many(server, 6, paragraphs=40)
        store_id = begin(server, files)
        until(lambda: completed(server, store_id))

        ballast = small_disk / "ballast"
        _fill(ballast)

        with pytest.raises(openai.InternalServerError) as full:
            client.files.create(file=("big.bin", io.BytesIO(b"x" * 3_000_000)), purpose="assistants")
        assert full.value.status_code == 503
        assert full.value.code == "disk_full"
        assert "retry-after" in full.value.response.headers
        # Whoever only asks is served, also by a key whose last use cannot be noted.
        assert server.openai(api_key=made["secret"]).chat.completions.create(model="scripted", messages=HELLO).choices
        assert client.files.content(kept.id).read() == b"Water lifts the wheel."
        assert client.chat.completions.retrieve(stored.id).choices[0].message.content == "hello"
        long = [{"role": "user", "content": "x" * 60_000}]
        statuses = {_status(client, long) for _ in range(40)}  # until what SQLite had reserved is used up
        assert statuses <= {200, 503}
        assert 503 in statuses

        ballast.unlink()
        assert client.files.create(file=("again.bin", io.BytesIO(b"x" * 3_000_000)), purpose="assistants").bytes == 3_000_000
        store = settled(server, store_id)
        again = [file.id for file in client.vector_stores.files.list(store_id, filter="failed")]
        for file_id in again:  # those that met the full disk said so; put in again they are read
            chunking = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}
            client.vector_stores.files.create(store_id, file_id=file_id, chunking_strategy=chunking)  # type: ignore[arg-type]
        store = settled(server, store_id)
        print(f"{len(again)} files met the full disk")
        assert store.file_counts.completed == 6
        assert_whole(server.home, store_id, 6)
        with server.client() as http:
            health = http.get("/v1/noria/status").json()["spans"]
        print("spans:", health)
    assert "Traceback" not in server.log() or "disk" in server.log()


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 65536)


def _status(client: openai.OpenAI, messages: Any) -> int:
    try:
        client.chat.completions.create(model="scripted", messages=messages, store=True)
    except openai.APIStatusError as error:
        return error.status_code
    return 200
