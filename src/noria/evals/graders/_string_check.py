"""string_check: two texts compared. Source: https://platform.openai.com/docs/api-reference/graders/string-check"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from noria.evals._parsing import Spec
from noria.evals._templates import Variables

from ._contract import Grade, Row, Tools, filled

__all__ = ["StringCheck"]

_MOST_SHOWN = 200


class StringCheck(Spec):
    """`eq` and `ne` compare whole texts, `like` and `ilike` look for the reference in the input (`ilike`: case ignored)."""

    type: Literal["string_check"]
    name: str = Field(min_length=1, max_length=256)
    input: str
    reference: str
    operation: Literal["eq", "ne", "like", "ilike"]

    def check(self, variables: Variables, param: str) -> None:
        variables.check(self.input, f"{param}.input")
        variables.check(self.reference, f"{param}.reference")

    async def grade(self, row: Row, tools: Tools) -> Grade:
        text, reference = filled(self.input, row), filled(self.reference, row)
        passed = {
            "eq": lambda: text == reference,
            "ne": lambda: text != reference,
            "like": lambda: reference in text,
            "ilike": lambda: reference.casefold() in text.casefold(),
        }[self.operation]()
        detail = {"input": text, "reference": reference} if max(len(text), len(reference)) <= _MOST_SHOWN else {}
        return Grade(1.0 if passed else 0.0, passed, detail)
