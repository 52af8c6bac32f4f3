"""A trace goes on into engines: the spans that come with their answers stand under the call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import NoriaServer

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
