"""A streamed answer's bytes put back together: what the client would hold at the end of the stream.

Chat completions, legacy completions and responses of OpenAI's API. Tolerates streams cut anywhere.
Sources: https://html.spec.whatwg.org/multipage/server-sent-events.html, https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import orjson

Dialect = Literal["chat", "completion", "responses"]


@dataclass(slots=True)
class Answer:
    """What a model answered: messages (or output items of a response) and the facts around them."""

    messages: list[Any] = field(default_factory=list[Any])
    usage: dict[str, Any] | None = None
    model: str | None = None
    id: str | None = None
    error: Any = None


def events(stream: bytes) -> Iterator[bytes]:
    """The data of each server-sent event; an event that the stream's end cut off is given too."""
    data: list[bytes] = []
    for line in stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        if not line:
            if data:
                yield b"\n".join(data)
                data = []
        elif line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
    if data:
        yield b"\n".join(data)


def assemble(stream: bytes, dialect: Dialect) -> Answer:
    """The whole answer of a stream in this dialect."""
    answer = Answer()
    chunks = _json_objects(stream)
    if dialect == "responses":
        _responses(answer, chunks)
    else:
        _choices(answer, chunks, legacy=dialect == "completion")
    return answer


def _json_objects(stream: bytes) -> Iterator[dict[str, Any]]:
    for data in events(stream):
        if data.strip() == b"[DONE]":
            continue
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict):
            yield cast("dict[str, Any]", value)


class _Choice:
    """One choice of a streamed chat completion as its deltas arrive."""

    def __init__(self) -> None:
        self.role = "assistant"
        self.texts: dict[str, list[str]] = {}
        self.calls: dict[int, dict[str, Any]] = {}
        self.finish_reason: Any = None

    def add(self, delta: dict[str, Any]) -> None:
        if isinstance(delta.get("role"), str):
            self.role = delta["role"]
        for key in ("content", "refusal", "reasoning_content", "reasoning"):
            if isinstance(delta.get(key), str):
                self.texts.setdefault(key, []).append(delta[key])
        calls = delta.get("tool_calls")
        for place, part in enumerate(cast("list[Any]", calls) if isinstance(calls, list) else []):
            if isinstance(part, dict):
                self._add_call(cast("dict[str, Any]", part), place)

    def _add_call(self, part: dict[str, Any], place: int) -> None:
        index = part.get("index")
        call = self.calls.setdefault(
            index if isinstance(index, int) else place,
            {"id": None, "type": "function", "function": {"name": "", "arguments": ""}},
        )
        call["id"] = part.get("id") or call["id"]
        call["type"] = part.get("type") or call["type"]
        function: Any = part.get("function")
        if isinstance(function, dict):
            for key in ("name", "arguments"):
                if isinstance(function.get(key), str):
                    call["function"][key] += function[key]

    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": self.role, "content": None}
        message |= {key: "".join(pieces) for key, pieces in self.texts.items()}
        if self.calls:
            message["tool_calls"] = [self.calls[index] for index in sorted(self.calls)]
        if self.finish_reason is not None:
            message["finish_reason"] = self.finish_reason
        return message


def _choices(answer: Answer, chunks: Iterator[dict[str, Any]], *, legacy: bool) -> None:
    found: dict[int, _Choice] = {}
    for chunk in chunks:
        _facts(answer, chunk)
        parts = chunk.get("choices")
        for part in cast("list[Any]", parts) if isinstance(parts, list) else []:
            if not isinstance(part, dict):
                continue
            part = cast("dict[str, Any]", part)
            index = part.get("index")
            choice = found.setdefault(index if isinstance(index, int) else 0, _Choice())
            delta: Any = {"content": part.get("text")} if legacy else part.get("delta")
            if isinstance(delta, dict):
                choice.add(cast("dict[str, Any]", delta))
            if part.get("finish_reason") is not None:
                choice.finish_reason = part["finish_reason"]
    answer.messages = [found[index].message() for index in sorted(found)]


def _responses(answer: Answer, chunks: Iterator[dict[str, Any]]) -> None:
    items: dict[int, Any] = {}
    texts: dict[int, list[str]] = {}
    for chunk in chunks:
        kind, index = chunk.get("type"), chunk.get("output_index")
        response: Any = chunk.get("response")
        if isinstance(response, dict):
            response = cast("dict[str, Any]", response)
            _facts(answer, response)
            if kind in ("response.completed", "response.incomplete", "response.failed"):
                answer.error = response.get("error") or answer.error
                if isinstance(response.get("output"), list):
                    answer.messages = response["output"]
                    return
        elif kind == "error":
            answer.error = chunk.get("error", chunk)
        elif isinstance(index, int) and kind == "response.output_item.done":
            items[index] = chunk.get("item")
        elif isinstance(index, int) and kind == "response.output_text.delta" and isinstance(chunk.get("delta"), str):
            texts.setdefault(index, []).append(chunk["delta"])
    for index, pieces in texts.items():  # the stream was cut: what had been said so far
        part = {"type": "output_text", "text": "".join(pieces)}
        items.setdefault(index, {"type": "message", "role": "assistant", "status": "incomplete", "content": [part]})
    answer.messages = [items[index] for index in sorted(items)]


def _facts(answer: Answer, chunk: dict[str, Any]) -> None:
    if isinstance(chunk.get("usage"), dict):
        answer.usage = chunk["usage"]
    if isinstance(chunk.get("model"), str):
        answer.model = chunk["model"]
    if isinstance(chunk.get("id"), str):
        answer.id = chunk["id"]
    if chunk.get("error"):
        answer.error = chunk["error"]
