"""Templates with `{{item.…}}` and `{{sample.…}}`: checked when an eval is made, filled in for each row, never twice.

A value that is text goes in as it is, anything else as JSON; what was put in is not looked at again, so that a row which holds
`{{…}}` is only text. Source: https://platform.openai.com/docs/guides/graders#templating
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from noria.errors import InvalidRequest

__all__ = ["SAMPLE_FIELDS", "MissingVariable", "Variables", "fill", "look_up", "variables_in"]

_HOLE = re.compile(r"\{\{([^{}]*)\}\}")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_PATH = re.compile(r"[^.\[\]]+(\.[^.\[\]]+|\[\d+\])*")
SAMPLE_FIELDS = ("output_text", "output_json", "output_tools", "model", "finish_reason", "input")


_MOST_FILLED = 32 * 2**20
"""Characters of a filled template: a long value that is named a thousand times must not take all memory."""


class MissingVariable(LookupError):
    """A row lacks what a template names, or what it names is too long to be put in so often."""


def variables_in(text: str) -> list[str]:
    return [found.strip() for found in _HOLE.findall(text)]


def _steps(path: str) -> list[str | int]:
    return [name if name else int(index) for name, index in _STEP.findall(path)]


def look_up(path: str, row: Mapping[str, Any]) -> Any:
    """The value at `item.a.b[0]` in `{"item": …, "sample": …}`. Raises MissingVariable."""
    value: Any = row
    for step in _steps(path):
        if isinstance(value, Mapping) and isinstance(step, str) and step in value:
            value = value[step]
        elif isinstance(value, list) and (isinstance(step, int) or step.isdigit()) and int(step) < len(value):
            value = value[int(step)]
        else:
            raise MissingVariable(f"The row has no {path}.")
    return value


def fill(text: str, row: Mapping[str, Any], wrap: Callable[[str], str] | None = None) -> str:
    """The template with its values. `wrap` is put around each. Raises MissingVariable."""

    length = 0

    def value(hole: re.Match[str]) -> str:
        nonlocal length
        path = hole[1].strip()
        found = look_up(path, row)
        try:
            shown = found if isinstance(found, str) else orjson.dumps(found).decode()
        except TypeError:  # nested too deeply for JSON
            raise MissingVariable(f"{path} cannot be written as JSON.") from None
        length += len(shown)
        if length > _MOST_FILLED:
            raise MissingVariable(f"With {path}, the filled template is longer than {_MOST_FILLED:,} characters.")
        return wrap(shown) if wrap else shown

    return _HOLE.sub(value, text)


@dataclass(frozen=True, slots=True)
class Variables:
    """What templates may name: `item` is the JSON schema of a row, `sample` whether a model's output will be there."""

    item: Mapping[str, Any]
    sample: bool

    def check(self, text: str, param: str) -> None:
        """Raises InvalidRequest naming the first variable that is not one."""
        for path in variables_in(text):
            self.check_path(path, param)

    def check_path(self, path: str, param: str) -> None:
        steps = _steps(path) if _PATH.fullmatch(path) else []
        if not steps or steps[0] not in {"item", "sample"}:
            raise _unknown(path, param, "Variables begin with item. or sample., as in {{item.question}}.")
        if steps[0] == "sample":
            self._check_sample(path, steps, param)
        else:
            _check_schema(self.item, steps[1:], path, param)

    def _check_sample(self, path: str, steps: list[str | int], param: str) -> None:
        if not self.sample:
            raise _unknown(path, param, "Set include_sample_schema: true in data_source_config for evals that look at outputs.")
        if len(steps) > 1 and steps[1] not in SAMPLE_FIELDS:
            raise _unknown(path, param, f"sample has: {', '.join(SAMPLE_FIELDS)}.")


def _check_schema(schema: Any, steps: list[str | int], path: str, param: str) -> None:
    """Follows the path as far as the schema says which properties there are."""
    for step in steps:
        if not isinstance(schema, Mapping):
            return
        if isinstance(step, int) or "properties" not in schema:
            schema = schema.get("items") if isinstance(step, int) else None
            continue
        known = schema["properties"]
        if step not in known and not schema.get("additionalProperties"):
            raise _unknown(path, param, f"There, the schema has: {', '.join(known) or 'nothing'}.")
        schema = known.get(step)


def _unknown(path: str, param: str, hint: str) -> InvalidRequest:
    shown = path if len(path) <= 120 else path[:117] + "…"
    return InvalidRequest(f"{param} names an unknown variable: {{{{{shown}}}}}.", param=param, code="unknown_variable", hint=hint)
