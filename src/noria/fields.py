"""Fields that several of OpenAI's request bodies share, each defined once; and how many of a body's faults are told.

Knows nothing about the bodies. Source: https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails, InitErrorDetails

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
_MOST_LISTED = 1000  # each is a dictionary of its own
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
    """A body that forbids unknown fields; where its faults are very many, one is told and the others are counted. Those of its
    keys, for lists are `Many`."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _count_faults(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(given)
        except ValidationError as error:
            if error.error_count() <= _MOST_FAULTS:
                raise
            count = error.error_count()
        fault = cls._one_of(count, given, handler)
        raise ValidationError.from_exception_data(cls.__name__, [fault])  # here, where the faults are no longer its context

    @classmethod
    def _one_of(cls, count: int, given: Any, handler: ModelWrapValidatorHandler[Self]) -> InitErrorDetails:
        """An unknown field; else the first that is wrong, and how many faults there are."""
        fields = cls.model_fields.items()
        body: dict[str, Any] = given if isinstance(given, dict) else {}
        known = {name for name, _ in fields} | {field.alias for _, field in fields}
        if (unknown := next((key for key in body if key not in known), None)) is not None:
            return {"type": "extra_forbidden", "loc": (unknown,), "input": body[unknown]}
        told = PydanticCustomError("too_many_faults", "it has {count} faults", {"count": f"{count:,}"})
        for key, value in body.items():
            missing = sum(field.is_required() and key not in (name, field.alias) for name, field in fields)
            try:
                handler({key: value})
            except ValidationError as error:
                if error.error_count() > missing:
                    return {"type": told, "loc": (key,), "input": value}
        return {"type": told, "loc": (), "input": given}


def faults(error: ValidationError) -> Sequence[ErrorDetails]:
    """What is wrong, never more than can be told: very many faults are one that says how many, at the place of the first unless
    there are too many to look at."""
    count = error.error_count()
    if count <= _MOST_FAULTS:
        return error.errors(include_url=False)
    first = error.errors(include_url=False)[0] if count <= _MOST_LISTED else None
    place, value = (first["loc"], first["input"]) if first else ((), None)
    return [{"type": "too_many_faults", "loc": place, "msg": f"it has {count:,} faults", "input": value}]


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
