"""Streams that tell of an error after their 200; fields that only some providers are sent."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest

from tests.conftest import NoriaServer

from .conftest import remote
from .test_upstreams import HELLO, ask, once, text
from .upstream import Upstream, chunk, encoded, raw_stream, stream

_HALF = encoded(chunk({"content": "half"}), done=False)
_ERROR = {"message": "overloaded", "code": "x"}
_TOLD = b"data: " + json.dumps({"error": _ERROR}).encode() + b"\n\n"
_TOLD_IN_A_CHUNK = b"data: " + json.dumps(chunk({"content": ""}, "error", error=_ERROR)).encode() + b"\n\n"
_DONE = b"data: [DONE]\n\n"
_BROKEN = {
    "then the end": _HALF + _TOLD,
    "then done": _HALF + _TOLD + _DONE,
    "in a chunk": _HALF + _TOLD_IN_A_CHUNK + _DONE,
    "carriage returns": (_HALF + _TOLD + _DONE).replace(b"\n", b"\r"),
}


def spans_of(client: httpx.Client, trace_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request's span and the model call's, once both have ended: the last byte leaves before that."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        spans = client.get(f"/v1/noria/traces/{trace_id}").json().get("spans") or [{}]
        if children := spans[0].get("children"):
            return spans[0], children[0]
        time.sleep(0.02)
    raise AssertionError("the spans did not come")


@pytest.mark.parametrize("broken", _BROKEN.values(), ids=_BROKEN)
def test_a_stream_that_tells_of_an_error_has_failed(server: NoriaServer, upstream: Upstream, broken: bytes) -> None:
    upstream.plan(raw_stream(broken))
    before = len(list(server.openai().chat.completions.list(limit=1000)))
    with server.client() as client:
        said = client.post("/v1/chat/completions", json={"model": "remote", "messages": HELLO, "stream": True, "store": True})
        assert said.text.count("overloaded") == 1
        assert "half" in said.text
        assert "[DONE]" not in said.text
        root, call = spans_of(client, said.headers["x-noria-trace-id"])
        assert (root["status"], call["status"]) == ("error", "error")
        assert (root["attributes"]["error.type"], call["attributes"]["error.type"]) == ("x", "x")
        counted = 'noria_requests_total{model="remote",route="/v1/chat/completions",status="502"}'
        assert counted in client.get("/metrics").text
    assert len(list(server.openai().chat.completions.list(limit=1000))) == before


def test_an_error_in_what_a_model_says_is_text(server: NoriaServer, upstream: Upstream) -> None:
    odd = '{"error": {"message": "no"}}'
    upstream.plan(stream(chunk({"content": odd}), chunk({"content": "error"}), chunk({"content": ""}, error=None)))
    assert text(ask(server, stream=True)) == odd + "error"


def test_a_stream_that_told_of_an_error_frees_the_key(server: NoriaServer, upstream: Upstream) -> None:
    for name, broken in _BROKEN.items():
        upstream.plan(raw_stream(broken))
        assert '"error"' in once(server, name, stream=True).text
        assert "idempotent-replayed" not in once(server, name, stream=True).headers


def test_hints_reach_only_providers_that_take_them(server: NoriaServer, upstream: Upstream) -> None:
    hints: Any = {"service_tier": "flex", "prompt_cache_key": "k"}
    for provider, taken in (("azure", hints), ("vllm", {})):
        server.add_model(remote(f"hinted-{provider}", upstream, provider=provider))
        with server.client() as client:
            client.put(f"/v1/noria/providers/{provider}/credential", json={"value": "sk-x"}).raise_for_status()
        ask(server, model=f"hinted-{provider}", **hints)
        assert {name: upstream.seen[-1].body[name] for name in hints if name in upstream.seen[-1].body} == taken
        server.openai().responses.create(model=f"hinted-{provider}", input="hello", **hints)
        assert {name: upstream.seen[-1].body[name] for name in hints if name in upstream.seen[-1].body} == taken
