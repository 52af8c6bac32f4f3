"""Messages of every dialect as OpenAI chat messages, which is what Noria shows, replays and makes datasets of.

OpenTelemetry writes `{"role", "parts": [{"type": "text", "content"}]}`, OpenInference and OpenLLMetry flatten messages
into numbered attributes, Vercel's AI SDK has typed content parts. Items of OpenAI's Responses API pass unchanged.
Knows nothing about spans.
"""

from __future__ import annotations

import json
from typing import Any, cast

import orjson

_TOOL_PARTS = {"tool_call", "tool-call"}
_RESULT_PARTS = {"tool_call_response", "tool-result"}


def as_messages(value: Any, role: str) -> list[Any]:
    """A list of chat messages from whatever an attribute held; text becomes one message of `role`."""
    if value is None:
        return []
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return [_message(item, role) for item in items]
    return [_message(value, role)]


def _message(value: Any, role: str) -> Any:
    if not isinstance(value, dict):
        return {"role": role, "content": value if isinstance(value, str) else dump_text(value)}
    message = cast("dict[str, Any]", value)
    if isinstance(message.get("parts"), list):
        return _from_parts(message, message["parts"], role)
    content: Any = message.get("content")
    if isinstance(content, list) and any(_part_type(part) in _TOOL_PARTS | _RESULT_PARTS for part in content):
        return _from_parts(message, cast("list[Any]", content), role)
    if "role" in message or "type" in message:
        return message
    return {"role": role, "content": dump_text(message)}


def _from_parts(message: dict[str, Any], parts: list[Any], role: str) -> dict[str, Any]:
    """Typed parts (OpenTelemetry's, Vercel's) as one chat message."""
    texts: list[str] = []
    others: list[Any] = []
    out: dict[str, Any] = {"role": message.get("role", role)}
    for part in parts:
        if not isinstance(part, dict):
            texts.append(str(part))
            continue
        item = cast("dict[str, Any]", part)
        kind = item.get("type")
        if kind == "text":
            texts.append(str(item.get("content", item.get("text", ""))))
        elif kind in _TOOL_PARTS:
            out.setdefault("tool_calls", []).append(_tool_call(item))
        elif kind in _RESULT_PARTS:
            out["tool_call_id"] = item.get("id", item.get("toolCallId"))
            result = next((item[key] for key in ("response", "result", "output") if key in item), None)
            texts.append(result if isinstance(result, str) else dump_text(result))
        elif kind == "reasoning":
            out["reasoning_content"] = str(item.get("content", item.get("text", "")))
        else:
            others.append(item)
    text = "".join(texts)
    out["content"] = [*([{"type": "text", "text": text}] if text else []), *others] if others else text or None
    if message.get("finish_reason"):
        out["finish_reason"] = message["finish_reason"]
    return out


def _tool_call(item: dict[str, Any]) -> dict[str, Any]:
    arguments = next((item[key] for key in ("arguments", "args", "input") if key in item), "")
    return {
        "id": item.get("id", item.get("toolCallId")),
        "type": "function",
        "function": {
            "name": item.get("name", item.get("toolName")),
            "arguments": arguments if isinstance(arguments, str) else dump_text(arguments),
        },
    }


def unflatten(attributes: dict[str, Any], prefix: str) -> list[dict[str, Any]]:
    """The objects of `prefix0.a.b`, `prefix1.a.b` …, in order; numbered parts inside become lists."""
    root: dict[str, Any] = {}
    for key, value in attributes.items():
        if not key.startswith(prefix):
            continue
        node = root
        *path, last = key[len(prefix) :].split(".")
        for step in path:
            child = node.setdefault(step, {})
            if not isinstance(child, dict):  # `a` and `a.b` both set: the deeper one wins nothing
                break
            node = cast("dict[str, Any]", child)
        else:
            node[last] = value
    items = _numbered(root)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _numbered(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    branch = cast("dict[str, Any]", node)
    if branch and all(key.isdecimal() and len(key) < 7 for key in branch):
        return [_numbered(branch[key]) for key in sorted(branch, key=int)]
    return {key: _numbered(value) for key, value in branch.items()}


def from_openinference(items: list[dict[str, Any]], role: str) -> list[dict[str, Any]]:
    """Messages of `llm.input_messages.N.message.…`."""
    messages: list[dict[str, Any]] = []
    for item in items:
        source = _inside(item, "message")
        message: dict[str, Any] = {"role": source.get("role", role), "content": source.get("content")}
        if message["content"] is None and isinstance(source.get("contents"), list):
            contents = [_inside(part, "message_content") for part in source["contents"]]
            if all("text" in part for part in contents):
                message["content"] = "".join(str(part["text"]) for part in contents)
            else:
                message["content"] = contents
        if isinstance(source.get("tool_calls"), list):
            calls = [_inside(call, "tool_call") for call in source["tool_calls"]]
            message["tool_calls"] = [
                {"id": call.get("id"), "type": "function", "function": call.get("function")} for call in calls
            ]
        _copy(source, message, ("name", "tool_call_id"))
        messages.append(message)
    return messages


def from_openllmetry(items: list[dict[str, Any]], role: str) -> list[dict[str, Any]]:
    """Messages of `gen_ai.prompt.N.…` and `gen_ai.completion.N.…`."""
    messages: list[dict[str, Any]] = []
    for item in items:
        message: dict[str, Any] = {"role": item.get("role", role), "content": item.get("content")}
        if isinstance(item.get("tool_calls"), list):
            message["tool_calls"] = [_tool_call(call) for call in item["tool_calls"] if isinstance(call, dict)]
        _copy(item, message, ("finish_reason", "tool_call_id", "name"))
        messages.append(message)
    return messages


def _inside(item: Any, key: str) -> dict[str, Any]:
    value: Any = item.get(key) if isinstance(item, dict) else None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _copy(source: dict[str, Any], target: dict[str, Any], keys: tuple[str, ...]) -> None:
    target |= {key: source[key] for key in keys if source.get(key)}


def text_of(message: Any) -> str:
    """The words of a message, without tool calls: what a list of traces shows of it."""
    if isinstance(message, str):
        return message
    if not isinstance(message, dict):
        return ""
    content: Any = cast("dict[str, Any]", message).get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text") or "") for part in content if isinstance(part, dict)).strip()
    return ""


def last_user_text(messages: list[Any]) -> str:
    """The newest thing a person said in these messages, else the newest text at all."""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user" and (text := text_of(message)):
            return text
    return next((text for message in reversed(messages) if (text := text_of(message))), "")


def dump_text(value: Any) -> str:
    """JSON text of anything: what JSON lacks becomes text."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # an integer beyond 64 bits, a lone surrogate
        return json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "replace").decode()


def _part_type(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else None
