"""Keys, scopes, limits, sizes and the loopback rule."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.conftest import NoriaServer, running_server

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    with running_server(tmp_path_factory.mktemp("keys"), NORIA_MAX_BODY_MB="1") as server:
        yield server


def test_without_keys_the_owner_needs_none_and_strangers_get_nothing(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.get("/v1/models").status_code == 200
        rebound = client.get("/v1/models", headers={"host": "evil.example:80"})
        assert rebound.status_code == 403
        page = client.post("/v1/chat/completions", json={}, headers={"origin": "https://evil.example"})
        assert page.status_code == 403
        # A sandboxed frame or a local file sends `Origin: null`: it may be anyone's.
        for origin, status in [("null", 403), ("file://", 403), ("https://evil.example", 403), ("http://localhost:3000", 200)]:
            assert client.get("/v1/models", headers={"origin": origin}).status_code == status, origin


def test_keys_are_made_used_limited_and_revoked(own: NoriaServer) -> None:
    with own.client() as admin:
        made = admin.post("/v1/noria/keys", json={"name": "app", "scopes": ["inference"], "requests_per_minute": 4}).json()
        listed = admin.get("/v1/noria/keys").json()["data"]
        assert made["secret"].startswith("sk-noria-")
        assert all("secret" not in row and "digest" not in row for row in listed)

        client = own.openai(api_key=made["secret"])
        assert client.chat.completions.create(model="scripted", messages=HELLO).choices  # type: ignore[arg-type]
        with pytest.raises(openai.PermissionDeniedError):
            client.files.list()
        with pytest.raises(openai.AuthenticationError):
            own.openai(api_key="sk-noria-wrong").models.list()
        assert httpx.get(f"{own.url}/v1/models", trust_env=False).status_code == 401

        client.models.list()
        client.models.list()
        with pytest.raises(openai.RateLimitError) as limited:
            client.models.list()
        assert int(limited.value.response.headers["retry-after"]) >= 1

        admin.delete(f"/v1/noria/keys/{made['id']}").raise_for_status()
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


@pytest.mark.parametrize(
    "path", ["/v1/files", "/v1/chat/completions", "/v1/responses", "/v1/traces", "/v1/noria/datasets", "/v1/nothing", "/health"]
)
def test_a_strangers_body_is_not_read(own: NoriaServer, path: str) -> None:
    """Answered after the headers, while the body is still to come."""
    with own.client() as admin:
        admin.post("/v1/noria/keys", json={"name": "any"}).raise_for_status()
    for authorization in ("", "authorization: Bearer sk-noria-wrong\r\n"):
        head = f"POST {path} HTTP/1.1\r\nhost: {_address(own)}\r\n{authorization}content-type: application/json\r\n"
        with _connection(own) as stranger:
            stranger.sendall(f"{head}content-length: 900000\r\n\r\n{{".encode())
            assert stranger.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_a_body_above_the_rate_is_not_read(own: NoriaServer) -> None:
    with own.client() as admin:
        secret = admin.post("/v1/noria/keys", json={"name": "slow", "requests_per_minute": 1}).json()["secret"]
    authorization = {"authorization": f"Bearer {secret}"}
    assert httpx.get(f"{own.url}/v1/files", headers=authorization, trust_env=False).status_code == 200
    with _connection(own) as client:
        head = f"POST /v1/files HTTP/1.1\r\nhost: {_address(own)}\r\nauthorization: Bearer {secret}\r\n"
        client.sendall(f"{head}content-type: multipart/form-data; boundary=x\r\ncontent-length: 900000\r\n\r\n--x".encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 429 ")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/embeddings"])
def test_a_refusal_above_the_rate_is_counted_under_its_route_and_has_an_id(own: NoriaServer, path: str) -> None:
    with own.client() as admin:
        secret = admin.post("/v1/noria/keys", json={"name": "slow", "requests_per_minute": 1}).json()["secret"]
        authorization = {"authorization": f"Bearer {secret}"}
        httpx.post(own.url + path, json={}, headers=authorization, trust_env=False)
        refused = httpx.post(own.url + path, json={}, headers=authorization, trust_env=False)
        assert refused.status_code == 429
        assert re.fullmatch(r"req_[0-9a-f]{32}", refused.headers["x-request-id"])
        assert f'noria_requests_total{{model="",route="{path}",status="429"}} 1.0' in admin.get("/metrics").text


def test_a_refusal_is_counted_where_an_answer_would_be(own: NoriaServer) -> None:
    with own.client() as admin:
        admin.post("/v1/noria/keys", json={"name": "any"}).raise_for_status()
        before = re.findall(r"noria_requests_total.*401.*", admin.get("/metrics").text)
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/traces"), ("POST", "/v1/noria/feedback")):
            assert httpx.request(method, own.url + path, trust_env=False).status_code == 401
        assert re.findall(r"noria_requests_total.*401.*", admin.get("/metrics").text) == before


def test_strangers_leave_no_trace_but_a_count(own: NoriaServer) -> None:
    with own.client() as admin:
        admin.post("/v1/noria/keys", json={"name": "any"}).raise_for_status()
        before = admin.get("/v1/noria/traces/stats").json()["data"]
        refused = httpx.post(f"{own.url}/v1/chat/completions", json={}, trust_env=False)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert admin.get("/v1/noria/traces/stats").json()["data"] == before
        assert 'noria_requests_total{model="",route="unknown",status="401"}' in admin.get("/metrics").text


def test_only_health_and_the_description_are_public(own: NoriaServer) -> None:
    with own.client() as admin:
        admin.post("/v1/noria/keys", json={"name": "any"}).raise_for_status()
        paths = [path for path, methods in admin.get("/openapi.json").json()["paths"].items() if "get" in methods]
    with httpx.Client(base_url=own.url, trust_env=False) as stranger:
        answers = {path: stranger.get(path).status_code for path in [*paths, "/docs", "/openapi.json"]}
        assert {path for path, status in answers.items() if status != 401} == {"/health", "/docs", "/openapi.json"}
        assert stranger.options("/v1/models").status_code == 405


def _address(server: NoriaServer) -> str:
    return server.url.removeprefix("http://")


def _connection(server: NoriaServer) -> socket.socket:
    host, _, port = _address(server).partition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def test_a_database_never_holds_a_key_in_clear(own: NoriaServer) -> None:
    with own.client() as admin:
        once = {"idempotency-key": "make-one"}
        secret = admin.post("/v1/noria/keys", json={"name": "hidden"}, headers=once).json()["secret"]
        again = admin.post("/v1/noria/keys", json={"name": "hidden"}, headers=once)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "secret_not_kept")
        assert [row["name"] for row in admin.get("/v1/noria/keys").json()["data"]].count("hidden") == 1
        admin.put("/v1/noria/providers/openai/credential", json={"value": "sk-very-secret-value"}).raise_for_status()
        shown = admin.get("/v1/noria/providers").text
    assert "sk-very-secret-value" not in shown
    data = b"".join(path.read_bytes() for path in own.home.glob("*.db*"))
    assert secret.encode() not in data
    assert b"sk-very-secret-value" not in data


def test_a_large_body_is_refused_before_it_is_read(own: NoriaServer) -> None:
    with own.client() as client:
        declared = client.post(
            "/v1/chat/completions", content=b"x" * (1024 * 1024 + 1), headers={"content-type": "application/json"}
        )
        assert declared.status_code == 413

        def pieces() -> Iterator[bytes]:
            for _ in range(40):
                yield b" " * 65536

        undeclared = client.post("/v1/chat/completions", content=pieces(), headers={"content-type": "application/json"})
        assert undeclared.status_code == 413


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/v1", "http://169.254.169.254/latest", "http://10.0.0.1/v1", "http://[::1]/v1", "http://localhost/v1",
            "http://0x7f000001/v1", "http://[::ffff:127.0.0.1]/v1", "ftp://example.com", "http://u:p@example.com/v1"]
)  # fmt: skip
def test_base_urls_may_not_point_inside(own: NoriaServer, url: str) -> None:
    card = {"id": "inside", "source": "provider", "provider": "custom", "base_url": url}
    with own.client() as client:
        answer = client.post("/v1/noria/models", json=card)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "base_url"


def test_engine_commands_are_off_by_default(own: NoriaServer) -> None:
    card = {"id": "cmd", "source": "engine", "engine": "command", "command": ["sh", "-c", "id", "{port}"]}
    with own.client() as client:
        assert client.post("/v1/noria/models", json=card).status_code == 400


def test_settings_show_origins_and_mask_secrets(own: NoriaServer) -> None:
    with own.client() as client:
        rows = {row["name"]: row for row in client.get("/v1/noria/settings").json()["data"]}
    assert rows["max_body_mb"] == {**rows["max_body_mb"], "value": 1, "origin": "NORIA_MAX_BODY_MB"}
    assert rows["home"]["origin"] == "command line"


@pytest.mark.parametrize("query", ["max_latency_s=6e307", "min_tokens=99999999999999999999999", "min_cost_usd=inf", "from=1e300"])
def test_impossible_figures_in_a_filter_are_refused(own: NoriaServer, query: str) -> None:
    with own.client() as client:
        assert client.get(f"/v1/noria/traces?{query}").status_code == 400
        assert client.get(f"/v1/noria/traces/stats?{query}").status_code == 400
