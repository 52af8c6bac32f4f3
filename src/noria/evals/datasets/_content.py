"""What a row is: its content, checked; its identity, the hash of that; its input, by which it is put into a split.

A row's content is `{"messages": […], "tools"?, "expected"?, "chosen"?, "rejected"?, "metadata"}`: what goes in, what should
come out (or which of two answers is better), and what is known about it. Knows nothing about where rows come from or lie.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import orjson

from noria.errors import InvalidRequest
from noria.evals._wellformed import check_answer, check_json, check_message
from noria.messages import text_of

__all__ = [
    "MAX_ROW_BYTES",
    "NewRow",
    "Source",
    "Split",
    "answer_key",
    "canonical",
    "check_content",
    "conversation_key",
    "fold",
    "input_media",
    "last_user_text",
    "row_id_of",
    "split_key",
    "split_of",
]

Split = Literal["train", "validation", "test"]
MAX_ROW_BYTES = 16 * 1024 * 1024
_FIELDS = frozenset({"messages", "tools", "expected", "chosen", "rejected", "metadata"})
_NOT_WORDS = re.compile(r"[\W_]+")
# The same characters in another width; a full-width mark parts sentences without a space.
_WIDTHS = (
    {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFEF)}
    | {ord(wide): f"{narrow} " for wide, narrow in zip("，！？；：", ",!?;:", strict=True)}
    | {0x3000: " "}
)
# White space and what ends or parts sentences. A mark inside a number or a word means something (3.5, !=, a.b), and so does the
# exclamation mark after a digit (5!).
_WIDE = r"[\u2e80-\uffef]"
_MARK = r"(?:[.,?;:]|(?<!\d)!)"
_PAUSES = re.compile(rf"(?:[\s\u200b\ufeff\u2026\u3001\u3002¿¡]|{_MARK}(?=[\s.,!?;:\u2026]|\Z|{_WIDE})|(?<={_WIDE}){_MARK})+")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a row came from: any of these; deleting a trace, a feedback or a completion erases the rows made of it."""

    trace_id: str | None = None
    span_id: str | None = None
    feedback_id: str | None = None
    completion_id: str | None = None
    file_id: str | None = None


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row to be added; `content` has been through `check_content`."""

    content: dict[str, Any]
    sources: tuple[Source, ...] = ()


def check_content(given: Mapping[str, Any]) -> dict[str, Any]:
    """The content in its one canonical shape. Raises InvalidRequest, whose `param` is the path of what is wrong."""
    if unknown := sorted(set(given) - _FIELDS):
        raise InvalidRequest(f"A row has no field {unknown[0]!r}.", param=unknown[0], code="unknown_parameter")
    messages: Any = given.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("A row needs `messages`, a list that is not empty.", param="messages")
    content: dict[str, Any] = {"messages": [check_message(each, f"messages[{index}]") for index, each in enumerate(messages)]}
    if (tools := given.get("tools")) is not None:
        content["tools"] = _tools(tools)
    for name in ("expected", "chosen", "rejected"):
        if given.get(name) is not None:
            content[name] = check_answer(given[name], name)
    metadata: Any = given.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise InvalidRequest("metadata must be an object.", param="metadata")
    content["metadata"] = metadata
    size = check_json(content, "The row")
    if size > MAX_ROW_BYTES:
        raise InvalidRequest(f"The row has {size:,} bytes, more than {MAX_ROW_BYTES:,}.", code="row_too_large")
    return content


def _tools(given: Any) -> list[Any]:
    if not isinstance(given, list) or not all(isinstance(tool, dict) for tool in cast("list[Any]", given)):
        raise InvalidRequest("tools must be a list of objects.", param="tools")
    return cast("list[Any]", given)


def canonical(content: Mapping[str, Any]) -> bytes:
    """What identity is made of: the content without its metadata, keys sorted."""
    return orjson.dumps({key: value for key, value in content.items() if key != "metadata"}, option=orjson.OPT_SORT_KEYS)


def row_id_of(content: Mapping[str, Any]) -> str:
    return f"row_{hashlib.sha256(canonical(content)).hexdigest()[:32]}"


def fold(text: str) -> str:
    """A text without what makes no difference to its reader: case, width, white space, the marks between sentences.

    Operators, signs, emoji and the marks of letters stay: 7+3 is not 7-3.
    """
    folded = _PAUSES.sub(" ", unicodedata.normalize("NFC", text.translate(_WIDTHS)).casefold()).strip()
    return folded or text.strip()


def last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """What was asked: the newest user message's text, else all texts."""
    return "\n".join(text_of(message.get("content")) for message in _asked(messages))


def _asked(messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The newest user message, else all messages."""
    return next(([message] for message in reversed(messages) if message["role"] == "user"), messages)


def _media_key(messages: Sequence[Mapping[str, Any]]) -> str:
    """Equal for messages with the same images, sounds and files, by address, bytes or id; empty where there are none."""
    parts = [
        part
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if not isinstance(part.get("text"), str)
    ]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest() if parts else ""


def _with_media(said: str, messages: Sequence[Mapping[str, Any]]) -> str:
    media = _media_key(messages)
    return f"{said}\0{media}" if media else said


def input_media(messages: Sequence[Mapping[str, Any]]) -> str:
    """The key of the images, sounds and files that are asked about; empty where there are none."""
    return _media_key(_asked(messages))


def split_key(messages: Sequence[Mapping[str, Any]]) -> str:
    """Equal for rows whose questions have the same words, whatever they answer: rows of one key never lie in two splits.

    Without punctuation, symbols, images, sounds and files. It never changes, or rows would cross from test to train.
    """
    asked = last_user_text(messages)
    words = _NOT_WORDS.sub(" ", unicodedata.normalize("NFKC", asked).casefold()).strip()
    return words or asked.strip()


def conversation_key(content: Mapping[str, Any]) -> str:
    """Equal for rows whose whole input is the same but for what `fold` leaves out, and the ids of calls."""
    messages = content["messages"]
    said = [f"{message['role']}\0{_with_media(fold(text_of(message.get('content'))), [message])}" for message in messages]
    rest = [content.get("tools") or [], [_calls(message) for message in messages]]
    return hashlib.sha256("\1".join(said).encode() + orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _calls(message: Mapping[str, Any]) -> list[Any]:
    """Which functions a message calls with what; the ids of calls differ each time."""
    called = [call.get("function") or call for call in message.get("tool_calls") or []]
    return [{**function, "arguments": _parsed(function.get("arguments"))} for function in called]


def _parsed(arguments: Any) -> Any:
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:  # also raised for what is no text
        return arguments


def answer_key(message: Mapping[str, Any] | None) -> str | None:
    """Equal for answers that say the same; None for none."""
    if message is None:
        return None
    said = _with_media(fold(text_of(message.get("content")) or str(message.get("refusal") or "")), [message])
    calls = _calls(message)
    return said if not calls else f"{said}\0{orjson.dumps(calls, option=orjson.OPT_SORT_KEYS).decode()}"


def split_of(content: Mapping[str, Any], validation_share: float, test_share: float) -> Split:
    """The split of a row, decided by its input alone: it is the same in every version and for every answer."""
    digest = hashlib.sha256(b"noria split\0" + split_key(content["messages"]).encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"
