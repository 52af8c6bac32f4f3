"""Rows as files of the formats that are also read, byte for byte the same for the same rows.

A row that a format has no words for (a preference pair alone in a chat file) is left out and counted; of one with an answer and a
pair, a chat file takes the answer. `noria` and the tables hold everything. What is read back is equal in all that the format
keeps; only `noria`, CSV and Parquet keep metadata.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import orjson

from noria.errors import MissingExtra
from noria.messages import text_of

from ._records import Format

__all__ = ["COLUMNS", "SUFFIX", "FileWriter", "ParquetWriter", "to_record"]

SUFFIX: dict[Format, str] = {
    "noria": "jsonl",
    "openai": "jsonl",
    "dpo": "jsonl",
    "alpaca": "jsonl",
    "sharegpt": "jsonl",
    "csv": "csv",
    "parquet": "parquet",
}
COLUMNS = (
    "system", "input", "messages", "tools", "expected", "expected_message", "chosen", "chosen_message", "rejected",
    "rejected_message", "metadata",
)  # fmt: skip
_SUPERVISED = {"openai", "alpaca", "sharegpt"}
_PLAIN = {"role", "content"}
_GROUP_CHARACTERS = 16 * 1024 * 1024
"""Of a row group of Parquet, which is in memory as a whole."""


def to_record(content: Mapping[str, Any], format: Format) -> dict[str, Any] | None:
    """The row as a record of the format; None where it has no words for it."""
    match format:
        case "noria":
            # `expected` is said even where there is none: a last message of the assistant's would be taken for it.
            return {"expected": None, **content}
        case "openai":
            return _openai(content)
        case "dpo":
            return _dpo(content)
        case "alpaca":
            return _alpaca(content)
        case "sharegpt":
            return _sharegpt(content)
        case "csv" | "parquet":
            return _table(content)


def _openai(content: Mapping[str, Any]) -> dict[str, Any] | None:
    expected, messages = content.get("expected"), content["messages"]
    if expected is None and messages[-1]["role"] == "assistant" and len(messages) > 1:
        return None  # it would be read as what is expected
    if expected is None and ("chosen" in content or "rejected" in content):
        return None
    record: dict[str, Any] = {"messages": [*messages, expected] if expected is not None else messages}
    return record | ({"tools": content["tools"]} if "tools" in content else {})


def _dpo(content: Mapping[str, Any]) -> dict[str, Any] | None:
    if "chosen" not in content or "rejected" not in content:
        return None
    source = {"messages": content["messages"]} | ({"tools": content["tools"]} if "tools" in content else {})
    return {"input": source, "preferred_output": [content["chosen"]], "non_preferred_output": [content["rejected"]]}


def _text(message: Mapping[str, Any] | None) -> str | None:
    """The text of a message that is nothing but one; None for any other."""
    if message is None or set(message) - _PLAIN:
        return None
    said = message.get("content")
    return said if isinstance(said, str) and said else None


def _alpaca(content: Mapping[str, Any]) -> dict[str, Any] | None:
    messages = list(content["messages"])
    if "tools" in content or any(_text(message) is None for message in messages):
        return None
    record: dict[str, Any] = {}
    if messages[0]["role"] == "system":
        record["system"] = messages.pop(0)["content"]
    roles = [message["role"] for message in messages]
    if len(roles) % 2 == 0 or any(role != ("assistant" if index % 2 else "user") for index, role in enumerate(roles)):
        return None
    record = {"instruction": messages[-1]["content"], "input": "", **record}
    if len(messages) > 1:
        record["history"] = [
            [messages[index]["content"], messages[index + 1]["content"]] for index in range(0, len(messages) - 1, 2)
        ]
    answers = {name: _text(content[name]) for name in ("expected", "chosen", "rejected") if name in content}
    if None in answers.values():
        if answers.get("expected") is None:
            return None
        answers = {"expected": answers["expected"]}  # the pair has no words
    return record | {"output" if name == "expected" else name: text for name, text in answers.items()}


def _sharegpt(content: Mapping[str, Any]) -> dict[str, Any] | None:
    pair = "expected" not in content and ("chosen" in content or "rejected" in content)
    if pair and not ("chosen" in content and "rejected" in content):
        return None
    messages = list(content["messages"])
    if not pair and "expected" not in content and len(messages) > 1 and messages[-1]["role"] == "assistant":
        return None
    record: dict[str, Any] = {}
    if messages[0]["role"] == "system":
        if (system := _text(messages.pop(0))) is None:
            return None
        record["system"] = system
    turns = _turns([*messages, content["expected"]] if "expected" in content else messages)
    if not turns:
        return None
    record = {"conversations": turns, **record}
    if "tools" in content:
        record["tools"] = orjson.dumps(content["tools"]).decode()
    if pair:
        record["chosen"], record["rejected"] = _turn(content["chosen"]), _turn(content["rejected"])
        if record["chosen"] is None or record["rejected"] is None:
            return None
    return record


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]] | None:
    """The turns as ShareGPT writes them; None where there is one that it does not know.

    Ids of calls are not kept: what the calls brought stands behind them in their order.
    """
    turns: list[dict[str, str]] = []
    open_calls: list[Any] = []
    place = 0
    while place < len(messages):
        results = list(itertools.takewhile(lambda message: message["role"] == "tool", messages[place:]))
        if results:
            by_call = {message["tool_call_id"]: message for message in results}
            answered = open_calls[: len(results)]
            if set(by_call) != set(answered) or any(set(message) - _PLAIN != {"tool_call_id"} for message in results):
                return None
            turns += [{"from": "observation", "value": text_of(by_call[identity]["content"])} for identity in answered]
            place += len(results)
        else:
            if (turn := _turn(messages[place])) is None:
                return None
            turns.append(turn)
            open_calls = [call.get("id") for call in messages[place].get("tool_calls") or []]
            place += 1
    return turns


def _call(function: Mapping[str, Any]) -> dict[str, Any]:
    """A call with its arguments as an object, which is what trainers write out again; a text that is none stays."""
    try:
        arguments = orjson.loads(function["arguments"])
    except orjson.JSONDecodeError:
        arguments = None
    return {"name": function["name"], "arguments": arguments if isinstance(arguments, dict) else function["arguments"]}


def _turn(message: Mapping[str, Any]) -> dict[str, str] | None:
    """One turn of a speaker."""
    role, beside = message["role"], set(message) - _PLAIN
    if role == "assistant" and beside == {"tool_calls"} and message["tool_calls"] and not message["content"]:
        calls = [_call(call["function"]) for call in message["tool_calls"]]
        return {"from": "function_call", "value": orjson.dumps(calls if len(calls) > 1 else calls[0]).decode()}
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    text = _text(message)
    return {"from": names[role], "value": text} if text is not None and role in names else None


def _table(content: Mapping[str, Any]) -> dict[str, Any]:
    messages = content["messages"]
    simple = [message["role"] for message in messages] in (["user"], ["system", "user"])
    record: dict[str, Any] = {}
    if simple and all(_text(message) is not None for message in messages):
        record |= {"system" if message["role"] == "system" else "input": message["content"] for message in messages}
    else:
        record["messages"] = orjson.dumps(messages).decode()
    if "tools" in content:
        record["tools"] = orjson.dumps(content["tools"]).decode()
    for name in ("expected", "chosen", "rejected"):
        if name in content:
            text = _text(content[name])
            record[name if text is not None else f"{name}_message"] = text or orjson.dumps(content[name]).decode()
    if content.get("metadata"):
        record["metadata"] = orjson.dumps(content["metadata"], option=orjson.OPT_SORT_KEYS).decode()
    return record


@dataclass(slots=True)
class FileWriter:
    """Writes rows as one file, in pieces. `written` and `left_out` count the rows.

    `to_learn`: a row without an expected answer is left out of the formats of supervised training, which would fail on it.
    """

    format: Format
    written: int = 0
    left_out: int = 0
    to_learn: bool = False

    def pieces(self, batches: Iterable[list[dict[str, Any]]]) -> Iterator[bytes]:
        """The file's bytes for batches of contents; a Parquet file comes whole at the end."""
        if self.format == "parquet":
            out = io.BytesIO()
            table = ParquetWriter(self, out)
            for batch in batches:
                table.add(batch)
            table.close()
            yield out.getvalue()
            return
        yield self.head()
        for batch in batches:
            yield self.batch(batch)

    def head(self) -> bytes:
        """What stands before the first row."""
        return _csv([dict(zip(COLUMNS, COLUMNS, strict=True))]) if self.format == "csv" else b""

    def batch(self, contents: Iterable[dict[str, Any]]) -> bytes:
        """Some rows, in any format but Parquet."""
        records = list(self.records(contents))
        if self.format == "csv":
            return _csv(records)
        return b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)

    def records(self, contents: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Those that the format has words for, counted."""
        for content in contents:
            nothing_to_learn = self.to_learn and self.format in _SUPERVISED and "expected" not in content
            record = None if nothing_to_learn else to_record(content, self.format)
            if record is None:
                self.left_out += 1
            else:
                self.written += 1
                yield record


class ParquetWriter:
    """Writes a table into `out`, a group of rows at a time. The file is whole once it is closed, for its index stands at the end.

    Which rows lie in a group depends on them alone, not on how they were given. Raises MissingExtra without pyarrow.
    """

    def __init__(self, writer: FileWriter, out: IO[bytes]) -> None:
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError:
            raise MissingExtra("Writing Parquet", "parquet") from None
        self._writer = writer
        self._table: Any = pyarrow.Table
        self._schema = pyarrow.schema([(name, pyarrow.string()) for name in COLUMNS])
        self._file: Any = parquet.ParquetWriter(out, self._schema, compression="zstd")
        self._held: list[dict[str, Any]] = []
        self._characters = 0

    def add(self, contents: Iterable[dict[str, Any]]) -> None:
        for record in self._writer.records(contents):
            self._held.append(record)
            self._characters += sum(map(len, record.values()))
            if self._characters >= _GROUP_CHARACTERS:
                self._flush()

    def close(self) -> None:
        if self._held:
            self._flush()
        self._file.close()

    def _flush(self) -> None:
        self._file.write_table(self._table.from_pylist(self._held, schema=self._schema))
        self._held, self._characters = [], 0


def _csv(records: Iterable[Mapping[str, Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out)  # its lines end in CR LF, so that it quotes cells with either
    writer.writerows([record.get(name, "") for name in COLUMNS] for record in records)
    return out.getvalue().encode()
