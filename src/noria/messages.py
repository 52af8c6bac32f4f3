"""Messages of chat completions and items of responses, as OpenAI's API spells them, and the way from items to messages.

Strict: a field that is not listed is an error. Sources: https://platform.openai.com/docs/api-reference/chat/create and
…/responses/create. Knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from noria.fields import Many

__all__ = [
    "AssistantMessage",
    "ChatMessage",
    "FunctionCallItem",
    "FunctionCallOutputItem",
    "InputItem",
    "ItemReference",
    "MessageItem",
    "SearchCallItem",
    "SystemMessage",
    "ToolMessage",
    "UserMessage",
    "estimate_tokens",
    "text_of",
    "to_chat_messages",
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


# --- chat completions -------------------------------------------------------------------------------------------------


class ChatTextPart(_Strict):
    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: dict[str, Any] | None = None


class ImageUrl(_Strict):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ChatImagePart(_Strict):
    """Passed on to remote models; the local engine reads text only and says so."""

    type: Literal["image_url"]
    image_url: ImageUrl


class ChatRefusalPart(_Strict):
    type: Literal["refusal"]
    refusal: str


_TextParts = str | Many[ChatTextPart]
_UserParts = str | Many[Annotated[ChatTextPart | ChatImagePart, Field(discriminator="type")]]
_AssistantParts = str | Many[Annotated[ChatTextPart | ChatRefusalPart, Field(discriminator="type")]]


class CalledFunction(_Strict):
    name: str
    arguments: str


class ChatToolCall(_Strict):
    id: str
    type: Literal["function"]
    function: CalledFunction


class SystemMessage(_Strict):
    role: Literal["system", "developer"]
    content: _TextParts
    name: str | None = None


class UserMessage(_Strict):
    role: Literal["user"]
    content: _UserParts
    name: str | None = None


class AssistantMessage(_Strict):
    role: Literal["assistant"]
    content: _AssistantParts | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: Many[ChatToolCall] | None = None
    # Clients send back what they got; these carry nothing for a next turn.
    annotations: Many[dict[str, Any]] | None = None
    audio: None = None
    function_call: None = None
    reasoning_content: str | None = None


class ToolMessage(_Strict):
    role: Literal["tool"]
    content: _TextParts
    tool_call_id: str


ChatMessage = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


# --- responses --------------------------------------------------------------------------------------------------------


class InputText(_Strict):
    type: Literal["input_text"]
    text: str


class InputImage(_Strict):
    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto", "low", "high"] | None = None


class OutputText(_Strict):
    type: Literal["output_text"]
    text: str
    annotations: Many[dict[str, Any]] = []
    logprobs: Many[dict[str, Any]] | None = None


class OutputRefusal(_Strict):
    type: Literal["refusal"]
    refusal: str


_ItemPart = Annotated[InputText | InputImage | OutputText | OutputRefusal, Field(discriminator="type")]
_Status = Literal["in_progress", "completed", "incomplete"]


class MessageItem(_Strict):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Many[_ItemPart]
    id: str | None = None
    status: _Status | None = None
    phase: str | None = None


class FunctionCallItem(_Strict):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: _Status | None = None


class FunctionCallOutputItem(_Strict):
    type: Literal["function_call_output"]
    call_id: str
    output: str | Many[InputText]
    id: str | None = None
    status: _Status | None = None


class SearchCallItem(_Strict):
    """A search done in an earlier turn, sent back by the client; the answer built on it is in the message after it."""

    type: Literal["file_search_call"]
    id: str
    status: str
    queries: Many[str] = []
    results: Many[dict[str, Any]] | None = None


class ItemReference(_Strict):
    """An item of a stored response, by its id. OpenAI's API takes `{"id": …}` alone for one too."""

    type: Literal["item_reference"] | None = "item_reference"
    id: str = Field(max_length=128)


def _item_tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if isinstance(kind, str):
        return kind
    bare = isinstance(value, dict) and "id" in value and not value.keys() & {"role", "content"}
    return "item_reference" if bare or isinstance(value, ItemReference) else "message"


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionCallOutputItem, Tag("function_call_output")]
    | Annotated[SearchCallItem, Tag("file_search_call")]
    | Annotated[ItemReference, Tag("item_reference")],
    Discriminator(_item_tag),
]


def estimate_tokens(text: str) -> int:
    """Tokens where no tokenizer is at hand: one for a Chinese character, one for three to four Latin letters."""
    wide = sum(1 for character in text if character >= "\u2e80")
    return wide + (len(text) - wide + 2) // 3


def text_of(content: str | Sequence[Any] | None) -> str:
    """The plain text of a message's content; parts that are not text add nothing."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(str(part.get("text") or "") if isinstance(part, dict) else str(getattr(part, "text", "")) for part in content)


def to_chat_messages(items: Sequence[Any]) -> list[dict[str, Any]]:
    """Responses items as chat completions messages: neighbouring calls become one assistant message with `tool_calls`."""
    messages: list[dict[str, Any]] = []
    for item in items:
        match item:
            case MessageItem(role="assistant"):
                messages.append({"role": "assistant", "content": text_of(item.content) or _refusal_of(item.content)})
            case MessageItem():
                messages.append({"role": item.role, "content": _chat_content(item.content)})
            case FunctionCallItem():
                call = {"id": item.call_id, "type": "function", "function": {"name": item.name, "arguments": item.arguments}}
                if messages and messages[-1]["role"] == "assistant":
                    messages[-1].setdefault("tool_calls", []).append(call)
                else:
                    messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            case FunctionCallOutputItem():
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": text_of(item.output)})
            case _:
                continue
    return messages


def _refusal_of(content: str | Sequence[Any]) -> str:
    return "".join(part.refusal for part in content if isinstance(part, OutputRefusal))


def _chat_content(content: str | Sequence[Any]) -> Any:
    if isinstance(content, str) or not any(isinstance(part, InputImage) for part in content):
        return text_of(content)
    parts: list[dict[str, Any]] = []
    for part in content:
        if isinstance(part, InputImage):
            image = {"url": part.image_url} | ({"detail": part.detail} if part.detail else {})
            parts.append({"type": "image_url", "image_url": image})
        elif isinstance(part, InputText):
            parts.append({"type": "text", "text": part.text})
    return parts
