"""Text in and out: characters never halved, stop strings never given out, calls taken out of text, templates."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import tiny_decoder as tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.engines.openvino._answer import StopScanner
from noria.engines.openvino._chat import ChatTemplate
from noria.engines.openvino._tokenizer import Detokenizer, Tokenizer
from noria.engines.openvino._tools import CallReader, Tool, written_call
from noria.errors import InvalidRequest


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(tiny.write_folder(tmp_path_factory.mktemp("tiny")) / "tokenizer.json")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_text_survives_token_by_token(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.push(token) for token in tokens]
    assert "".join(pieces) + detokenizer.flush() == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@given(st.lists(st.integers(0, 259), max_size=30))
def test_any_bytes_come_out_as_the_whole_would(tokenizer: Tokenizer, tokens: list[int]) -> None:
    detokenizer = Detokenizer(tokenizer)
    text = "".join(detokenizer.push(token) for token in tokens) + detokenizer.flush()
    data = bytes(token for token in tokens if token < 256)
    # Where bytes are not UTF-8 the number of U+FFFD may differ, never the characters.
    assert text.replace("\ufffd", "") == data.decode("utf-8", "replace").replace("\ufffd", "")


@settings(max_examples=300, deadline=None)
@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=4), st.data())
def test_nothing_from_a_stop_string_on_is_given_out(text: str, stops: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    scanner, given_out, stopped = StopScanner(tuple(stops)), "", False
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        piece, stopped = scanner.push(text[begin:end])
        given_out += piece
        if stopped:
            break
    if not stopped:
        given_out += scanner.flush()
    first_end = min((text.find(s) + len(s) for s in stops if s in text), default=None)
    if first_end is None:
        assert (given_out, stopped) == (text, False)
    else:
        assert stopped
        assert text.startswith(given_out)
        assert not any(stop in given_out for stop in stops)


ARGUMENTS = st.dictionaries(
    st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=12), st.lists(st.text(max_size=3))), max_size=3
)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=10), st.lists(ARGUMENTS, max_size=3), st.integers(1, 9))
def test_calls_are_read_however_the_text_is_cut(before: str, calls: list[dict[str, object]], size: int) -> None:
    before = before.replace("<", "")
    text = before + "\n".join(written_call("f", json.dumps(arguments)) for arguments in calls)
    reader, plain, names, arguments = CallReader(), "", list[str](), dict[int, str]()
    for at in range(0, len(text), size):
        more, pieces = reader.push(text[at : at + size])
        plain += more
        for piece in pieces:
            names += [piece.name] if piece.name else []
            arguments[piece.index] = arguments.get(piece.index, "") + piece.arguments
    plain += reader.flush()
    assert plain == before
    assert names == ["f"] * len(calls)
    assert [json.loads(arguments[i]) for i in range(len(calls))] == calls


def test_a_template_without_tools_gets_them_in_the_system_message() -> None:
    template = ChatTemplate(tiny.TEMPLATE, None, "<|end|>")
    assert not template.knows_tools
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    prompt = template.render(
        [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "3", "tool_call_id": "c1"},
        ],
        [Tool("add", "adds", {"type": "object"})],
    )
    assert prompt.startswith("<|start|>system\nYou can use these tools:\n")
    assert '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>' in prompt
    assert "<tool_response>\n3\n</tool_response>" in prompt
    assert prompt.endswith("<|start|>assistant\n")


def test_a_template_cannot_reach_python() -> None:
    template = ChatTemplate("{{ messages.__class__.__mro__ }}", None, None)
    with pytest.raises(InvalidRequest):
        template.render([{"role": "user", "content": "x"}])


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(Exception, match=r"tokenizer\.json"):
        Tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("source", ['{{ ("a" * 2 * 10**7)|length }}', "{{ 3 * [0] * 10**7 }}", "{{ 10 ** (10 ** 5) }}"])
def test_a_template_makes_nothing_huge_neither_loaded_nor_rendered(source: str) -> None:
    begun = time.process_time()
    template = ChatTemplate(source, None, None)
    with pytest.raises(InvalidRequest, match="refuses"):
        template.render([{"role": "user", "content": "x"}])
    assert time.process_time() - begun < 0.5
    assert ChatTemplate("{{ '-' * 3 }}{{ 2 ** 3 }}{{ 2 * 3 }}", None, None).render([]) == "---86"
    with pytest.raises(InvalidRequest, match="characters"):
        ChatTemplate("x" * 300_000, None, None)
