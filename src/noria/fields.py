"""Fields that several of OpenAI's request bodies share, each defined once; and how many of a body's faults are told.

Knows nothing about the bodies. Source: https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "HINT",
    "HINTS",
    "RECORDED",
    "FewFaults",
    "JsonObjectFormat",
    "Many",
    "Metadata",
    "TextFormat",
    "faults",
    "hints",
    "shorten",
]

_Item = TypeVar("_Item")
_MOST_FAULTS = 32
_SHOWN = 120

RECORDED: dict[str, Any] = {"noria": "recorded"}
"""Marks a field that is kept with the trace and has no other effect; the docs' tables of fields read it."""

HINT = "Also sent to the remote providers that take it."
"""How the docs describe one of `HINTS`."""

HINTS = ("prompt_cache_key", "prompt_cache_retention", "service_tier")

Metadata = Annotated[dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)]

Many = Annotated[list[_Item], Field(fail_fast=True)]
"""A list that is given up at its first bad entry. Others keep a fault for every entry and every branch of a union, each as a
dictionary in the end: gigabytes for a body of a few megabytes."""


class FewFaults(BaseModel):
    """A body whose faults, where they are very many, are counted instead of told: those of its keys, for lists are `Many`."""

    @model_validator(mode="wrap")
    @classmethod
    def _count_faults(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(given)
        except ValidationError as error:
            if error.error_count() <= _MOST_FAULTS:
                raise
            kind, message, counted = "too_many_faults", "it has {count} faults", {"count": f"{error.error_count():,}"}
        raise PydanticCustomError(kind, message, counted)  # here, where the faults are no longer its context


def faults(error: ValidationError) -> Sequence[ErrorDetails]:
    """What is wrong, never more than can be told: very many faults are one that says how many."""
    count = error.error_count()
    if count <= _MOST_FAULTS:
        return error.errors(include_url=False)
    return [{"type": "too_many_faults", "loc": (), "msg": f"it has {count:,} faults", "input": None}]


def hints(body: BaseModel) -> dict[str, Any]:
    """What a provider that takes it is sent beside the body, and no other."""
    return {name: value for name in HINTS if (value := getattr(body, name)) is not None}


def shorten(value: Any) -> str:
    """`repr(value)`, at most 120 characters of it, without writing out the rest."""
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > _SHOWN:
            return text[: _SHOWN - 3] + "…"
    return text


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for number, (key, item) in enumerate(value.items()):
            yield ", " if number else "{"
            yield from _pieces(key)
            yield ": "
            yield from _pieces(item)
        yield "}" if value else "{}"
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield ", " if number else "["
            yield from _pieces(item)
        yield "]" if value else "[]"
    else:
        yield repr(value[: _SHOWN + 1] if isinstance(value, str) else value)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextFormat(_Strict):
    type: Literal["text"]


class JsonObjectFormat(_Strict):
    type: Literal["json_object"]
