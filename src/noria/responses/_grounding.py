"""Answering from documents: search, choose how to answer, prompt the model or quote, and tie sentences to passages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from noria.knowledge import FoundPassage, Hit, Knowledge
from noria.models import Hub

from ._request import FileSearchTool

__all__ = ["Found", "Grounding", "Quoted"]

Mode = Literal["generate", "extract", "absent"]


@dataclass(frozen=True, slots=True)
class Found:
    question: str
    hits: tuple[Hit[FoundPassage], ...]


@dataclass(frozen=True, slots=True)
class Quoted:
    text: str
    annotations: tuple[dict[str, Any], ...]


class Grounding:
    def __init__(self, hub: Hub, knowledge: Knowledge) -> None:
        self._hub, self._knowledge = hub, knowledge

    async def search(self, project_id: str, tool: FileSearchTool, question: str) -> Found:
        hits = await self._knowledge.search(
            project_id,
            tool.vector_store_ids,
            [question],
            k=tool.max_num_results or 8,
            filters=tool.filters,
            ranking=tool.ranking_options.model_dump(exclude_none=True) if tool.ranking_options else None,
        )
        return Found(question, tuple(hits))
