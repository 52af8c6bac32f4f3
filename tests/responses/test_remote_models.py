"""Responses of a remote model that fails, is cut or refuses: what the caller sees, and what is counted."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import NoriaServer, running_server
from tests.models.conftest import remote
from tests.models.upstream import (
    ANSWER,
    Upstream,
    answer,
    chunk,
    encoded,
    failure,
    good,
    raw_stream,
    running_upstream,
    slow,
    stream,
)

TOOL: Any = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}
USAGE: Any = ANSWER["usage"]
TOO_LONG = answer({"error": {"message": "too long", "type": "x", "code": "context_length_exceeded"}}, 400)
SCHEMA: Any = {
    "format": {"type": "json_schema", "name": "out", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NoriaServer, Upstream]]:
    home = tmp_path_factory.mktemp("responses")
    with running_upstream() as upstream, running_server(home, NORIA_ALLOW_PRIVATE_URLS="true") as server:
        server.add_model(remote("remote", upstream, price={"input": 2.0, "output": 10.0, "cached_input": 1.0}))
        yield server, upstream


@pytest.fixture
def server(running: tuple[NoriaServer, Upstream]) -> NoriaServer:
    return running[0]


@pytest.fixture
def upstream(running: tuple[NoriaServer, Upstream]) -> Upstream:
    running[1].planned.clear()
    running[1].seen.clear()
    return running[1]


@pytest.fixture(scope="module")
def empty_store(running: tuple[NoriaServer, Upstream]) -> str:
    return running[0].openai().vector_stores.create(name="empty").id


def search(store_id: str) -> Any:
    return {"type": "file_search", "vector_store_ids": [store_id]}


def ask(server: NoriaServer, **fields: Any) -> Any:
    create: Any = server.openai().responses.create
    return create(**{"model": "remote", "input": "hello", **fields})


def post(server: NoriaServer, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    with server.client() as client:
        return client.post("/v1/responses", json={"model": "remote", "input": "hello", **fields}, headers=headers)


def counted(server: NoriaServer, status: int) -> int:
    """How many requests of the remote model ended so, by the counters."""
    name = re.escape(f'noria_requests_total{{model="remote",route="/v1/responses",status="{status}"}}')
    with server.client() as client:
        found = re.search(rf"^{name} (\d+)", client.get("/metrics").text, re.MULTILINE)
    return int(found[1]) if found else 0


def becomes(count: int, server: NoriaServer, status: int) -> bool:
    """A request is counted a little after its last byte."""
    deadline = time.monotonic() + 5
    while counted(server, status) != count and time.monotonic() < deadline:
        time.sleep(0.02)
    return counted(server, status) == count


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
def test_what_fails_before_the_answer_begins_is_a_status(server: NoriaServer, upstream: Upstream, streamed: bool) -> None:
    upstream.plan(TOO_LONG)
    with pytest.raises(openai.BadRequestError) as too_long:
        ask(server, stream=streamed)
    assert too_long.value.code == "context_length_exceeded"
    upstream.plan(failure(429, retry_after="90"))
    with pytest.raises(openai.RateLimitError) as limited:
        ask(server, stream=streamed)
    assert limited.value.response.headers["retry-after"] == "90"
    upstream.plan(raw_stream(b'data: {"error": {"message": "overloaded"}}\n\n'))
    with pytest.raises(openai.InternalServerError, match="overloaded"):
        ask(server, stream=streamed)


def test_an_embedding_model_is_refused(server: NoriaServer) -> None:
    reply = post(server, model="scripted-embedding")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")


def test_what_fails_in_the_middle_of_an_answer_is_an_error_too(server: NoriaServer, upstream: Upstream) -> None:
    key = {"idempotency-key": "cut once"}
    upstream.plan(stream(chunk({"content": "well "}), end=False))
    assert post(server, key).status_code == 502
    again = post(server, key)
    assert "idempotent-replayed" not in again.headers, "a failure that may pass was kept"
    assert again.json()["status"] == "completed"


def test_a_stream_that_fails_in_the_middle_says_so_and_is_counted_as_failed(server: NoriaServer, upstream: Upstream) -> None:
    upstream.plan(stream(chunk({"content": "well "}), end=False))
    fine, failed = counted(server, 200), counted(server, 502)
    raw = server.openai().responses.with_raw_response.create(model="remote", input="hello", stream=True)
    last: Any = list(raw.parse())[-1]
    assert last.type == "response.failed"
    assert server.openai().responses.retrieve(last.response.id).status == "failed"
    with server.client() as client:
        trace = client.get(f"/v1/noria/traces/{raw.headers['x-noria-trace-id']}").json()
    assert trace["spans"][0]["status"] == "error"
    assert becomes(failed + 1, server, 502)
    assert counted(server, 200) == fine


# --- a model that is slow to begin ------------------------------------------------------------------------------------


def test_a_stream_tells_what_happens_while_the_model_is_silent(server: NoriaServer, upstream: Upstream, empty_store: str) -> None:
    upstream.plan(slow(4.5, good))
    begun = time.monotonic()
    impatient = server.openai().with_options(timeout=3.5)
    tools: Any = [search(empty_store), TOOL]  # with a function the model is asked even if nothing is found
    events = impatient.responses.create(model="remote", input="hello", tools=tools, stream=True)
    early = [next(events).type for _ in range(7)]
    assert time.monotonic() - begun < 3.5
    assert (early[0], early[-1]) == ("response.created", "response.output_item.done")
    assert list(events)[-1].type == "response.completed"
    assert len(upstream.seen) == 1


def test_a_failure_after_a_long_silence_is_the_last_event(server: NoriaServer, upstream: Upstream) -> None:
    upstream.plan(slow(2.5, failure(429, retry_after="90")))
    before = counted(server, 429)
    last: Any = list(ask(server, stream=True))[-1]
    assert (last.type, last.response.error.code) == ("response.failed", "rate_limit_exceeded")
    assert server.openai().responses.retrieve(last.response.id).status == "failed"
    assert becomes(before + 1, server, 429)


def test_a_client_that_leaves_while_the_model_is_silent_stops_it(server: NoriaServer, upstream: Upstream) -> None:
    upstream.plan(slow(30, good))
    body = {"model": "remote", "input": "hello", "stream": True}
    with server.client() as client, client.stream("POST", "/v1/responses", json=body) as reply:
        assert next(reply.iter_lines()) == "event: response.created"
    assert upstream.seen[-1].gone.wait(5)


# --- what a model decides ---------------------------------------------------------------------------------------------


def test_cost_time_and_reasoning_are_counted(server: NoriaServer, upstream: Upstream) -> None:
    usage = {**USAGE, "completion_tokens_details": {"reasoning_tokens": 60}}
    counted = {**chunk({}), "choices": [], "usage": usage}
    upstream.plan(
        raw_stream(encoded(chunk({"content": "well done"}), chunk({}, "stop"), counted, done=False), b"data: [DONE]\n\n")
    )
    before = _metrics(server)
    reply = ask(server)
    assert reply.usage.output_tokens_details.reasoning_tokens == 60
    after = _metrics(server)
    cost, ttft = 'noria_cost_usd_total{model="remote"}', 'noria_ttft_seconds_count{model="remote"}'
    assert after[cost] - before.get(cost, 0) == pytest.approx((600 * 2 + 400 + 100 * 10) / 1e6)
    assert after[ttft] - before.get(ttft, 0) == 1


def _metrics(server: NoriaServer) -> dict[str, float]:
    with server.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_a_call_that_the_limit_cut_is_incomplete(server: NoriaServer, upstream: Upstream) -> None:
    calls = [
        {"index": 0, "id": "call_1", "function": {"name": "look", "arguments": "{}"}},
        {"index": 1, "function": {"name": "look", "arguments": '{"whe'}},
    ]
    upstream.plan(raw_stream(encoded(chunk({"tool_calls": calls}), chunk({}, "length"), done=False) + b"data: [DONE]\n\n"))
    reply = ask(server, tools=[TOOL])
    assert reply.status == "incomplete"
    assert [call.status for call in reply.output] == ["completed", "incomplete"]
    first, second = (call.call_id for call in reply.output)
    assert first == "call_1"
    assert second, "a call without an id cannot be answered"


def test_a_conversation_goes_on_after_a_cut_call(server: NoriaServer, upstream: Upstream) -> None:
    cut = {"index": 0, "id": "call_1", "function": {"name": "look", "arguments": '{"whe'}}
    upstream.plan(raw_stream(encoded(chunk({"tool_calls": [cut]}), chunk({}, "length"), done=False) + b"data: [DONE]\n\n"))
    first = ask(server, tools=[TOOL])
    ask(server, input="go on", previous_response_id=first.id)
    assert [message["role"] for message in upstream.seen[-1].body["messages"]] == ["user", "user"]


def test_a_refusal_is_a_refusal(server: NoriaServer, upstream: Upstream) -> None:
    upstream.plan(stream(chunk({"refusal": "I will "}), chunk({"refusal": "not."})))
    events: Any = list(ask(server, stream=True))
    assert [event.type for event in events[2:-1]] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.refusal.delta",
        "response.refusal.delta",
        "response.refusal.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    reply = events[-1].response
    assert reply.output[0].content[0].model_dump() == {"type": "refusal", "refusal": "I will not."}
    ask(server, input="why?", previous_response_id=reply.id)
    assert [message["content"] for message in upstream.seen[-1].body["messages"]] == ["hello", "I will not.", "why?"]


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_a_long_conversation_is_shortened_in_few_calls(server: NoriaServer, upstream: Upstream) -> None:
    said = [{"role": "user" if place % 2 == 0 else "assistant", "content": f"{place} word" * 20} for place in range(81)]
    upstream.plan(*[TOO_LONG] * 81)
    with pytest.raises(openai.BadRequestError):
        ask(server, input=said, truncation="auto")
    sizes = [len(seen.body["messages"]) for seen in upstream.seen]
    assert len(sizes) <= 5
    assert sizes[0] == 81
    assert sizes[-1] == 1
    upstream.planned.clear()
    upstream.plan(TOO_LONG)
    assert ask(server, input=said, truncation="auto").status == "completed"
    assert 1 < len(upstream.seen[-1].body["messages"]) < 81


def test_a_question_with_functions_or_a_form_reaches_the_model(server: NoriaServer, upstream: Upstream, empty_store: str) -> None:
    call = {"index": 0, "id": "call_1", "function": {"name": "look", "arguments": "{}"}}
    upstream.plan(stream(chunk({"tool_calls": [call]})))
    reply = ask(server, tools=[search(empty_store), TOOL], tool_choice="required", instructions="Be brief.")
    assert [item.type for item in reply.output] == ["file_search_call", "function_call"]
    body = upstream.seen[-1].body
    assert body["tool_choice"] == "required"
    assert "Be brief." in body["messages"][0]["content"]
    upstream.plan(stream(chunk({"content": '{"a": 1}'})))
    reply = ask(server, tools=[search(empty_store)], text=SCHEMA)
    assert json.loads(reply.output_text) == {"a": 1}
    asked = len(upstream.seen)
    assert ask(server, tools=[search(empty_store)]).noria["answer_mode"] == "absent"
    assert len(upstream.seen) == asked, "without either, nothing found is nothing to write"


def test_images_of_a_question_reach_the_model(server: NoriaServer, upstream: Upstream, empty_store: str) -> None:
    content = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
    ]
    ask(server, input=[{"role": "user", "content": content}], tools=[search(empty_store)])
    parts = upstream.seen[-1].body["messages"][-1]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [search("empty"), search("empty")]}, "tools[1]"),
        ({"tools": [search("empty")], "text": SCHEMA, "noria": {"answer": "extract"}}, "noria.answer"),
        (
            {"tools": [{**search("empty"), "ranking_options": {"ranker": "default_2024_08_21"}}]},
            "tools[0].ranking_options.ranker",
        ),
        (
            {"tools": [{**search("empty"), "ranking_options": {"hybrid_search": {"embedding_weight": 0, "text_weight": 0}}}]},
            "ranking_options.hybrid_search",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "file_search"}, "tools": [TOOL]}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "other"}, "tools": [TOOL]}, "tool_choice"),
    ],
)
def test_fields_that_could_only_be_ignored_are_refused(
    server: NoriaServer, upstream: Upstream, empty_store: str, change: dict[str, Any], param: str
) -> None:
    reply = post(server, **change)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert not upstream.seen
