"""Fields that several of OpenAI's request bodies share, each defined once.

Knows nothing about the bodies. Source: https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["RECORDED", "JsonObjectFormat", "Metadata", "TextFormat"]

RECORDED: dict[str, Any] = {"noria": "recorded"}
"""Marks a field that is kept with the trace and has no other effect; the docs' tables of fields read it."""

Metadata = Annotated[dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextFormat(_Strict):
    type: Literal["text"]


class JsonObjectFormat(_Strict):
    type: Literal["json_object"]
