"""The whole path on PostgreSQL, vectors in pgvector included."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import running_server
from tests.server.test_vector_stores import WATER, upload, wait


@pytest.mark.postgres
def test_chat_ingest_search_and_traces_on_postgresql(tmp_path: Path) -> None:
    import pgserver

    database = pgserver.get_server(tmp_path / "pg", cleanup_mode="delete")
    try:
        env = {"NORIA_DATABASE_URL": database.get_uri(), "NORIA_VECTOR_INDEX": "pgvector"}
        with running_server(tmp_path / "home", **env) as server:
            client = server.openai()
            answer = client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "hello"}], store=True)
            assert client.chat.completions.retrieve(answer.id).choices[0].message.content == "hello"
            store = client.vector_stores.create(name="wheels", file_ids=[upload(client, WATER).id])
            wait(client, store.id)
            found = [hit.content[0].text for hit in client.vector_stores.search(store.id, query="noria stream")]
            assert "noria" in found[0]
            again = server.restart()
            try:
                client = again.openai()
                assert [hit.content[0].text for hit in client.vector_stores.search(store.id, query="noria stream")] == found
                with again.client() as http:
                    traces = http.get("/v1/noria/traces", params={"model": "scripted"}).json()["data"]
                    assert traces
                    assert http.get("/v1/noria/status").json()["database"] == "postgresql"
                client.vector_stores.delete(store.id)
            finally:
                again.stop()
    finally:
        database.cleanup()
