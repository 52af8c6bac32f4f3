"""The lines of training files: what a line must hold, and what is wrong with one that does not.

Sources: https://platform.openai.com/docs/guides/supervised-fine-tuning (chat, tools, `weight`) and
…/direct-preference-optimization. Knows nothing about tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from noria.messages import AssistantMessage, SystemMessage, ToolMessage, UserMessage
from noria.tools import ChatFunctionTool

__all__ = ["MAX_LINE_BYTES", "Chat", "Line", "Preference", "Problem", "fingerprint", "parse_line", "read_lines"]

MAX_LINE_BYTES = 1024 * 1024
"""A line above this is no conversation that a model could read; it is named, not parsed."""


class _Answer(AssistantMessage):
    weight: Literal[0, 1] | None = Field(None, description="0: not learned from. Default 1.")


_Message = Annotated[SystemMessage | UserMessage | _Answer | ToolMessage, Field(discriminator="role")]
_Prompt = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _ChatLine(_Strict):
    messages: list[_Message] = Field(min_length=1)
    tools: list[ChatFunctionTool] | None = None
    parallel_tool_calls: bool | None = None


class _Input(_Strict):
    messages: list[_Prompt] = Field(min_length=1)
    tools: list[ChatFunctionTool] | None = None
    parallel_tool_calls: bool | None = None


class _PreferenceLine(_Strict):
    input: _Input
    preferred_output: list[AssistantMessage] = Field(min_length=1, max_length=1)
    non_preferred_output: list[AssistantMessage] = Field(min_length=1, max_length=1)


_PARSERS: dict[str, TypeAdapter[Any]] = {"supervised": TypeAdapter(_ChatLine), "dpo": TypeAdapter(_PreferenceLine)}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one line; lines count from 1."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Line:
    """`data` is None where the line is too long to be read; `num_bytes` is then at least the limit."""

    number: int
    data: bytes | None
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation. `learned` are the places of the assistant messages to learn."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    learned: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one conversation, the better one first."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    chosen: dict[str, Any]
    rejected: dict[str, Any]


def read_lines(path: Path) -> Iterator[Line]:
    """The lines that are not blank, never more than one of bounded length in memory."""
    with path.open("rb") as file:
        number = 0
        while piece := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            size = len(piece)
            whole = piece.endswith(b"\n") or size <= MAX_LINE_BYTES
            while not piece.endswith(b"\n") and size > MAX_LINE_BYTES:
                piece = file.readline(MAX_LINE_BYTES)
                size += len(piece)
                if not piece:
                    break
            if not whole:
                yield Line(number, None, size)
            elif piece.strip():
                yield Line(number, piece, size)


def parse_line(line: Line, method: str) -> Chat | Preference | Problem:
    """What a line holds, or what is wrong with it."""
    if line.data is None:
        return Problem(line.number, f"The line has {line.num_bytes:,} bytes; at most {MAX_LINE_BYTES:,} are read.")
    data = line.data.removeprefix(b"\xef\xbb\xbf") if line.number == 1 else line.data
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Problem(line.number, f"Not UTF-8: byte 0x{data[error.start]:02x} at column {error.start + 1}.")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return Problem(line.number, f"Not JSON: {error}.")
    if not isinstance(value, dict):
        return Problem(line.number, "Not a JSON object.")
    try:
        parsed = _PARSERS[method].validate_python(value)
    except ValidationError as error:
        return Problem(line.number, _explain(error, value, method))
    return _chat(line.number, parsed) if isinstance(parsed, _ChatLine) else _preference(line.number, parsed)


def _chat(number: int, row: _ChatLine) -> Chat | Problem:
    learned = tuple(i for i, m in enumerate(row.messages) if isinstance(m, _Answer) and m.weight != 0 and _says_something(m))
    if not any(isinstance(message, _Answer) for message in row.messages):
        return Problem(number, "messages: there is no assistant message to learn.")
    if not learned:
        return Problem(number, "messages: every assistant message is empty or has weight 0, so there is nothing to learn.")
    if (reason := _unreadable(row.messages)) is not None:
        return Problem(number, reason)
    return Chat([_plain(message) for message in row.messages], _tools(row.tools), learned)


def _preference(number: int, row: _PreferenceLine) -> Preference | Problem:
    chosen, rejected = row.preferred_output[0], row.non_preferred_output[0]
    for name, answer in (("preferred_output", chosen), ("non_preferred_output", rejected)):
        if not _says_something(answer):
            return Problem(number, f"{name}: the answer is empty.")
    if _plain(chosen) == _plain(rejected):
        return Problem(number, "preferred_output and non_preferred_output are the same.")
    if row.input.messages[-1].role == "assistant":
        return Problem(number, "input.messages ends with an assistant message; the answers follow a question.")
    if (reason := _unreadable(row.input.messages)) is not None:
        return Problem(number, f"input.{reason}")
    return Preference([_plain(m) for m in row.input.messages], _tools(row.input.tools), _plain(chosen), _plain(rejected))


def _says_something(message: AssistantMessage) -> bool:
    return bool(message.content or message.tool_calls or message.refusal)


def _unreadable(messages: list[Any]) -> str | None:
    for place, message in enumerate(messages):
        if isinstance(message.content, list) and any(part.type == "image_url" for part in message.content):
            return f"messages[{place}]: images cannot be learned from."
    return None


def _plain(message: BaseModel) -> dict[str, Any]:
    """The message as a chat template is given it: text as a string, without fields that say nothing."""
    plain = message.model_dump(exclude_none=True, exclude={"weight", "annotations", "reasoning_content", "name", "refusal"})
    content = getattr(message, "content", None)
    if isinstance(content, list):
        plain["content"] = "".join(getattr(part, "text", "") or getattr(part, "refusal", "") for part in content)
    elif content is None:
        plain["content"] = getattr(message, "refusal", None) or ""
    return plain


def _tools(tools: list[ChatFunctionTool] | None) -> list[dict[str, Any]]:
    return [tool.model_dump(exclude_none=True) for tool in tools or ()]


def _explain(error: ValidationError, value: dict[str, Any], method: str) -> str:
    if method == "supervised" and "preferred_output" in value:
        return "This is a preference row; it is for the method dpo, not supervised."
    if method == "dpo" and "messages" in value:
        return "This is a chat row; it is for the method supervised, not dpo (which needs input and two outputs)."
    found = error.errors(include_url=False)
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    path = ""
    for part in first["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in {"system", "developer", "user", "assistant", "tool", "str", "list"} and not part.startswith("list["):
            path += f".{part}" if path else part
    if first["type"] == "extra_forbidden":
        return f"{path}: this field is not known."
    if first["type"] == "missing":
        return f"{path} is missing."
    given = repr(first["input"])
    return f"{path}: {first['msg']} (given: {given if len(given) <= 60 else given[:57] + '…'})."


def fingerprint(row: Chat | Preference) -> str:
    """The same for rows that say the same."""
    return hashlib.sha256(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)).hexdigest()
