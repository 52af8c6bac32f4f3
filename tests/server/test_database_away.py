"""PostgreSQL stops, hangs and comes back under a running server: 503 with Retry-After meanwhile, and no restart."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import PG_BIN, NoriaServer, Postgres, running_server

pytestmark = [pytest.mark.postgres, pytest.mark.skipif(not (PG_BIN / "initdb").exists(), reason="needs PostgreSQL")]

CHAT: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}
# Each needs the database: what is only asked of a model may be answered meanwhile.
CALLS: list[tuple[str, str, Any]] = [
    ("GET", "/health", None),
    ("GET", "/v1/files", None),
    ("GET", "/v1/vector_stores", None),
    ("POST", "/v1/vector_stores", {"name": "a"}),
    ("POST", "/v1/chat/completions", {**CHAT, "store": True}),
    ("POST", "/v1/responses", {"model": "scripted", "input": "hello"}),
    ("GET", "/v1/responses/resp_none", None),
    ("GET", "/v1/noria/keys", None),
    ("POST", "/v1/noria/keys", {"name": "k"}),
    ("GET", "/v1/noria/jobs", None),
    ("GET", "/v1/noria/traces", None),
    ("GET", "/v1/noria/traces/stats", None),
    ("GET", "/v1/noria/providers", None),
]


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    made = Postgres()
    made.start()
    yield made
    made.close()


def call(server: NoriaServer, method: str, path: str, body: Any) -> tuple[httpx.Response, float]:
    """The answer, and how long it took."""
    begun = time.monotonic()
    headers = {"idempotency-key": os.urandom(8).hex()} if path == "/v1/vector_stores" and body else {}
    with server.client() as client:
        answer = client.request(method, path, json=body, headers=headers)
    return answer, time.monotonic() - begun


def all_is_well(server: NoriaServer) -> bool:
    return all(call(server, *one)[0].status_code in {200, 404} for one in CALLS if one[1] != "/v1/noria/keys")


def until_well(server: NoriaServer, timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not all_is_well(server):
        assert time.monotonic() < deadline, server.log()[-4000:]
        time.sleep(0.2)


def check_away(server: NoriaServer, most_s: float) -> None:
    for one in CALLS:
        answer, took_s = call(server, *one)
        assert answer.status_code == 503, (one, answer.text, server.log()[-4000:])
        assert answer.json()["error"]["code"] == "database_unavailable", (one, answer.text)
        assert int(answer.headers["retry-after"]) >= 1
        assert took_s < most_s, (one, took_s)


def test_it_stops_and_starts_again(postgres: Postgres, tmp_path: Path) -> None:
    with running_server(tmp_path / "home", NORIA_DATABASE_URL=postgres.url) as server:
        assert all_is_well(server)
        for _ in range(2):
            postgres.stop()
            check_away(server, 8)
            assert call(server, "POST", "/v1/chat/completions", CHAT)[0].status_code in {200, 503}
            postgres.start()
            until_well(server)
        assert "Traceback" not in server.log()
        answer, _ = call(server, "POST", "/v1/chat/completions", CHAT)
        with server.client() as client:  # spans are written again
            client.get(f"/v1/noria/traces/{answer.headers['x-noria-trace-id']}").raise_for_status()


def test_it_hangs_and_goes_on(postgres: Postgres, tmp_path: Path) -> None:
    with running_server(tmp_path / "home", NORIA_DATABASE_URL=postgres.url) as server:
        assert all_is_well(server)
        frozen = postgres.pids()
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            for one in CALLS[:4]:
                answer, took_s = call(server, *one)
                assert answer.status_code == 503, (one, answer.text)
                assert took_s < 20, (one, took_s)
        finally:
            for pid in reversed(frozen):
                os.kill(pid, signal.SIGCONT)
        until_well(server, 40)
