"""What only a server on PostgreSQL can get wrong: claims of the same key at once, texts that it cannot hold."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.conftest import running_server


@pytest.mark.postgres
def test_parallel_duplicates_and_nul_characters(postgres_database: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "home", NORIA_DATABASE_URL=postgres_database) as server:
        found: list[int] = []
        body = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}

        def call() -> None:
            with server.client() as client:
                answer = client.post("/v1/chat/completions", json=body, headers={"idempotency-key": "same"})
                found.append(answer.status_code)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(found) <= {200, 409}
        assert 200 in found
        with server.client() as client:
            assert client.get("/v1/files/%00").status_code == 400
            stored = client.post("/v1/chat/completions", json={**body, "store": True, "metadata": {"a": "b\0"}})
            assert stored.status_code == 400
