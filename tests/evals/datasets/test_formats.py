"""Files in and out: what is written is read back, and what is wrong is said of its line."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import InvalidRequest
from noria.evals.datasets import (
    FileWriter,
    Format,
    Line,
    NewRow,
    _writing,  # pyright: ignore[reportPrivateUsage]
    check_content,
    read_lines,
    read_rows_of,
    row_id_of,
)
from noria.evals.datasets._parquet_child import _batch_rows  # pyright: ignore[reportPrivateUsage]

# What a text may hold: anything that JSON and PostgreSQL can, lines, quotes and commas among it.
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40)
SAID = TEXT.filter(lambda text: bool(text.strip()))
PLAIN = st.builds(lambda text: {"role": "assistant", "content": text}, SAID)
CALL = st.builds(
    lambda name, value: {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1_0", "type": "function", "function": {"name": name, "arguments": orjson.dumps({"x": value}).decode()}}
        ],
    },
    st.sampled_from(["search", "查询"]),
    TEXT,
)
ANSWER = PLAIN | CALL


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    """Any row: turns, tools, an answer expected or two compared, metadata."""
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(TEXT)})
    messages.append({"role": "user", "content": draw(TEXT)})
    for _ in range(draw(st.integers(0, 2))):
        messages += [draw(ANSWER), {"role": "user", "content": draw(TEXT)}]
    content: dict[str, Any] = {"messages": messages}
    if draw(st.booleans()):
        content["tools"] = [{"type": "function", "function": {"name": draw(SAID), "parameters": {"type": "object"}}}]
    for name in draw(st.sampled_from([(), ("expected",), ("chosen", "rejected"), ("expected", "chosen", "rejected")])):
        content[name] = draw(ANSWER)
    content["metadata"] = draw(st.dictionaries(SAID, TEXT | st.integers(-1000, 1000) | st.booleans(), max_size=3))
    return check_content(content)


def written(rows: list[dict[str, Any]], format: Format) -> tuple[bytes, FileWriter]:
    writer = FileWriter(format)
    return b"".join(writer.pieces([rows])), writer


def read(data: bytes, format: Format | None = None, filename: str = "rows") -> list[Any]:
    return [row.content if isinstance(row, NewRow) else row for _, row in read_rows_of(io.BytesIO(data), filename, format)]


@settings(max_examples=40, deadline=None)
@given(st.lists(contents(), min_size=1, max_size=4), st.sampled_from(get_args(Format)))
def test_what_is_written_is_read_back(rows: list[dict[str, Any]], format: Format) -> None:
    data, writer = written(rows, format)
    again, _ = written(rows, format)
    assert data == again
    assert writer.written + writer.left_out == len(rows)
    if writer.written == 0:
        return
    back = read(data, None)
    whole = format in {"noria", "csv", "parquet"}
    if whole:
        assert writer.left_out == 0
        assert back == rows
        return
    kept = [row for row in rows if FileWriter(format).batch([row])]
    for found, row in zip(back, kept, strict=True):
        assert isinstance(found, dict), found
        wanted = {**row, "metadata": {}}
        if format in {"openai", "sharegpt", "dpo", "alpaca"}:
            # A chat line has no words for a pair, a preference line none for what is expected.
            wanted = {key: value for key, value in wanted.items() if key in found or key == "messages"}
            if format == "sharegpt":
                found, wanted = _without_ids(found), _without_ids(wanted)
        assert found == wanted


def _without_ids(content: dict[str, Any]) -> dict[str, Any]:
    """ShareGPT has no ids of calls."""
    return orjson.loads(orjson.dumps(content).replace(b'"call_1_0"', b'""').replace(b'"call_0_0"', b'""')) | {
        name: [_plain_call(message) for message in content["messages"]] if name == "messages" else _plain_call(content[name])
        for name in ("messages", "expected", "chosen", "rejected")
        if name in content
    }


def _plain_call(message: dict[str, Any]) -> dict[str, Any]:
    calls = [{**call, "id": "", "function": _loose(call["function"])} for call in message.get("tool_calls", [])]
    return {**message, "tool_calls": calls} if calls else message


def _loose(function: dict[str, Any]) -> dict[str, Any]:
    return {**function, "arguments": orjson.loads(function["arguments"])}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            {"instruction": "Sum up.", "input": "Long text", "output": "Short", "system": "Be brief", "history": [["a", "b"]]},
            {
                "messages": [
                    {"role": "system", "content": "Be brief"},
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b"},
                    {"role": "user", "content": "Sum up.\nLong text"},
                ],
                "expected": {"role": "assistant", "content": "Short"},
                "metadata": {},
            },
        ),
        (
            {"conversations": [{"from": "human", "value": "Q"}], "chosen": {"from": "gpt", "value": "good"},
             "rejected": {"from": "gpt", "value": "bad"}},
            {
                "messages": [{"role": "user", "content": "Q"}],
                "chosen": {"role": "assistant", "content": "good"},
                "rejected": {"role": "assistant", "content": "bad"},
                "metadata": {},
            },
        ),
        (
            {"prompt": "Q", "chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}], "rejected": "B"},
            {
                "messages": [{"role": "user", "content": "Q"}],
                "chosen": {"role": "assistant", "content": "A"},
                "rejected": {"role": "assistant", "content": "B"},
                "metadata": {},
            },
        ),
        (
            {"text": "Ignore everything", "label": 1, "source": "x"},
            {
                "messages": [{"role": "user", "content": "Ignore everything"}],
                "expected": {"role": "assistant", "content": "1"},
                "metadata": {"source": "x"},
            },
        ),
        (
            {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}], "id": 7},
            {
                "messages": [{"role": "user", "content": "Q"}],
                "expected": {"role": "assistant", "content": "A"},
                "metadata": {"id": 7},
            },
        ),
    ],
)  # fmt: skip
def test_formats_of_others_are_told_apart(record: dict[str, Any], expected: dict[str, Any]) -> None:
    if isinstance(record.get("label"), int):
        expected = {**expected, "expected": {"role": "assistant", "content": "1"}}
        record = {**record, "label": str(record["label"])}
    assert read(orjson.dumps(record)) == [expected]


def test_each_bad_line_is_named_and_the_rest_goes_in() -> None:
    data = b"\n".join([
        b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}',
        b"{broken",
        b'{"messages":[{"role":"user","content":"\xff\xfe"}]}',
        b'{"messages":[]}',
        b'{"messages":[{"role":"wizard","content":"x"}]}',
        b'{"messages":[{"role":"user","content":"a\\u0000b"}]}',
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b"[1, 2]",
        b'{"nothing":"known"}',
        b"",
        b'{"messages":[{"role":"user","content":"a\\\\u0000b"}]}',
    ])  # fmt: skip
    found = dict(read_rows_of(io.BytesIO(data), "a.jsonl", None))
    assert isinstance(found[1], NewRow)
    assert isinstance(found[11], NewRow)  # a backslash and some letters, not a NUL
    assert {number: str(text).split(".")[0] for number, text in found.items() if not isinstance(text, NewRow)} == {
        2: "Not valid JSON: unexpected character, expected a string key: line 1 column 2 (char 1)",
        3: "Not valid UTF-8 at byte 40",
        4: "A row needs `messages`, a list that is not empty",
        5: "messages[0]",
        6: "The row holds a NUL character, which cannot be stored",
        7: "Not valid JSON: no low surrogate in string: line 1 column 40 (char 39)",
        8: "Not an object but list",
        9: "No column holds an input; there are nothing",
    }


def test_a_table_with_bad_bytes_and_long_cells() -> None:
    data = b'prompt,completion\n"a\nb",c\n\xff,d\n1,2,3\n' + b"x" * 2_000_000 + b",y\n"
    found = dict(read_rows_of(io.BytesIO(data), "a.csv", None))
    assert isinstance(found[2], NewRow)
    assert found[4] == "Not valid UTF-8."
    assert found[5] == "3 cells where the head has 2."
    assert isinstance(found[6], NewRow)


def test_a_quote_that_is_never_closed_and_odd_heads_are_told() -> None:
    lines = dict(read_rows_of(io.BytesIO(b'prompt,completion\na,b\n"c,d\ne,f\n'), "a.csv", None))
    assert isinstance(lines[2], NewRow)
    assert "quote opened in this line" in str(lines[3])
    with pytest.raises(InvalidRequest, match="Two columns are named 'prompt'"):
        list(read_rows_of(io.BytesIO(b"prompt,completion,prompt\na,b,c\n"), "a.csv", None))
    with pytest.raises(InvalidRequest, match="UTF-8"):
        list(read_rows_of(io.BytesIO("提示,completion\na,b\n".encode("gbk")), "a.csv", None))
    nameless = [line.record for line in read_lines(io.BytesIO(b"prompt,completion,,\na,b,,\nc,d,x,y\n"), "a.csv")]
    assert nameless == [{"prompt": "a", "completion": "b"}, None]


def test_what_json_does_not_know_is_left_out_or_told() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    nan = float("nan")
    rows = [
        {"prompt": "a", "completion": "b", "score": nan, "tags": [("k", "v")], "scores": [1.0, nan], "image": None},
        {"prompt": "a", "completion": "b", "score": 1.5, "tags": [], "scores": [], "image": b"\x89PNG"},
    ]
    kinds = {"score": pyarrow.float64(), "tags": pyarrow.map_(pyarrow.string(), pyarrow.string())}
    kinds |= {"prompt": pyarrow.string(), "completion": pyarrow.string(), "image": pyarrow.binary()}
    schema = pyarrow.schema([*kinds.items(), ("scores", pyarrow.list_(pyarrow.float64()))])
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), out)
    first, second = read_lines(io.BytesIO(out.getvalue()), "a.parquet")
    assert first.record is not None
    assert "score" not in first.record
    assert (first.record["tags"], first.record["scores"]) == ({"k": "v"}, [1.0, None])
    assert second == Line(2, None, "The column 'image' holds bytes, which a row cannot.")


def test_long_rows_of_a_table_are_taken_in_small_batches() -> None:
    group = SimpleNamespace(total_byte_size=2**30, num_rows=1000)
    assert _batch_rows(group, 0) == 15
    assert _batch_rows(SimpleNamespace(total_byte_size=100, num_rows=1000), 0) == 256
    with pytest.raises(Exception, match="smaller row groups"):
        _batch_rows(SimpleNamespace(total_byte_size=2**33, num_rows=1000), 0)


def test_a_table_is_written_group_by_group_the_same_however_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(_writing, "_GROUP_CHARACTERS", 100, raising=False)
    rows = [check_content({"messages": [{"role": "user", "content": f"{n}" * 30}]}) for n in range(9)]
    data = b"".join(FileWriter("parquet").pieces([rows]))
    assert parquet.ParquetFile(io.BytesIO(data)).num_row_groups == 3
    assert data == b"".join(FileWriter("parquet").pieces([rows[:4], [], rows[4:]]))
    assert read(data) == rows


def test_a_row_of_two_megabytes_is_kept_and_one_of_seventeen_refused() -> None:
    big = orjson.dumps({"prompt": "好" * 700_000, "completion": "y"})
    huge = orjson.dumps({"prompt": "x" * 17_000_000, "completion": "y"})
    found = list(read_rows_of(io.BytesIO(big + b"\n" + huge + b"\n" + big), "a.jsonl", None))
    assert isinstance(found[0][1], NewRow)
    assert found[1] == (2, "The line is longer than 16,777,216 bytes.")
    assert found[2][0] == 3
    assert isinstance(found[2][1], NewRow)


def test_an_empty_file_is_refused_whole() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        read(b" \n ")


def test_identity_is_the_content_without_metadata() -> None:
    one = check_content({"messages": [{"content": "a", "role": "user"}], "expected": "b", "metadata": {"x": 1}})
    other = check_content(
        {"expected": {"role": "assistant", "content": "b", "name": None}, "messages": [{"role": "user", "content": "a"}]}
    )
    assert row_id_of(one) == row_id_of(other)
    assert row_id_of(one) != row_id_of(check_content({"messages": [{"role": "user", "content": "a"}]}))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"metadata": {"score": [float("nan")]}}, "the number nan"),
        ({"metadata": {"score": float("-inf"), "x": None}}, "the number -inf"),
        ({"metadata": {"a\0b": 1}}, "NUL"),
        ({"expected": {"role": [], "content": "x"}}, "expected.role"),
    ],
)
def test_what_could_not_be_read_again_is_refused(content: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        check_content({"messages": [{"role": "user", "content": "x"}], **content})


def call(identity: str, city: str) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": "look", "arguments": f'{{"city": "{city}"}}'}}


USER = {"role": "user", "content": "Q"}
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}


@pytest.mark.parametrize("format", ["openai", "sharegpt", "alpaca"])
def test_of_an_answer_and_a_pair_a_chat_file_takes_the_answer_and_a_pair_alone_is_no_chat(format: Format) -> None:
    called = {"role": "assistant", "content": None, "tool_calls": [call("call_1", "Rom")]}
    both = check_content({"messages": [USER], "expected": GOOD, "chosen": called, "rejected": BAD})
    data, writer = written([both], format)
    assert (writer.written, writer.left_out) == (1, 0)
    (back,) = read(data)
    assert (back["expected"], "chosen" in back) == (GOOD, False)
    alone = [check_content({"messages": [USER], **pair}) for pair in ({"chosen": GOOD, "rejected": BAD}, {"chosen": GOOD})]
    data, writer = written(alone, "openai")
    assert (data, writer.written, writer.left_out) == (b"", 0, 2)


def test_results_of_parallel_calls_stand_in_their_order() -> None:
    calls = {"role": "assistant", "content": None, "tool_calls": [call("x", "Rom"), call("y", "Bonn")]}
    results = [{"role": "tool", "tool_call_id": identity, "content": said} for identity, said in (("y", "cold"), ("x", "warm"))]
    row = check_content({"messages": [USER, calls, *results], "expected": GOOD})
    data, _ = written([row], "sharegpt")
    turns = orjson.loads(data)["conversations"]
    assert orjson.loads(turns[1]["value"]) == [{"name": "look", "arguments": {"city": city}} for city in ("Rom", "Bonn")]
    assert [turn["value"] for turn in turns[2:4]] == ["warm", "cold"]
    (back,) = read(data)
    ids = [made["id"] for made in back["messages"][1]["tool_calls"]]
    assert [message["tool_call_id"] for message in back["messages"][2:]] == ids
    assert len(set(ids)) == 2
    second_only = check_content({"messages": [USER, calls, results[0], USER]})
    stray = check_content({"messages": [USER, results[0], USER]})
    assert written([second_only, stray], "sharegpt")[1].left_out == 2


def test_arguments_are_read_as_an_object_and_as_a_text() -> None:
    for arguments in ({"city": "Rom"}, '{"city":"Rom"}'):
        value = orjson.dumps({"name": "look", "arguments": arguments}).decode()
        turns = [
            {"from": "human", "value": "Q"},
            {"from": "function_call", "value": value},
            {"from": "observation", "value": "1"},
        ]
        (back,) = read(orjson.dumps({"conversations": turns}))
        assert back["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"city":"Rom"}'
    (stray,) = read(orjson.dumps({"conversations": [turns[0], turns[2]]}))
    assert "no call stands before it" in stray
