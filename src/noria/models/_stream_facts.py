"""What an answer says of itself in passing: that it failed, what it used, that it came to its end.

Bytes are searched, and only an event that holds the word is parsed: what a model says cannot look like it, for a quote inside a
JSON string is escaped. Source: https://platform.openai.com/docs/api-reference/chat-streaming; errors inside streams are in no
description, each upstream has its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from ._sse import SSEDecoder, is_stream_error

__all__ = ["Facts", "error_in", "facts_of_body", "facts_of_stream"]

_LOOKED_AT = 8


@dataclass(slots=True)
class Facts:
    """`error` and `usage` as the upstream wrote them, None where it wrote none; `done`: the answer came to its end."""

    error: Any = None
    usage: dict[str, Any] | None = None
    done: bool = False

    def read(self, data: bytes) -> bool:
        """False where it is no JSON object."""
        try:
            body: Any = orjson.loads(data)
        except orjson.JSONDecodeError:
            return False
        if not isinstance(body, dict):
            return False
        if is_stream_error(body):
            self.error = body["error"]
        if self.usage is None and isinstance(body.get("usage"), dict):
            self.usage = body["usage"]
        return True


def error_in(events: bytes) -> Any:
    """The `error` of a failure that one of these whole events (LF line ends) tells of; None where none does."""
    if b'"error"' not in events:
        return None
    facts = Facts()
    for data in SSEDecoder().feed(events):
        if b'"error"' in data and facts.error is None:
            facts.read(data)
    return facts.error


def facts_of_stream(raw: bytes) -> Facts:
    """What the last events of a stream say, whatever its line ends and wherever it was cut: it stands there."""
    facts, end = Facts(), len(raw)
    for _ in range(_LOOKED_AT):
        before = raw.rfind(b"\ndata:", 0, end)
        before = max(before, raw.rfind(b"\rdata:", before + 1, end))
        event = raw[before + 1 : end].removeprefix(b"data:")
        if not facts.done and b"[DONE]" in event and _first_line(event) == b"[DONE]":
            facts.done = True
        elif b'"error"' in event or (facts.usage is None and b'"usage"' in event):
            facts.read(_first_line(event))
        if before < 0:
            break
        end = before
    return facts


def _first_line(event: bytes) -> bytes:
    """Without what is no data of it: the spans that an engine sends in a comment."""
    return event.partition(b"\n")[0].partition(b"\r")[0].strip()


def facts_of_body(raw: bytes) -> Facts:
    """What a whole JSON answer says."""
    facts = Facts()
    facts.done = facts.read(raw)
    return facts
