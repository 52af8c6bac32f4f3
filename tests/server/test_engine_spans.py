"""A trace goes on into engines: the spans that come with their answers stand under the call."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NoriaServer, running_server

HELLO = [{"role": "user", "content": "hello"}]


def names(spans: list[dict[str, Any]]) -> Iterator[tuple[str, str | None]]:
    """Each span with its service, parents first."""
    for span in spans:
        yield span["name"], span["service"]
        yield from names(span["children"])


def trace(server: NoriaServer, trace_id: str) -> list[dict[str, Any]]:
    with server.client() as client:
        return client.get(f"/v1/noria/traces/{trace_id}").json()["spans"]


ENGINE = [("engine scripted", "noria-scripted"), ("answer", "noria-scripted")]


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_s_spans_stand_under_the_call(server: NoriaServer, stream: bool) -> None:
    with server.client() as client:
        body = {"model": "scripted", "messages": HELLO, "stream": stream}
        answer = client.post("/v1/chat/completions", json=body)
    assert "noria-spans" not in answer.text
    assert not {name for name in answer.headers if "spans" in name}
    spans = trace(server, answer.headers["x-noria-trace-id"])
    assert list(names(spans)) == [("POST /v1/chat/completions", "noria"), ("chat scripted", "noria"), *ENGINE]
    call = spans[0]["children"][0]
    engine = call["children"][0]
    assert engine["kind"] == "server"
    end = call["start_ns"] + call["duration_ns"]
    assert call["start_ns"] <= engine["start_ns"] <= engine["start_ns"] + engine["duration_ns"] <= end


def test_those_of_a_response_and_of_embeddings_too(server: NoriaServer) -> None:
    response = server.openai().responses.with_raw_response.create(model="scripted", input="hello")
    assert ENGINE[0] in names(trace(server, response.headers["x-noria-trace-id"]))
    embedded = server.openai().embeddings.with_raw_response.create(model="scripted-embedding", input="hello")
    assert ("engine scripted-embedding", "noria-scripted") in names(trace(server, embedded.headers["x-noria-trace-id"]))


def test_a_caller_s_trace_goes_on_into_the_engine(server: NoriaServer) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    with server.client() as client:
        headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
        client.post("/v1/chat/completions", json={"model": "scripted", "messages": HELLO}, headers=headers).raise_for_status()
    assert ENGINE[1] in names(trace(server, trace_id))


@pytest.mark.slow
def test_a_third_party_s_engine_sends_its_spans_itself(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("instrumented_engine.py")), "--port", "{port}"]
    with running_server(tmp_path, NORIA_ALLOW_ENGINE_COMMANDS="true") as server:
        server.add_model({"id": "theirs", "source": "engine", "engine": "command", "command": command, "memory_mb": 64})
        with server.client() as client:  # from here on every call needs a key: the engine was given one, for this alone
            client.post("/v1/noria/keys", json={"name": "mine", "scopes": ["inference"]}).raise_for_status()
            answer = client.post("/v1/chat/completions", json={"model": "theirs", "messages": HELLO})
            trace_id = answer.raise_for_status().headers["x-noria-trace-id"]
            deadline = time.monotonic() + 10
            while ("llm_request", "third-party") not in names(trace(server, trace_id)):
                assert time.monotonic() < deadline, server.log()
                time.sleep(0.05)
            found = client.get(f"/v1/noria/traces/{trace_id}").json()
    assert found["spans"][0]["children"][0]["children"][0]["name"] == "llm_request"
    assert (found["input_tokens"], found["output_tokens"]) == (3, 1)  # both ends said it


def test_a_key_for_spans_alone_can_do_nothing_else(tmp_path: Path) -> None:
    with running_server(tmp_path, scripted=False) as server, server.client() as client:
        secret = client.post("/v1/noria/keys", json={"name": "app", "scopes": ["spans"]}).json()["secret"]
        mine = {"authorization": f"Bearer {secret}"}
        assert client.post("/v1/traces", json={"resourceSpans": []}, headers=mine).status_code == 200
        assert client.get("/v1/noria/traces", headers=mine).status_code == 403
        assert client.delete("/v1/noria/traces", headers=mine).status_code == 403
        assert client.get("/v1/models", headers=mine).status_code == 403
