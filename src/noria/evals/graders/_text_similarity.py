"""text_similarity: how near a text is to a reference, by one of the field's measures, from 0 to 1.

Source: https://platform.openai.com/docs/api-reference/graders/text-similarity
"""

from __future__ import annotations

import asyncio
from typing import Literal

from pydantic import Field

from noria.evals._parsing import Spec
from noria.evals._templates import Variables

from . import _measures as measures
from ._contract import Grade, GradeFailed, Row, Tools, filled

__all__ = ["TextSimilarity"]

_LONG = 20_000
"""Characters above which a measure is taken outside the event loop."""
_MOST = 200_000
"""Characters above which none is: some grow with the product of both lengths, and hold the interpreter while they do."""


class TextSimilarity(Spec):
    """`cosine` compares the embeddings of this instance's embedder; the others compare words (characters in Chinese)."""

    type: Literal["text_similarity"]
    name: str = Field(min_length=1, max_length=256)
    input: str
    reference: str
    evaluation_metric: Literal[
        "cosine", "fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
    ]
    pass_threshold: float = Field(default=0.5, allow_inf_nan=False)

    def check(self, variables: Variables, param: str) -> None:
        variables.check(self.input, f"{param}.input")
        variables.check(self.reference, f"{param}.reference")

    async def grade(self, row: Row, tools: Tools) -> Grade:
        text, reference = filled(self.input, row), filled(self.reference, row)
        length = len(text) + len(reference)
        if length > _MOST and self.evaluation_metric != "cosine":
            what = f"The texts have {length:,} characters together; {self.evaluation_metric} takes {_MOST:,}."
            raise GradeFailed("other_error", what)
        if self.evaluation_metric == "cosine":
            score = await _cosine(text, reference, tools)
        elif length > _LONG:
            score = await asyncio.to_thread(measures.measure, self.evaluation_metric, text, reference)
        else:
            score = measures.measure(self.evaluation_metric, text, reference)
        return Grade(score, score >= self.pass_threshold)


async def _cosine(text: str, reference: str, tools: Tools) -> float:
    if text == reference:
        return 1.0
    if not text.strip() or not reference.strip():
        return 0.0
    first, second = await tools.embed([text, reference])
    lengths = float((first @ first) * (second @ second)) ** 0.5
    return float(first @ second) / lengths if lengths else 0.0
