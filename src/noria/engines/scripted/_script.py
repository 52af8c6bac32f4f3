"""What a scripted model answers: rules over the last user message. Knows nothing about HTTP."""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from noria.errors import ConfigurationError

__all__ = ["Reply", "Script", "embed", "last_user_text", "load_script", "words"]


class Reply(BaseModel):
    """One rule: exactly one of `text`, `tool` (with `arguments`) and `error` (a status) is its answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str = ""
    text: str | None = None
    tool: str | None = None
    arguments: str = "{}"
    error: int | None = Field(default=None, ge=400, le=599)


class Script(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    delay_s: float = Field(default=0.0, ge=0)
    chunk_delay_s: float = Field(default=0.0, ge=0)
    dimensions: int = Field(default=64, ge=1, le=4096)
    replies: tuple[Reply, ...] = ()

    def answer(self, text: str) -> Reply:
        """The first rule that fits, or the text itself."""
        for reply in self.replies:
            if re.search(reply.match, text):
                return reply
        return Reply(text=text)


def load_script(path: Path | None) -> Script:
    if path is None:
        return Script()
    try:
        return Script.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigurationError(f"The script {path} cannot be used: {error}.") from None


def last_user_text(body: dict[str, Any]) -> str:
    """The text that rules look at: of a chat its last user message, of a completion the prompt."""
    if "prompt" in body:
        prompt = body["prompt"]
        return prompt if isinstance(prompt, str) else str(prompt[0] if prompt else "")
    for message in reversed(body.get("messages") or []):
        if message.get("role") == "user":
            content = message.get("content") or ""
            return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)
    return ""


def words(text: str) -> list[str]:
    """The pieces that count as tokens and are streamed one by one; joined they are the text."""
    return re.findall(r"\s*[^\s\u2e80-\uffff]+|\s*[\u2e80-\uffff]|\s+$", text)


def embed(text: str, dimensions: int) -> list[float]:
    """A unit vector from hashed words (signed feature hashing, https://arxiv.org/abs/0902.2206)."""
    vector = [0.0] * dimensions
    for word in words(text.lower()):
        digest = hashlib.blake2b(word.strip().encode(), digest_size=8).digest()
        vector[int.from_bytes(digest[:4], "big") % dimensions] += 1.0 if digest[4] & 1 else -1.0
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else [1.0] + [0.0] * (dimensions - 1)
