"""What a grader is: a specification that can check its templates and grade one row.

A grader is one file with a pydantic model; a third party adds one with an entry point in the group `noria.graders` whose name is
the `type` and whose value is the class. Knows nothing about runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from noria.evals._target import AskModel
from noria.evals._templates import MissingVariable, Variables, fill
from noria.sandbox import Outcome

__all__ = ["Grade", "GradeFailed", "Grader", "Row", "Tools", "filled"]


@dataclass(frozen=True, slots=True)
class Row:
    """What is graded: the data source's `item`, the model's `sample` (`output_text`, `output_json`, `output_tools`, …)."""

    item: Mapping[str, Any]
    sample: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def names(self) -> dict[str, Any]:
        return {"item": self.item, "sample": self.sample}


@dataclass(frozen=True, slots=True)
class Grade:
    """`detail` is kept with the result; `sample` is what a judge was asked and said; `parts` are a multi grader's scores."""

    score: float
    passed: bool
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sample: Mapping[str, Any] | None = None
    parts: Mapping[str, float] = field(default_factory=dict[str, float])


class GradeFailed(Exception):
    """A row that could not be graded. `kind` is one of the flags in OpenAI's grader-run answer."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Tools:
    """What graders may use: a model, an embedder, the sandbox (its arguments: source, function, the function's arguments)."""

    ask: AskModel
    embed: Callable[[Sequence[str]], Awaitable[np.ndarray[Any, np.dtype[np.float32]]]]
    run_python: Callable[..., Awaitable[Outcome]]


class Grader(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...

    def check(self, variables: Variables, param: str) -> None:
        """Raises InvalidRequest for a template that names what is not there, or another fault in itself."""
        ...

    async def grade(self, row: Row, tools: Tools) -> Grade:
        """Raises GradeFailed or a NoriaError."""
        ...


def filled(text: str, row: Row, wrap: Callable[[str], str] | None = None) -> str:
    """The template with this row's values. Raises GradeFailed where one is missing."""
    try:
        return fill(text, row.names, wrap)
    except MissingVariable as error:
        raise GradeFailed("invalid_variable_error", str(error)) from None
