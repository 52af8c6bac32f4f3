"""What may be kept: JSON that the database and every reply can hold, and messages of a right shape.

Knows nothing about rows or feedback.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import orjson

from noria.errors import InvalidRequest

__all__ = ["check_answer", "check_json", "check_message", "clean_message"]

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_ROOM = 8
"""Levels that a reply or a file puts around a value, of the 254 that can be written."""
_MESSAGE_KEYS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "weight", "reasoning_content"})


def check_json(value: Any, what: str, param: str | None = None) -> int:
    """The value's length as JSON. Raises InvalidRequest, which begins with `what`, where it cannot be stored and shown again."""
    wrapped = value
    for _ in range(_ROOM):
        wrapped = [wrapped]
    try:
        packed = orjson.dumps(wrapped)
    except (TypeError, ValueError) as error:  # a lone surrogate, a number beyond 64 bits, a nesting without end
        raise InvalidRequest(f"{what} cannot be kept as JSON: {error}.", param=param, code="invalid_value") from None
    # What is no number is packed as a null.
    if (b"\\u0000" in packed or b"null" in packed) and (held := _unkept(value)):
        raise InvalidRequest(f"{what} holds {held}, which cannot be stored.", param=param, code="invalid_value")
    return len(packed) - 2 * _ROOM


def _unkept(value: Any) -> str | None:
    if isinstance(value, str):
        return "a NUL character" if "\0" in value else None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"the number {value}"
    if isinstance(value, Mapping):
        parts = cast("Mapping[str, Any]", value)
        return next(filter(None, map(_unkept, (*parts.keys(), *parts.values()))), None)
    return next(filter(None, map(_unkept, cast("list[Any]", value))), None) if isinstance(value, list | tuple) else None


def check_answer(given: Any, path: str) -> dict[str, Any]:
    """An assistant's message, or its text. Raises InvalidRequest, whose `param` begins with `path`."""
    message = check_message({"role": "assistant", "content": given} if isinstance(given, str) else given, path)
    if message["role"] != "assistant":
        raise InvalidRequest(f"{path}.role = {message['role']!r}: an answer is the assistant's.", param=f"{path}.role")
    return message


def check_message(given: Any, path: str) -> dict[str, Any]:
    """Raises InvalidRequest, whose `param` begins with `path`."""
    if not isinstance(given, dict):
        raise InvalidRequest(f"{path} is not an object.", param=path)
    message = {str(key): value for key, value in cast("dict[Any, Any]", given).items() if value is not None}
    if unknown := sorted(set(message) - _MESSAGE_KEYS):
        raise InvalidRequest(f"{path} has an unknown field {unknown[0]!r}.", param=f"{path}.{unknown[0]}")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidRequest(f"{path}.role = {role!r} is none of {', '.join(sorted(_ROLES))}.", param=f"{path}.role")
    said = message.get("content")
    if said is None:
        if role != "assistant" or not (message.get("tool_calls") or message.get("refusal")):
            raise InvalidRequest(f"{path} has no content.", param=f"{path}.content")
        message["content"] = None
    elif not isinstance(said, str) and not _are_parts(said):
        raise InvalidRequest(f"{path}.content is neither a text nor a list of parts.", param=f"{path}.content")
    if "tool_calls" in message and not _are_calls(message["tool_calls"]):
        raise InvalidRequest(f"{path}.tool_calls is not a list of function calls.", param=f"{path}.tool_calls")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise InvalidRequest(f"{path} needs the tool_call_id that it answers.", param=f"{path}.tool_call_id")
    return {"role": role, "content": message["content"], **message}


def _are_parts(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(part, dict) and "type" in part for part in cast("list[Any]", given))


def _are_calls(given: Any) -> bool:
    if not isinstance(given, list):
        return False
    for call in cast("list[Any]", given):
        function = cast("dict[str, Any]", call).get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            return False
        named = cast("dict[str, Any]", function)
        if not isinstance(named.get("name"), str) or not isinstance(named.get("arguments"), str):
            return False
    return True


def clean_message(given: Mapping[str, Any]) -> dict[str, Any]:
    """A message of a trace or an answer of an API, without what a row does not hold (annotations, audio, finish reasons)."""
    kept = {key: value for key, value in given.items() if key in _MESSAGE_KEYS and value is not None and value != []}
    if kept.get("role") == "assistant":
        kept.setdefault("content", None)
    return kept
