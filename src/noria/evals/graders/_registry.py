"""Finding a grader by its type: built-in ones, then entry points. Nothing is imported before it is asked for."""

from __future__ import annotations

import functools
import importlib
from importlib.metadata import entry_points
from typing import Any, cast

from noria.errors import InvalidRequest
from noria.evals._parsing import parse

from ._contract import Grader

__all__ = ["grader_types", "parse_grader"]

_BUILT_IN = {
    "string_check": "_string_check:StringCheck",
    "text_similarity": "_text_similarity:TextSimilarity",
    "label_model": "_label_model:LabelModel",
    "score_model": "_score_model:ScoreModel",
    "python": "_python:Python",
    "multi": "_multi:Multi",
}


def grader_types() -> tuple[str, ...]:
    return tuple(_BUILT_IN) + tuple(entry.name for entry in entry_points(group="noria.graders"))


@functools.cache
def _shape(kind: str) -> type[Any] | None:
    if kind in _BUILT_IN:
        module, _, name = _BUILT_IN[kind].partition(":")
        return getattr(importlib.import_module(f"noria.evals.graders.{module}"), name)
    for entry in entry_points(group="noria.graders", name=kind):
        return entry.load()
    return None


def parse_grader(spec: Any, param: str) -> Grader:
    """The grader of a specification; its templates are not checked yet. Raises InvalidRequest."""
    kind = spec.get("type") if isinstance(spec, dict) else None
    shape = _shape(kind) if isinstance(kind, str) else None
    if shape is None:
        raise InvalidRequest(
            f"{param}.type = {str(kind)[:80]!r} is no grader.",
            param=f"{param}.type",
            code="invalid_value",
            hint=f"There are: {', '.join(grader_types())}.",
        )
    # OpenAI gives criteria an id in its answers; they may be sent back.
    given = {key: value for key, value in cast("dict[str, Any]", spec).items() if key != "id"}
    return parse(shape, given, param)
