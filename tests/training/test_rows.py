"""Lines of training files: nothing crashes the reader, and what is wrong is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.training._rows import MAX_LINE_BYTES, Chat, Line, Preference, Problem, fingerprint, parse_line, read_lines

from .tiny_model import chat, preference


def parse(value: object, method: str = "supervised") -> Chat | Preference | Problem:
    data = json.dumps(value).encode()
    return parse_line(Line(3, data, len(data)), method)


def why(value: object, method: str = "supervised") -> str:
    found = parse(value, method)
    assert isinstance(found, Problem) and found.line == 3
    return found.reason


def test_a_chat_with_tools_and_weights() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    row = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "no", "weight": 0},
            {"role": "user", "content": "again"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "4"},
            {"role": "assistant", "content": "four", "weight": 1},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "parallel_tool_calls": False,
    }
    found = parse(row)
    assert isinstance(found, Chat) and found.learned == (3, 5)
    assert found.messages[0] == {"role": "user", "content": "ab"} and "weight" not in found.messages[1]
    assert found.messages[3]["content"] == "" and found.tools[0]["function"]["name"] == "f"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "no assistant message"),
        ({"messages": [{"role": "assistant", "content": "x", "weight": 0}]}, "nothing to learn"),
        ({"messages": [{"role": "assistant", "content": "x", "weight": 2}]}, "messages[0].weight"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0]"),
        ({"messages": [], "labels": 1}, "labels: this field is not known"),
        ({}, "messages is missing"),
        ([], "Not a JSON object"),
        (preference("q", "a", "b"), "for the method dpo"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
                    {"role": "assistant", "content": "x"},
                ]
            },
            "images",
        ),
    ],
)
def test_what_is_wrong_with_a_chat(row: object, said: str) -> None:
    assert said in why(row)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (preference("q", "a", "a"), "the same"),
        (preference("q", "", "a"), "preferred_output: the answer is empty"),
        (chat("q", "a"), "for the method supervised"),
        ({**preference("q", "a", "b"), "preferred_output": []}, "preferred_output"),
    ],
)
def test_what_is_wrong_with_a_preference(row: object, said: str) -> None:
    assert said in why(row, "dpo")


@given(st.binary(max_size=200), st.sampled_from(["supervised", "dpo"]))
def test_no_line_breaks_the_reader(data: bytes, method: str) -> None:
    found = parse_line(Line(1, data, len(data)), method)
    assert not isinstance(found, Problem) or found.reason


@given(
    st.recursive(st.none() | st.text(max_size=5) | st.integers(), lambda c: st.lists(c) | st.dictionaries(st.text(max_size=9), c))
)
def test_no_value_breaks_the_reader(value: object) -> None:
    for method in ("supervised", "dpo"):
        parse({"messages": value, "input": value}, method)


def test_lines_are_read_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"one\n\n" + b"x" * (2 * MAX_LINE_BYTES) + b"\ntwo\n" + b"y" * (MAX_LINE_BYTES) + b"\n" + b"z" * 5_000_000)
    found = [(line.number, line.data is None, line.num_bytes) for line in read_lines(path)]
    assert found == [
        (1, False, 4),
        (3, True, 2 * MAX_LINE_BYTES + 1),
        (4, False, 4),
        (5, False, MAX_LINE_BYTES + 1),
        (6, True, 5_000_000),
    ]


def test_rows_that_say_the_same_have_one_fingerprint() -> None:
    plain, parts = chat("a", "b"), chat("a", "b")
    parts["messages"][0]["content"] = [{"type": "text", "text": "a"}]
    one, two, other = parse(plain), parse(parts), parse(chat("a", "c"))
    assert not isinstance(one, Problem) and not isinstance(two, Problem) and not isinstance(other, Problem)
    assert fingerprint(one) == fingerprint(two) != fingerprint(other)
