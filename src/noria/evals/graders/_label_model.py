"""label_model: a model puts one of given labels on a row. Source: https://platform.openai.com/docs/api-reference/graders/label-model"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from noria.errors import InvalidRequest
from noria.evals._messages import TemplateMessage, check_messages
from noria.evals._parsing import Spec
from noria.evals._templates import Variables
from noria.fields import Many

from ._contract import Grade, GradeFailed, Row, Tools
from ._judge import ask_judge

__all__ = ["LabelModel"]

_Label = Annotated[str, Field(min_length=1, max_length=256)]


class LabelModel(Spec):
    """Passes when the judge's label is one of `passing_labels`."""

    type: Literal["label_model"]
    name: str = Field(min_length=1, max_length=256)
    model: str = Field(min_length=1, max_length=256)
    input: Many[TemplateMessage] = Field(min_length=1)
    labels: Many[_Label] = Field(min_length=1, max_length=256)
    passing_labels: Many[_Label]

    def check(self, variables: Variables, param: str) -> None:
        if strange := [label for label in self.passing_labels if label not in self.labels]:
            raise InvalidRequest(
                f"{param}.passing_labels has {strange[0]!r}, which is not in labels.", param=f"{param}.passing_labels"
            )
        check_messages(self.input, variables, f"{param}.input")

    async def grade(self, row: Row, tools: Tools) -> Grade:
        schema = {
            "type": "object",
            "properties": {"label": {"type": "string", "enum": self.labels}},
            "required": ["label"],
            "additionalProperties": False,
        }
        given, kept = await ask_judge(self.model, self.input, row, tools, schema, {})
        label = given.get("label")
        if label not in self.labels:
            raise GradeFailed("model_grader_parse_error", f"The judge {self.model} gave {label!r}, which is none of the labels.")
        passed = label in self.passing_labels
        return Grade(1.0 if passed else 0.0, passed, {"label": label}, kept)
