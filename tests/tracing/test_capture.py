"""Payloads attached raw, content switched off, metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from noria.tracing import Metrics, RequestOutcome, SpanNode, TraceFilter, Tracing, attach_payload, semconv, trace_id_of
from noria.tracing._payload import _attached

Open = Callable[..., Tracing]
ASKED = {"model": "m", "messages": [{"role": "user", "content": "unmistakable question"}], "tools": [{"type": "function"}]}
STREAM = (
    b'data: {"id":"c","model":"m-1","choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}\n\n'
    b"data: [DONE]\n\n"
)


async def record(tracing: Tracing, attributes: dict[str, Any] | None = None, **payload: Any) -> SpanNode:
    span = tracing.provider.get_tracer("noria.test").start_span("chat", attributes=attributes)
    attach_payload(span, **payload)
    span.end()
    tracing.flush()
    assert not _attached
    return (await tracing.store.get(trace_id_of(span) or "")).roots[0]


async def test_a_stream_becomes_a_message(tracing: Tracing) -> None:
    node = await record(tracing, input=json.dumps(ASKED).encode(), output=STREAM, output_is_sse="chat")
    assert node.input == ASKED["messages"]
    assert node.output == [{"role": "assistant", "content": "Hello"}]
    assert (node.input_tokens, node.output_tokens, node.model) == (3, 2, "m")
    assert node.attributes[semconv.RESPONSE_MODEL] == "m-1"
    assert node.attributes[semconv.CACHED_TOKENS] == 1
    assert node.attributes[semconv.FINISH_REASONS] == ["stop"]
    assert node.attributes[semconv.TOOL_DEFINITIONS] == ASKED["tools"]
    page = await tracing.store.list(TraceFilter(text="hello unmistakable"))
    assert (page.traces[0].input_preview, page.traces[0].output_preview) == ("unmistakable question", "Hello")


async def test_what_the_span_says_wins_over_the_payload(tracing: Tracing) -> None:
    node = await record(tracing, {semconv.INPUT_TOKENS: 9}, output=STREAM, output_is_sse="chat")
    assert (node.input_tokens, node.output_tokens) == (9, 2)


@pytest.mark.parametrize(
    ("asked", "answered", "wanted"),
    [
        ({"model": "e", "input": ["a", "b"]}, {"data": [{"embedding": [0.5]}]}, (["a", "b"], {"embeddings": 1})),
        ({"model": "c", "prompt": "once"}, {"choices": [{"text": "upon"}]}, ("once", [{"role": "assistant", "content": "upon"}])),
        (
            {"model": "r", "input": "hi", "instructions": "be kind"},
            {"output": [{"type": "message", "content": []}]},
            ([{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}], [{"type": "message", "content": []}]),
        ),
        ({"query": "q"}, {"error": {"message": "no"}}, ({"query": "q"}, {"error": {"message": "no"}})),
    ],
)  # fmt: skip
async def test_requests_of_other_routes(tracing: Tracing, asked: Any, answered: Any, wanted: Any) -> None:
    node = await record(tracing, input=json.dumps(asked).encode(), output=json.dumps(answered).encode())
    assert (node.input, node.output) == wanted


async def test_bytes_that_are_no_json_are_kept_as_text(tracing: Tracing) -> None:
    node = await record(tracing, input=b"\xff not json", output={"an": "object"})
    assert node.input == "\ufffd not json"
    assert node.output == {"an": "object"}


@pytest.mark.parametrize("by", ["settings", "request"])
async def test_content_switched_off_is_not_stored(open_tracing: Open, by: str) -> None:
    tracing = open_tracing(capture_content=by != "settings")
    attributes = {"input.value": "unmistakable one", "gen_ai.prompt.0.content": "unmistakable two"}
    if by == "request":
        attributes[semconv.CAPTURE] = False  # type: ignore[assignment]
    node = await record(tracing, attributes, input=json.dumps(ASKED).encode(), output=STREAM, output_is_sse="chat")
    assert (node.input, node.output, node.input_tokens, node.output_tokens) == (None, None, 3, 2)
    with tracing.store._engine.connect() as connection:
        stored = connection.execute(text("SELECT rest FROM trace_spans")).scalars().all()
        stored += connection.execute(text("SELECT data FROM trace_bodies")).scalars().all()
    assert b"unmistakable" not in b"".join(map(bytes, stored))
    assert not (await tracing.store.list(TraceFilter(text="unmistakable"))).traces


async def test_children_keep_a_requests_silence_and_project(tracing: Tracing) -> None:
    tracer = tracing.provider.get_tracer("noria.test")
    quiet = {semconv.CAPTURE: False, semconv.PROJECT: "p"}
    with tracer.start_as_current_span("request", attributes=quiet) as root, tracer.start_as_current_span("child") as span:
        span.set_attribute(semconv.INPUT, "unmistakable")
    tracing.flush()
    tree = await tracing.store.get(trace_id_of(root) or "", project="p")
    assert tree.roots[0].children[0].input is None


async def test_text_that_databases_refuse(tracing: Tracing) -> None:
    odd = "nul \x00 surrogate \ud800 "
    node = await record(
        tracing,
        {"gen_ai.request.model": "m\x00", semconv.METADATA_PREFIX + "k": odd, "long": odd * 50},
        input={"messages": [{"role": "user", "content": odd * 50}]},
        output=2**70,
    )
    assert node.model == "m"
    assert tracing.health().lost == 0


def test_metrics_render() -> None:
    metrics = Metrics(process=False)
    metrics.observe(RequestOutcome("/v1/chat/completions", "m", 200, 0.2, 0.1, 10, 5, 0.25))
    page = metrics.render().decode()
    assert 'noria_requests_total{model="m",route="/v1/chat/completions",status="200"} 1.0' in page
    assert 'noria_tokens_total{direction="output",model="m"} 5.0' in page
    assert 'noria_cost_usd_total{model="m"} 0.25' in page
    assert "noria_span_lag_seconds" in page
