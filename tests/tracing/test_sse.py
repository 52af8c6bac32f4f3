"""Streams put back together, whole and cut anywhere."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from noria.tracing._sse import Dialect, assemble, events


def sse(chunks: list[Any], newline: str = "\n") -> bytes:
    return "".join(f"data: {json.dumps(chunk)}{newline}{newline}" for chunk in chunks).encode() + b"data: [DONE]\n\n"


def delta(index: int = 0, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": "c1", "model": "m", "choices": [{"index": index, "delta": fields, "finish_reason": finish}]}


@given(
    st.lists(st.tuples(st.integers(0, 2), st.text(max_size=8)), max_size=20),
    st.sampled_from(["\n", "\r\n"]),
)
def test_text_of_each_choice_is_the_sum_of_its_deltas(pieces: list[tuple[int, str]], newline: str) -> None:
    answer = assemble(sse([delta(i, content=text) for i, text in pieces], newline), "chat")
    wanted: dict[int, str] = {}
    for index, piece in pieces:
        wanted[index] = wanted.get(index, "") + piece
    assert [message["content"] for message in answer.messages] == [wanted[i] for i in sorted(wanted)]


@given(st.lists(st.tuples(st.integers(0, 3), st.text(max_size=6)), max_size=20))
def test_arguments_of_each_tool_call_are_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    seen: set[int] = set()
    chunks: list[Any] = []
    for index, piece in parts:
        call: dict[str, Any] = {"index": index, "function": {"arguments": piece}}
        if index not in seen:
            call |= {"id": f"call_{index}", "type": "function"}
            call["function"]["name"] = f"tool_{index}"
        seen.add(index)
        chunks.append(delta(tool_calls=[call]))
    answer = assemble(sse([*chunks, delta(finish="tool_calls")]), "chat")
    calls = answer.messages[0].get("tool_calls", [])
    assert [call["function"]["name"] for call in calls] == [f"tool_{index}" for index in sorted(seen)]
    for call, index in zip(calls, sorted(seen), strict=True):
        assert call["function"]["arguments"] == "".join(piece for at, piece in parts if at == index)
        assert call["id"] == f"call_{index}"
    assert answer.messages[0]["finish_reason"] == "tool_calls"


def test_usage_model_and_id_are_found() -> None:
    chunks = [delta(role="assistant", content=""), delta(content="héllo"), delta(finish="stop")]
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    answer = assemble(sse([*chunks, {"id": "c1", "model": "m", "choices": [], "usage": usage}]), "chat")
    assert (answer.usage, answer.model, answer.id) == (usage, "m", "c1")
    assert answer.messages == [{"role": "assistant", "content": "héllo", "finish_reason": "stop"}]


def test_legacy_completions() -> None:
    chunks = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("a", "b")]
    assert assemble(sse(chunks), "completion").messages[0]["content"] == "ab"


def test_responses_whole_and_cut() -> None:
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}
    stream = [
        {"type": "response.created", "response": {"id": "resp_1", "model": "m", "output": []}},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "hel"},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "lo"},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": "resp_1", "output": [item], "usage": {"input_tokens": 1}}},
    ]
    whole = assemble(sse(stream), "responses")
    assert (whole.messages, whole.usage, whole.id) == ([item], {"input_tokens": 1}, "resp_1")
    assert assemble(sse(stream[:4]), "responses").messages == [item]
    (cut,) = assemble(sse(stream[:3]), "responses").messages
    assert cut["content"][0]["text"] == "hello"
    assert cut["status"] == "incomplete"


@given(st.binary(max_size=400), st.sampled_from(["chat", "completion", "responses"]))
def test_any_bytes_are_an_answer(data: bytes, dialect: Dialect) -> None:
    assemble(data, dialect)


_odd = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "delta", "index", "content", "tool_calls", "function", "arguments", "name", "usage",
                         "type", "response", "output", "output_index", "item", "text", "role", "error"]), inner, max_size=5),
    max_leaves=15,
)  # fmt: skip


@given(st.lists(_odd, max_size=5), st.sampled_from(["chat", "completion", "responses"]))
def test_odd_chunks_never_raise(chunks: list[Any], dialect: Dialect) -> None:
    assemble(sse(chunks), dialect)


@given(st.integers(0, 400))
def test_a_cut_stream_is_a_prefix(cut: int) -> None:
    text = "The quick brown fox jumps over the lazy dog."
    stream = sse([delta(content=word + " ") for word in text.split()])
    answer = assemble(stream[:cut], "chat")
    said = answer.messages[0]["content"] if answer.messages else ""
    assert (text + " ").startswith(said or "")


def test_lines_of_one_event_are_joined_and_comments_skipped() -> None:
    assert list(events(b": ping\n\nevent: x\ndata: a\ndata: b\n\ndata:c")) == [b"a\nb", b"c"]
