"""Other libraries' spans end in the same columns and the same messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.tracing import _normalise, semconv
from noria.tracing._normalise import content, facts, preview

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}

OTEL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "m1",
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 4,
    "gen_ai.input.messages": json.dumps(
        [
            {"role": "system", "parts": [{"type": "text", "content": "Be short."}]},
            {"role": "user", "parts": [{"type": "text", "content": "Weather?"}]},
        ]
    ),
    "gen_ai.output.messages": json.dumps(
        [{"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Paris"}}],
          "finish_reason": "tool_calls"}]
    ),
}  # fmt: skip
OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.provider": "openai",
    "llm.model_name": "m1",
    "llm.token_count.prompt": 10,
    "llm.token_count.completion": 4,
    "input.value": '{"messages": []}',
    "llm.input_messages.0.message.role": "system",
    "llm.input_messages.0.message.content": "Be short.",
    "llm.input_messages.1.message.role": "user",
    "llm.input_messages.1.message.contents.0.message_content.type": "text",
    "llm.input_messages.1.message.contents.0.message_content.text": "Weather?",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.tool_calls.0.tool_call.id": "c1",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "weather",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": '{"city":"Paris"}',
}
OPENLLMETRY = {
    "llm.request.type": "chat",
    "gen_ai.system": "openai",
    "gen_ai.request.model": "m1",
    "gen_ai.usage.prompt_tokens": 10,
    "gen_ai.usage.completion_tokens": 4,
    "gen_ai.prompt.0.role": "system",
    "gen_ai.prompt.0.content": "Be short.",
    "gen_ai.prompt.1.role": "user",
    "gen_ai.prompt.1.content": "Weather?",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.finish_reason": "tool_calls",
    "gen_ai.completion.0.tool_calls.0.id": "c1",
    "gen_ai.completion.0.tool_calls.0.name": "weather",
    "gen_ai.completion.0.tool_calls.0.arguments": '{"city":"Paris"}',
}
VERCEL = {
    "ai.operationId": "ai.generateText.doGenerate",
    "ai.model.provider": "openai",
    "ai.model.id": "m1",
    "ai.usage.promptTokens": 10,
    "ai.usage.completionTokens": 4,
    "ai.prompt.messages": json.dumps(
        [{"role": "system", "content": "Be short."}, {"role": "user", "content": [{"type": "text", "text": "Weather?"}]}]
    ),
    "ai.response.toolCalls": json.dumps([{"toolCallId": "c1", "toolName": "weather", "args": '{"city":"Paris"}'}]),
}
LANGFUSE = {
    "langfuse.observation.type": "generation",
    "gen_ai.system": "openai",
    "langfuse.observation.model.name": "m1",
    "langfuse.observation.usage_details": json.dumps({"input": 10, "output": 4, "total": 14}),
    "langfuse.observation.cost_details": json.dumps({"total": 0.5}),
    "langfuse.observation.input": json.dumps(
        [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Weather?"}]
    ),
    "langfuse.observation.output": json.dumps([{"role": "assistant", "content": None, "tool_calls": [CALL]}]),
}


@pytest.mark.parametrize("attributes", [OTEL, OPENINFERENCE, OPENLLMETRY, VERCEL, LANGFUSE])
def test_each_convention_says_the_same(attributes: dict[str, Any]) -> None:
    found = facts(attributes, [])
    assert (found.operation, found.provider, found.model) == ("chat", "openai", "m1")
    assert (found.input_tokens, found.output_tokens, found.counted) == (10, 4, True)
    said = content(attributes, [])
    assert [message["role"] for message in said.input] == ["system", "user"]
    assert _normalise.talk.text_of(said.input[1]) == "Weather?"
    assert said.output[0]["tool_calls"] == [CALL]
    assert preview(attributes, [])[0] == "Weather?"


def test_messages_of_the_older_event_convention() -> None:
    events = [
        {"name": "gen_ai.user.message", "attributes": {"content": "Hi"}},
        {"name": "gen_ai.choice", "attributes": {"message": '{"role": "assistant", "content": "Hello"}'}},
    ]
    said = content({}, events)
    assert said.input == [{"role": "user", "content": "Hi"}]
    assert said.output == [{"role": "assistant", "content": "Hello"}]


def test_usage_is_counted_once_in_a_trace() -> None:
    assert not facts({**VERCEL, "ai.operationId": "ai.generateText"}, []).counted
    assert not facts({**OTEL, "gen_ai.operation.name": "invoke_agent"}, []).counted
    assert not facts({**OTEL, semconv.ROLLUP: True}, []).counted
    assert facts({"gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 1}, []).counted


def test_documents_of_a_retrieval() -> None:
    said = content(
        {
            "openinference.span.kind": "RETRIEVER",
            "input.value": "where?",
            "retrieval.documents.0.document.content": "here",
            "retrieval.documents.0.document.score": 0.5,
        },
        [],
    )
    assert said.input == "where?"
    assert said.output == [{"content": "here", "score": 0.5}]


def test_metadata_of_every_convention() -> None:
    attributes = {
        semconv.METADATA_PREFIX + "a": "1", "langfuse.trace.metadata.b": "2", "ai.telemetry.metadata.c": 3,
        "traceloop.association.properties.d": True, "metadata": '{"e": "5"}',
    }  # fmt: skip
    assert facts(attributes, []).metadata == {"a": "1", "b": "2", "c": "3", "d": "true", "e": "5"}


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "parts", "type", "text", "message", "tool_calls"]), inner)
    ),
    max_leaves=8,
)
_keys = st.sampled_from(
    [*OTEL, *OPENINFERENCE, *OPENLLMETRY, *VERCEL, *LANGFUSE, "metadata", "llm.input_messages.x", "gen_ai.prompt.0"]
)


@given(st.dictionaries(_keys, _values | _values.map(lambda value: json.dumps(value, default=str)), max_size=8))
def test_odd_attributes_never_raise(attributes: dict[str, Any]) -> None:
    facts(attributes, [])
    content(attributes, [])
    preview(attributes, [])
