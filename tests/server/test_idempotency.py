"""Idempotency-Keys: whose they are, what is kept of an answer, and for how long."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import NoriaServer, running_server

HELLO = [{"role": "user", "content": "hello"}]
BODY = {"model": "scripted", "messages": HELLO}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    with running_server(tmp_path_factory.mktemp("idempotency")) as server:
        yield server


def kept(home: Path) -> int:
    with sqlite3.connect(home / "noria.db", timeout=10) as database:
        return database.execute("SELECT count(*) FROM idempotency").fetchone()[0]


def until(found: Callable[[], Any], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_api_key_has_its_own(own: NoriaServer) -> None:
    """What one key was answered another must not get, whatever its scopes."""
    with own.client() as admin:
        made = [admin.post("/v1/noria/keys", json={"name": "app", "scopes": scopes}).json()["secret"]
                for scopes in (["inference"], ["inference"], ["data"])]  # fmt: skip
    answers: list[httpx.Response] = []
    for secret in [*made, made[0]]:
        headers = {"authorization": f"Bearer {secret}", "idempotency-key": "shared"}
        answers.append(httpx.post(f"{own.url}/v1/chat/completions", json=BODY, headers=headers, trust_env=False))
    assert [answer.status_code for answer in answers] == [200, 200, 403, 200]
    assert answers[0].json()["id"] != answers[1].json()["id"]
    assert answers[3].content == answers[0].content


def test_the_query_is_part_of_the_request(own: NoriaServer) -> None:
    with own.client() as client:
        headers = {"idempotency-key": "queried"}
        first = client.post("/v1/chat/completions", params={"a": "1"}, json=BODY, headers=headers)
        assert first.status_code == 200
        assert client.post("/v1/chat/completions", params={"a": "2"}, json=BODY, headers=headers).status_code == 409


@pytest.mark.parametrize("header", ["", "idempotency-key: dropped\r\n"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/files"])
def test_a_client_that_leaves_in_the_middle_of_its_request_claims_nothing(own: NoriaServer, path: str, header: str) -> None:
    before = kept(own.home)
    with own.client() as client:
        host, _, port = own.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            kind = "application/json" if path != "/v1/files" else "multipart/form-data; boundary=x"
            head = f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {own.token}\r\n{header}"
            connection.sendall(f'{head}content-type: {kind}\r\ncontent-length: 5000\r\n\r\n{{"model": '.encode())
            time.sleep(0.2)
        if path != "/v1/files" or not header:
            until(lambda: '499"' in client.get("/metrics").text, 3)
        again = client.post("/v1/chat/completions", json=BODY, headers={"idempotency-key": "dropped"})
        assert again.status_code == 200
        assert "A bug" not in own.log()
    assert kept(own.home) <= before + 1


@pytest.mark.slow
def test_what_is_old_is_forgotten_without_a_new_call(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server:
        with server.client() as client:
            client.post("/v1/chat/completions", json=BODY, headers={"idempotency-key": "old"}).raise_for_status()
        assert kept(server.home) == 1
        server.stop()
        with sqlite3.connect(server.home / "noria.db") as database:
            database.execute("UPDATE idempotency SET created_at = created_at - 90000")
        again = server.restart()
        try:
            until(lambda: kept(again.home) == 0)
        finally:
            again.stop()
