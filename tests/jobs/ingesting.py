"""Helpers to ingest slowly and to look at what has become of it, row by row."""

from __future__ import annotations

import contextlib
import io
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import SCRIPTED_EMBEDDING, NoriaServer

ALLOW = {"NORIA_ALLOW_ENGINE_COMMANDS": "true"}


def embed_slowly(server: NoriaServer, delay_s: float) -> None:
    """Each call of the default embedder takes so long from here on."""
    script = server.home / "slow.toml"
    script.write_text(f"delay_s = {delay_s}\n")
    server.add_model({**SCRIPTED_EMBEDDING, "script": str(script)})


def upload_many(server: NoriaServer, count: int, paragraphs: int = 12) -> list[str]:
    """Files of some passages each (100 tokens a passage is the least that chunking allows)."""
    client = server.openai()
    ids: list[str] = []
    for number in range(count):
        text = "\n\n".join(f"File {number}, part {part}. " + "Water lifts the wheel again. " * 20 for part in range(paragraphs))
        ids.append(client.files.create(file=(f"{number}.md", io.BytesIO(text.encode())), purpose="assistants").id)
    return ids


def begin(server: NoriaServer, file_ids: list[str], size: int = 100) -> str:
    chunking: Any = {"type": "static", "static": {"max_chunk_size_tokens": size, "chunk_overlap_tokens": 0}}
    return server.openai().vector_stores.create(name="s", file_ids=file_ids, chunking_strategy=chunking).id


def until(what: Callable[[], Any], timeout_s: float = 60) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.03)
    raise AssertionError("it did not happen in time")


def completed(server: NoriaServer, store_id: str) -> int:
    return server.openai().vector_stores.retrieve(store_id).file_counts.completed


def settled(server: NoriaServer, store_id: str, timeout_s: float = 120) -> Any:
    def ended() -> Any:
        store = server.openai().vector_stores.retrieve(store_id)
        return store if store.file_counts.in_progress == 0 else None

    return until(ended, timeout_s)


def rows(home: Path, query: str, *values: Any) -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"file:{home / 'noria.db'}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(query, values).fetchall()


def assert_whole(home: Path, store_id: str, files: int) -> int:
    """Every completed file has each of its passages exactly once, live; nothing else is there. Returns their number."""
    done = rows(
        home, "SELECT ordinal, generation, num_passages FROM store_file WHERE store_id=? AND status='completed'", store_id
    )
    assert len(done) == files
    total = 0
    for ordinal, generation, count in done:
        query = 'SELECT position, generation, text, start, "end" FROM passage WHERE file_ordinal=? ORDER BY position'
        found = rows(home, query, ordinal)
        assert [row[0] for row in found] == list(range(count)), f"file {ordinal}: lost or doubled"
        assert {row[1] for row in found} == {generation}
        total += count
    assert rows(home, "SELECT count(*) FROM passage WHERE store_id=?", store_id) == [(total,)]
    return total
