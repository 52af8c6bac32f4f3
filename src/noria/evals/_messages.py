"""Messages with templates: what an eval sends to its target and a judge is asked, as OpenAI's evals spell them.

Source: https://platform.openai.com/docs/api-reference/evals/createRun (`input_messages`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from noria.errors import UnsupportedField
from noria.fields import Many

from ._parsing import Spec
from ._templates import Variables, fill

__all__ = ["TemplateMessage", "as_messages", "check_messages", "fill_messages"]


class _Text(Spec):
    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: Many[Any] | None = None


class _Image(Spec):
    type: Literal["input_image"]
    image_url: str
    file_id: None = None
    detail: Literal["low", "high", "auto"] | None = None


class _Audio(Spec):
    type: Literal["input_audio"]
    input_audio: dict[str, Any]


_Part = Annotated[_Text | _Image | _Audio, Field(discriminator="type")]


class TemplateMessage(Spec):
    """One message; its text may hold `{{item.…}}`."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | _Part | Many[str | _Part]
    type: Literal["message"] = "message"

    def parts(self) -> list[str | _Text | _Image | _Audio]:
        return list(self.content) if isinstance(self.content, list) else [self.content]


def check_messages(messages: Sequence[TemplateMessage], variables: Variables, param: str) -> None:
    """Raises InvalidRequest for an unknown variable, UnsupportedField for audio."""
    for number, message in enumerate(messages):
        where = f"{param}[{number}].content"
        for part in message.parts():
            match part:
                case str():
                    variables.check(part, where)
                case _Text():
                    variables.check(part.text, where)
                case _Image():
                    variables.check(part.image_url, where)
                case _Audio():
                    raise UnsupportedField(f"{where} is audio, which evals do not send.", param=where)


def fill_messages(
    messages: Sequence[TemplateMessage], row: Mapping[str, Any], wrap: Callable[[str], str] | None = None
) -> list[dict[str, Any]]:
    """Chat messages with this row's values. Raises MissingVariable."""
    return [{"role": message.role, "content": _content(message, row, wrap)} for message in messages]


def _content(message: TemplateMessage, row: Mapping[str, Any], wrap: Callable[[str], str] | None) -> Any:
    parts: list[dict[str, Any]] = []
    for part in message.parts():
        match part:
            case str() | _Text():
                parts.append({"type": "text", "text": fill(part if isinstance(part, str) else part.text, row, wrap)})
            case _Image():
                image = {"url": fill(part.image_url, row)} | ({"detail": part.detail} if part.detail else {})
                parts.append({"type": "image_url", "image_url": image})
            case _Audio():
                raise AssertionError("refused when it was checked")
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def as_messages(value: Any) -> list[dict[str, Any]] | None:
    """What an `item_reference` leads to, as chat messages: a list of messages, or a text from the user; else None."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        return None
    messages: list[dict[str, Any]] = []
    for entry in value:
        if not isinstance(entry, Mapping) or "role" not in entry:
            return None
        message = {key: kept for key, kept in entry.items() if key not in {"type", "id", "status"}}
        content = message.get("content")
        if isinstance(content, list):
            message["content"] = [_chat_part(part) for part in content]
        messages.append(message)
    return messages


def _chat_part(part: Any) -> Any:
    if isinstance(part, Mapping) and part.get("type") in {"input_text", "output_text"}:
        return {"type": "text", "text": part.get("text", "")}
    if isinstance(part, Mapping) and part.get("type") == "input_image":
        return {"type": "image_url", "image_url": {"url": part.get("image_url", "")}}
    return part
