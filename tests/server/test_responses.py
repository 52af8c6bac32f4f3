"""Responses over HTTP: events, state, tools, structured output; the loop's order and its objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conftest import SCRIPTED_CHAT, NoriaServer, running_server

SCRIPT = """
[[replies]]
match = "weather"
tool = "get_weather"
arguments = '{"city": "Paris"}'

[[replies]]
match = "json"
text = '{"a": 1}'

[[replies]]
match = "fail"
error = 503
"""

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    script = tmp_path_factory.mktemp("script") / "script.toml"
    script.write_text(SCRIPT)
    with running_server(tmp_path_factory.mktemp("responses"), NORIA_ALLOW_ENGINE_COMMANDS="true") as server:
        server.add_model({**SCRIPTED_CHAT, "id": "actor", "script": str(script)})
        yield server


def test_a_response_is_whole(own: NoriaServer) -> None:
    answer = own.openai().responses.create(model="actor", input="hello there", instructions="Be brief.", metadata={"k": "v"})
    assert answer.output_text == "hello there"
    assert answer.status == "completed"
    assert answer.metadata == {"k": "v"}
    assert answer.usage and answer.usage.total_tokens > 0
    kept = own.openai().responses.retrieve(answer.id)
    assert kept.output_text == "hello there"
    items = own.openai().responses.input_items.list(answer.id).data
    assert items[0].content[0].text == "hello there"  # type: ignore[union-attr,index]


def test_the_events_come_in_openais_order(own: NoriaServer) -> None:
    events = list(own.openai().responses.create(model="actor", input="one two", stream=True))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == "one two"  # type: ignore[union-attr]


def test_a_conversation_goes_on_from_the_previous_response(own: NoriaServer) -> None:
    client = own.openai()
    first = client.responses.create(model="actor", input="my name is Ada")
    second = client.responses.with_raw_response.create(model="actor", input="who am I", previous_response_id=first.id)
    with own.client() as http:
        trace = http.get(f"/v1/noria/traces/{second.headers['x-noria-trace-id']}").json()
    said = [message["content"] for message in trace["spans"][0]["children"][0]["input"]]
    assert said == ["my name is Ada", "my name is Ada", "who am I"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="actor", input="x", previous_response_id=first.id)


def test_functions_are_called_and_their_outputs_go_back(own: NoriaServer) -> None:
    client = own.openai()
    asked = client.responses.create(model="actor", input="the weather?", tools=[WEATHER])
    call = asked.output[0]
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("get_weather", '{"city": "Paris"}')
    output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    again = client.responses.with_raw_response.create(
        model="scripted", input=output, previous_response_id=asked.id, tools=[WEATHER]
    )
    with own.client() as http:
        trace = http.get(f"/v1/noria/traces/{again.headers['x-noria-trace-id']}").json()
    roles = [message["role"] for message in trace["spans"][0]["children"][0]["input"]]
    assert roles == ["user", "assistant", "tool"]


def test_streamed_calls_have_their_own_events(own: NoriaServer) -> None:
    kinds = [e.type for e in own.openai().responses.create(model="actor", input="weather", tools=[WEATHER], stream=True)]
    assert kinds[2:-1] == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]


def test_a_cut_answer_is_incomplete(own: NoriaServer) -> None:
    answer = own.openai().responses.create(model="actor", input="one two three", max_output_tokens=2)
    assert answer.status == "incomplete"
    assert answer.incomplete_details and answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output_text == "one two"


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_fails_is_an_error_of_its_status(own: NoriaServer, stream: bool) -> None:
    with pytest.raises(openai.InternalServerError) as failed:
        own.openai().responses.create(model="actor", input="fail", stream=stream)
    assert failed.value.status_code == 503
    assert failed.value.response.headers["retry-after"]


def test_parsed_output(own: NoriaServer) -> None:
    from pydantic import BaseModel

    class Out(BaseModel):
        a: int

    parsed = own.openai().responses.parse(model="actor", input="json please", text_format=Out)
    assert parsed.output_parsed == Out(a=1)


@pytest.mark.parametrize(
    "change",
    [{"background": True}, {"conversation": "conv_1"}, {"zzz": 1}, {"tools": [{"type": "web_search"}]}, {"include": ["nothing"]},
     {"tools": [{"type": "file_search", "vector_store_ids": []}]}, {"input": [{"type": "message", "role": "user"}]}],
)  # fmt: skip
def test_what_is_not_honoured_is_refused(own: NoriaServer, change: dict[str, Any]) -> None:
    with own.client() as client:
        answer = client.post("/v1/responses", json={"model": "actor", "input": "x", **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"]


def test_unstored_responses_are_not_kept(own: NoriaServer) -> None:
    answer = own.openai().responses.create(model="actor", input="x", store=False)
    with pytest.raises(openai.NotFoundError):
        own.openai().responses.retrieve(answer.id)


@pytest.mark.slow
def test_a_response_survives_kill_9(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server:
        answer = server.openai().responses.create(model="scripted", input="durable")
        completion = server.openai().chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "durable"}], store=True
        )
        server.kill()
        again = server.restart()
        try:
            assert again.openai().responses.retrieve(answer.id).output_text == "durable"
            assert again.openai().chat.completions.retrieve(completion.id).choices[0].message.content == "durable"
        finally:
            again.stop()


@pytest.mark.parametrize("stream", [False, True])
def test_a_trace_counts_a_responses_tokens_once(own: NoriaServer, stream: bool) -> None:
    raw = own.openai().responses.with_raw_response.create(model="actor", input="one two three", stream=stream)
    if stream:
        list(raw.parse())
    with own.client() as http:
        trace = http.get(f"/v1/noria/traces/{raw.headers['x-noria-trace-id']}").json()
    assert trace["output_tokens"] == 3
