"""Which messages a model is given: instructions and rules in front, and fewer of the oldest where not all fit.

Knows nothing about how a model is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from noria.messages import estimate_tokens, text_of

__all__ = ["ever_shorter", "with_images_of", "with_instructions", "with_rules"]

Messages = list[dict[str, Any]]

_SHARES = (0.75, 0.375, 0.1875, 0.0)  # of what may fit; with the whole of it, a response costs five calls at most
_MESSAGE_TOKENS = 4  # its role and its marks in a template


def with_instructions(instructions: str, messages: Messages) -> Messages:
    """The caller's instructions first; templates of small models know one system message only, so they are put together."""
    if messages and messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{instructions}\n\n{messages[0]['content']}"}, *messages[1:]]
    return [{"role": "system", "content": instructions}, *messages]


def with_rules(messages: Messages, rules: dict[str, Any]) -> Messages:
    """The rules of answering from passages, after what a first system message says (again as one)."""
    if messages and messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{messages[0]['content']}\n\n{rules['content']}"}, *messages[1:]]
    return [rules, *messages]


def with_images_of(asked: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    """`message`, which says in words what was `asked`, with the images that were asked about."""
    images = [part for part in asked["content"] if part["type"] == "image_url"] if isinstance(asked["content"], list) else []
    return {**message, "content": [{"type": "text", "text": message["content"]}, *images]} if images else message


def ever_shorter(messages: Messages, room_tokens: int | None) -> Iterator[Messages]:
    """All messages, then without ever more of the oldest, to be tried until they fit; each is shorter than the one before.

    `room_tokens` is what the model is known to take. Tokens are estimated, for only the model can count them.
    """
    yield messages
    whole = sum(map(_tokens, messages))
    budget = whole if room_tokens is None else min(whole, max(room_tokens, 0))
    for share in _SHARES:
        shorter = _newest(messages, int(budget * share))
        if len(shorter) < len(messages):
            messages = shorter
            yield messages


def _newest(messages: Messages, budget_tokens: int) -> Messages:
    """The system's message and the newest others within the budget, at least the last; calls stay with their outputs."""
    start = 1 if messages and messages[0]["role"] in {"system", "developer"} else 0
    left = sum(map(_tokens, messages))
    first = start
    while left > budget_tokens:
        end = first + 1
        while end < len(messages) and messages[end]["role"] == "tool":
            end += 1
        if end >= len(messages):
            break
        left -= sum(map(_tokens, messages[first:end]))
        first = end
    return messages[:start] + messages[first:]


def _tokens(message: dict[str, Any]) -> int:
    calls = "".join(call["function"]["name"] + call["function"]["arguments"] for call in message.get("tool_calls") or ())
    return _MESSAGE_TOKENS + estimate_tokens(text_of(message.get("content")) + calls)
