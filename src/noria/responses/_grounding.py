"""Answering from documents: search, choose how to answer, prompt the model or quote, and tie sentences to passages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from opentelemetry import trace

from noria.knowledge import (
    NOT_IN_DOCUMENTS,
    Citation,
    FoundPassage,
    Hit,
    Knowledge,
    Quote,
    Source,
    cite,
    extract_answer,
    grounded_prompt,
)
from noria.messages import estimate_tokens
from noria.models import ModelCard
from noria.tools import FileSearchTool

__all__ = ["AnswerMode", "Found", "Grounding", "Written"]

AnswerMode = Literal["generate", "extract", "absent"]

_tracer = trace.get_tracer("noria.responses")
_LABEL = {"en": "Quoted from the documents:", "zh": "文档原文摘录："}
_LOCAL_BUDGET_TOKENS = 1200  # a CPU reads about a thousand tokens a second
_REMOTE_BUDGET_TOKENS = 6000
_CHINESE_SHARE = 0.2
_NOTHING_FOUND = (
    "The user's documents were searched for the last question, and nothing was found. Do not pretend that they answer it."
)
_OR_FUNCTIONS = " If one of the functions fits the request better than the sources, call it."


@dataclass(slots=True)
class Found:
    """What a search brought, and what of it is used; `quotes` are filled when relevance was judged."""

    project_id: str
    store_id: str
    question: str
    hits: tuple[Hit[FoundPassage], ...]
    quotes: list[Quote[FoundPassage]] | None = None
    sources: Sequence[Source[FoundPassage]] = field(default_factory=tuple)

    @property
    def language(self) -> str:
        """`zh` or `en`, by the share of Chinese characters."""
        letters = [character for character in self.question if character.isalpha()]
        wide = sum(1 for character in letters if "\u4e00" <= character <= "\u9fff")
        return "zh" if letters and wide / len(letters) >= _CHINESE_SHARE else "en"


@dataclass(frozen=True, slots=True)
class Written:
    """Text with its annotations."""

    text: str
    annotations: tuple[dict[str, Any], ...] = ()


class Grounding:
    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge

    async def search(self, project_id: str, tool: FileSearchTool, question: str) -> Found:
        hits = await self._knowledge.search(
            project_id,
            tool.vector_store_ids,
            [question],
            k=tool.max_num_results or 8,
            filters=tool.filters,
            ranking=tool.ranking_options.model_dump(exclude_none=True) if tool.ranking_options else None,
        )
        return Found(project_id, tool.vector_store_ids[0], question, tuple(hits))

    async def mode(self, found: Found, card: ModelCard, asked: str) -> AnswerMode:
        """How to answer. A model whose card names the languages it grounds in is not asked outside of them, nor about
        what the passages do not seem to hold; any other model judges that itself."""
        if not found.hits:
            return "absent"
        weak = card.grounded_languages is not None
        quote = asked == "extract" or (asked == "auto" and weak and found.language not in (card.grounded_languages or ()))
        if quote or (asked == "auto" and weak):
            await self._judge(found)
            if not found.quotes:
                return "absent"
        return "extract" if quote else "generate"

    async def _judge(self, found: Found) -> None:
        async def embed(texts: list[str]) -> Any:
            return await self._knowledge.embed_passages(found.project_id, found.store_id, texts)

        with _tracer.start_as_current_span("judge relevance") as span:
            if await self._knowledge.judges_by_vectors(found.project_id, found.store_id):
                vector = await self._knowledge.query_vector(found.project_id, found.store_id, found.question)
                found.quotes = await extract_answer(found.question, found.hits, question_vector=vector, embed=embed)
            else:
                found.quotes = await extract_answer(found.question, found.hits)
            span.set_attribute("noria.quotes", len(found.quotes))

    def prompt(self, found: Found, card: ModelCard, *, has_functions: bool = False) -> list[dict[str, Any]]:
        """The system and user messages for the model; what found room in them is in `found.sources`."""
        if not found.hits:
            return [{"role": "system", "content": _NOTHING_FOUND}, {"role": "user", "content": found.question}]
        budget = _LOCAL_BUDGET_TOKENS if card.is_local else _REMOTE_BUDGET_TOKENS
        if card.context_tokens is not None:
            budget = min(budget, card.context_tokens // 2)
        packed = grounded_prompt(found.question, found.hits, label=_label, budget_tokens=budget, count_tokens=estimate_tokens)
        found.sources = packed.sources
        system = packed.system + (_OR_FUNCTIONS if has_functions else "")
        return [{"role": "system", "content": system}, {"role": "user", "content": packed.user}]

    def written(self, found: Found, mode: AnswerMode) -> Written:
        """An answer that no model wrote: verbatim quotations, labelled, or that there is nothing."""
        if mode == "absent":
            return Written(NOT_IN_DOCUMENTS[found.language])
        text = _LABEL[found.language]
        annotations: list[dict[str, Any]] = []
        for number, quote in enumerate(found.quotes or (), start=1):
            sentence = " ".join(quote.text.split())
            text += f"\n“{sentence}” [{number}]"
            annotations.append(_annotation(len(text), number, quote.hit, quote.start, quote.end))
        return Written(text, tuple(annotations))

    def citations(self, found: Found, answer: str) -> list[dict[str, Any]]:
        """Annotations for each sentence of the answer that a passage supports."""
        checked = cite(answer, found.sources)
        span = trace.get_current_span()
        span.set_attribute("noria.citations", len(checked.citations))
        span.set_attribute("noria.unsupported_sentences", len(checked.unsupported))
        return [_from_citation(citation) for citation in checked.citations]


def _from_citation(citation: Citation[FoundPassage]) -> dict[str, Any]:
    return _annotation(citation.end, citation.number, citation.hit, citation.quote_start, citation.quote_end)


def _annotation(index: int, number: int, hit: Hit[FoundPassage], start: int, end: int) -> dict[str, Any]:
    """OpenAI's `file_citation`, with the exact place beside it: `start` and `end` are of the file's extracted text."""
    passage, place = hit.passage, hit.passage.place_of(start)
    return {
        "type": "file_citation",
        "index": index,
        "file_id": passage.file_id,
        "filename": passage.filename,
        "noria": {
            "number": number,
            "vector_store_id": passage.store_id,
            "passage_id": passage.passage_id,
            "quote": passage.text[start:end],
            "start": passage.start + start,
            "end": passage.start + end,
            "page": place.page,
            "heading_path": list(place.heading_path),
        },
    }


def _label(hit: Hit[FoundPassage]) -> str:
    passage = hit.passage
    place = f"page {passage.page}" if passage.page is not None else " > ".join(passage.heading_path)
    return f"{passage.filename}, {place}" if place else passage.filename
