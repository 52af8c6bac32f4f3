"""Function calling for models that were never taught it, and for those that were.

The model writes `<tool_call>{"name": "f", "arguments": {…}}</tool_call>` (Hermes' and Qwen's syntax), held to it and to
each tool's JSON schema by a grammar; `CallReader` takes the calls back out of the growing text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from noria.engines.openvino._grammar import JSON_STYLE, bounded

__all__ = ["CallPiece", "CallReader", "Tool", "calls_grammar", "describe_tools", "written_call"]

OPEN, CLOSE = "<tool_call>", "</tool_call>"
MAX_CALLS = 8
"""Parallel calls in one answer; a small model would otherwise repeat a call until it is cut."""


@dataclass(frozen=True)
class Tool:
    name: str
    description: str
    parameters: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


def describe_tools(tools: Sequence[Tool], *, required: bool) -> str:
    """What a system message says of the tools, for a chat template that knows none."""
    listed = "\n".join(
        json.dumps({"name": t.name, "description": t.description, "parameters": t.parameters}, ensure_ascii=False) for t in tools
    )
    when = "Answer by calling" if required else "When it helps, call"
    return (
        f"You can use these tools:\n{listed}\n"
        f'{when} a tool by writing {OPEN}{{"name": NAME, "arguments": ARGUMENTS}}{CLOSE}, with arguments as JSON.'
    )


def written_call(name: str, arguments: str) -> str:
    """A past call as it stands in a prompt."""
    try:
        arguments = json.dumps(json.loads(arguments), ensure_ascii=False)
    except ValueError:
        arguments = json.dumps(arguments, ensure_ascii=False)
    return f"{OPEN}{_head(name)}{arguments}}}{CLOSE}"


def _head(name: str) -> str:
    return f'{{"name": "{name}", "arguments": '


def calls_grammar(tools: Sequence[Tool], mode: Literal["auto", "forced"], *, parallel: bool) -> str:
    """A Lark grammar: calls only, or text that may lead to calls. Text never follows a call."""
    bodies: list[str] = []
    for tool in tools:
        schema = {**bounded(tool.parameters), "x-guidance": JSON_STYLE}
        schema.setdefault("type", "object")
        bodies.append(f"({json.dumps(_head(tool.name))} %json {json.dumps(schema)} {json.dumps('}' + CLOSE)})")
    more = f"({json.dumps(chr(10) + OPEN)} body){{0,{MAX_CALLS - 1}}}" if parallel else ""
    body = "body: " + " | ".join(bodies)
    if mode == "forced":
        return f"start: {json.dumps(OPEN)} body {more}\n{body}\n"
    return f"start: plain | opened body {more}\nplain: TEXT\nTEXT: /(.|\\n)*/\nopened[lazy]: TEXT {json.dumps(OPEN)}\n{body}\n"


@dataclass(frozen=True)
class CallPiece:
    """A piece of call number `index`: its name (in the first piece) or more of its arguments."""

    index: int
    name: str | None
    arguments: str


class CallReader:
    """Splits growing text into plain text and pieces of calls. Text that may turn into a call is held back."""

    _NAME = re.compile(r'\{"name": "([^"]*)", "arguments": ')

    def __init__(self) -> None:
        self._buffer = ""
        self._state: Literal["text", "head", "arguments", "tail"] = "text"
        self._depth = 0
        self._in_string = self._escaped = False
        self.num_calls = 0

    def push(self, text: str) -> tuple[str, list[CallPiece]]:
        self._buffer += text
        plain, pieces = "", list[CallPiece]()
        while self._buffer:
            before = (self._state, len(self._buffer))
            if self._state == "text":
                plain += self._read_text()
            elif self._state == "head":
                pieces += self._read_head()
            elif self._state == "arguments":
                pieces += self._read_arguments()
            else:
                self._read_tail()
            if (self._state, len(self._buffer)) == before:
                break
        return plain, pieces

    @property
    def in_call(self) -> bool:
        """Whether a call has begun that is not whole yet."""
        return self._state != "text"

    def flush(self) -> str:
        """Text that was held back and did not become a call. After a call there is none: only more calls may follow."""
        text, self._buffer = self._buffer, ""
        return "" if self.in_call or self.num_calls else text

    def _read_text(self) -> str:
        at = self._buffer.find(OPEN)
        if at >= 0:
            text, self._buffer, self._state = self._buffer[:at], self._buffer[at + len(OPEN) :], "head"
            return text.rstrip("\n") if self.num_calls else text
        if self.num_calls:  # between calls there is only a newline
            return ""
        held = next((n for n in range(min(len(OPEN) - 1, len(self._buffer)), 0, -1) if OPEN.startswith(self._buffer[-n:])), 0)
        cut = len(self._buffer) - held
        text, self._buffer = self._buffer[:cut], self._buffer[cut:]
        return text

    def _read_head(self) -> list[CallPiece]:
        found = self._NAME.match(self._buffer)
        if found is None:
            return []
        self._buffer, self._state, self._depth = self._buffer[found.end() :], "arguments", 0
        self.num_calls += 1
        return [CallPiece(self.num_calls - 1, found.group(1), "")]

    def _read_arguments(self) -> list[CallPiece]:
        """Takes characters until the bracket that closes the arguments."""
        for at, character in enumerate(self._buffer):
            if self._in_string:
                self._in_string = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self._in_string, self._escaped = True, False
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    text, self._buffer, self._state = self._buffer[: at + 1], self._buffer[at + 1 :], "tail"
                    return [CallPiece(self.num_calls - 1, None, text)]
        text, self._buffer = self._buffer, ""
        return [CallPiece(self.num_calls - 1, None, text)]

    def _read_tail(self) -> None:
        end = "}" + CLOSE
        if len(self._buffer) >= len(end):
            self._buffer, self._state = self._buffer[len(end) :], "text"
