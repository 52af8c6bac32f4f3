"""Reading `key=value` and conditions from the command line into what the API takes. Knows nothing of the API's answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from noria.errors import InvalidRequest

__all__ = ["parse_attributes", "parse_filters", "parse_pairs"]

_CONDITION = re.compile(r"(?P<key>[^=!<>\s]+)\s*(?P<sign>!=|>=|<=|=|>|<)\s*(?P<value>.*)", re.DOTALL)
_SIGNS = {"=": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")


def parse_filters(given: Sequence[str]) -> dict[str, Any] | None:
    """`lang=zh`, `year>=2020`, `draft!=true`, or OpenAI's filter as a JSON object; all must hold. None for none."""
    filters = [_filter(text) for text in given]
    if not filters:
        return None
    return filters[0] if len(filters) == 1 else {"type": "and", "filters": filters}


def _filter(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise InvalidRequest(f"The filter {text!r} is not valid JSON: {error}.") from None
        return parsed
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise InvalidRequest(f"The filter {text!r} cannot be read.", hint="Write key=value, key!=value or key>=value.")
    return {"type": _SIGNS[found["sign"]], "key": found["key"], "value": parse_value(found["value"])}


def parse_attributes(given: Iterable[str]) -> dict[str, str | float | bool]:
    """`lang=zh year=2024` with numbers and true/false read as such; quote a value to keep it text: `code='"007"'`."""
    return {key: parse_value(value) for key, value in parse_pairs(given).items()}


def parse_pairs(given: Iterable[str]) -> dict[str, str]:
    """`key=value`, the values as they are."""
    pairs: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InvalidRequest(f"{text!r} is not of the form key=value.")
        pairs[key.strip()] = value
    return pairs


def parse_value(text: str) -> str | float | bool:
    """A number, true or false where it reads as one; otherwise, or in double quotes, text."""
    if text in {"true", "false"}:
        return text == "true"
    if _NUMBER.fullmatch(text):
        return float(text) if any(sign in text for sign in ".eE") else int(text)
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    return text
