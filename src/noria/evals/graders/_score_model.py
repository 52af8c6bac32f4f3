"""score_model: a model gives a row a score. Source: https://platform.openai.com/docs/api-reference/graders/score-model"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from noria.errors import InvalidRequest
from noria.evals._messages import TemplateMessage, check_messages
from noria.evals._parsing import Spec
from noria.evals._templates import Variables
from noria.fields import Many

from ._contract import Grade, GradeFailed, Row, Tools
from ._judge import ask_judge

__all__ = ["ScoreModel"]


class _Sampling(Spec):
    seed: int | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_completions_tokens: int | None = Field(default=None, ge=1)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None

    def body(self) -> dict[str, Any]:
        given = self.model_dump(exclude_none=True)
        if "max_completions_tokens" in given:  # the graders' spelling of max_completion_tokens
            given["max_completion_tokens"] = given.pop("max_completions_tokens")
        return given


class ScoreModel(Spec):
    """`pass_threshold` defaults to the middle of the range."""

    type: Literal["score_model"]
    name: str = Field(min_length=1, max_length=256)
    model: str = Field(min_length=1, max_length=256)
    input: Many[TemplateMessage] = Field(min_length=1)
    range: Many[float] = Field(default=[0.0, 1.0], min_length=2, max_length=2)
    sampling_params: _Sampling = _Sampling()
    pass_threshold: float | None = Field(default=None, allow_inf_nan=False)

    def check(self, variables: Variables, param: str) -> None:
        if not all(map(math.isfinite, self.range)) or self.range[0] >= self.range[1]:
            raise InvalidRequest(f"{param}.range = {self.range} is not [lowest, highest].", param=f"{param}.range")
        check_messages(self.input, variables, f"{param}.input")

    async def grade(self, row: Row, tools: Tools) -> Grade:
        low, high = self.range
        schema = {
            "type": "object",
            "properties": {"score": {"type": "number", "minimum": low, "maximum": high}},
            "required": ["score"],
            "additionalProperties": False,
        }
        given, kept = await ask_judge(self.model, self.input, row, tools, schema, self.sampling_params.body())
        score = given.get("score")
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not low <= score <= high:
            raise GradeFailed(
                "model_grader_parse_error",
                f"The judge {self.model} gave {score!r}, which is not a score from {low:g} to {high:g}.",
            )
        threshold = (low + high) / 2 if self.pass_threshold is None else self.pass_threshold
        return Grade(float(score), score >= threshold, {}, kept)
