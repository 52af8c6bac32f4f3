"""Chats as token ids outside the worker, by the worker's own code: what training must tokenise with.

Knows nothing about training. A folder is a prepared model's or a checkpoint's; both hold `tokenizer.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from noria.engines.openvino._chat import ChatTemplate
from noria.engines.openvino._job import tools_of
from noria.engines.openvino._manifest import MANIFEST_NAME, ModelManifest
from noria.engines.openvino._source import NOTE_NAME, read_note
from noria.engines.openvino._tokenizer import Tokenizer
from noria.engines.openvino._wire import ChatMessage, ToolDefinition
from noria.errors import ConfigurationError, InvalidRequest

__all__ = ["ChatRenderer", "renderer"]

_MESSAGES = TypeAdapter(list[ChatMessage])
_TOOLS = TypeAdapter(list[ToolDefinition])


class ChatRenderer:
    """A model's template and tokenizer. `end_token_ids` end an answer; `turn_end_id` is the one its chats are written with."""

    def __init__(self, folder: Path) -> None:
        facts = ModelManifest.read(folder) if (folder / MANIFEST_NAME).exists() else read_note(folder)
        if facts is None:
            raise ConfigurationError(f"{folder} is neither a prepared model nor a checkpoint of Noria's.")
        self._template = ChatTemplate(facts.chat_template, facts.bos_token, facts.eos_token)
        self.tokenizer = Tokenizer(folder / "tokenizer.json")
        self.end_token_ids = frozenset(facts.end_token_ids)
        self.knows_tools = self._template.knows_tools
        self.turn_end_id = self._turn_end(facts.eos_token)

    def _turn_end(self, eos_token: str | None) -> int | None:
        """The end token that the template writes behind an answer; else the model's own."""
        turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
        try:
            _, _, behind = self._template.render(turns, add_generation_prompt=False).rpartition("answer")
        except InvalidRequest:  # there is no template, or not for such a chat
            behind = ""
        found = next((token for token in self.tokenizer.encode(behind)[:4] if token in self.end_token_ids), None)
        return found if found is not None or eos_token is None else self.tokenizer.id_of(eos_token)

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        """The chat as text. Messages and tools are OpenAI's, read as strictly as the worker reads them."""
        try:
            turns = [message.to_turn() for message in _MESSAGES.validate_python(list(messages))]
            definitions = _TOOLS.validate_python(list(tools or ()))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise InvalidRequest(f"messages.{place}: {first['msg']}", param="messages", code="invalid_value") from error
        return self._template.render(turns, tools_of(definitions), add_generation_prompt=add_generation_prompt)

    def ids(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """The chat as the worker would tokenise it; with `add_generation_prompt` its prompt for these messages."""
        return self.tokenizer.encode(self.text(messages, tools, add_generation_prompt=add_generation_prompt))

    def answer_text(self, message: Mapping[str, Any]) -> str:
        """What the model itself would have to write to give this assistant message: its text and its tool calls."""
        (turn,) = (message.to_turn() for message in _MESSAGES.validate_python([message]))
        return self._template.answer(turn)

    def answer_ids(self, message: Mapping[str, Any]) -> list[int]:
        """An assistant message's tokens as they follow `ids(earlier messages)`, with the token that ends the turn."""
        ids = self.tokenizer.encode(self.answer_text(message))
        return ids if self.turn_end_id is None else [*ids, self.turn_end_id]


@lru_cache(maxsize=8)
def _cached(folder: Path, _changed_ns: int) -> ChatRenderer:
    return ChatRenderer(folder)


def renderer(folder: Path) -> ChatRenderer:
    """The renderer of a folder; kept until the folder is prepared anew."""
    folder = folder.resolve()
    note = next((folder / name for name in (MANIFEST_NAME, NOTE_NAME) if (folder / name).exists()), None)
    return _cached(folder, note.stat().st_mtime_ns if note else 0)
