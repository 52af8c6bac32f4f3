"""python: the user's `grade(sample, item) -> float`, run behind the sandbox's walls.

Source: https://platform.openai.com/docs/api-reference/graders/python
"""

from __future__ import annotations

import ast
from typing import Literal

from pydantic import Field

from noria.errors import InvalidRequest
from noria.evals._parsing import Spec
from noria.evals._templates import Variables

from ._contract import Grade, GradeFailed, Row, Tools

__all__ = ["Python"]


class Python(Spec):
    """Runs on this server's Python; `image_tag` (OpenAI's name for an environment) is kept with the eval and chooses nothing."""

    type: Literal["python"]
    name: str = Field(min_length=1, max_length=256)
    source: str = Field(min_length=1, max_length=256 * 1024)
    image_tag: str | None = Field(default=None, max_length=64)
    pass_threshold: float = Field(default=0.5, allow_inf_nan=False)

    def check(self, variables: Variables, param: str) -> None:
        try:
            tree = ast.parse(self.source, "main.py")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise InvalidRequest(f"{param}.source is not Python: {error}.", param=f"{param}.source") from None
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "grade"]
        if not functions:
            raise InvalidRequest(
                f"{param}.source has no function grade.", param=f"{param}.source", hint="Write: def grade(sample, item) -> float"
            )

    async def grade(self, row: Row, tools: Tools) -> Grade:
        outcome = await tools.run_python(self.source, "grade", dict(row.sample), dict(row.item))
        if outcome.error is not None:
            kind = "unresponsive_reward_error" if outcome.stopped == "time" else "python_grader_runtime_error"
            raise GradeFailed(kind, outcome.error)
        return Grade(outcome.value, outcome.value >= self.pass_threshold)
