"""From hits to an answer: sources packed into a prompt, or verbatim sentences where no model can be trusted to write.

A quotation is only given when its sentence is close enough to the question; otherwise nothing is, which the caller says
as "not in the documents". The threshold's figures are in design/0002-retrieval.md: it tells questions that the documents
are not about, and cannot tell those that they are about and leave unanswered.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from noria.knowledge._search import Hit, PassageText
from noria.knowledge._sentences import sentence_spans
from noria.knowledge._split import CountTokens
from noria.knowledge.index import matched_words, query_terms

__all__ = [
    "NOT_IN_DOCUMENTS",
    "EmbedTexts",
    "GroundedPrompt",
    "Quote",
    "Relevance",
    "Source",
    "extract_answer",
    "grounded_prompt",
    "passage_sentences",
]

P = TypeVar("P", bound=PassageText)
EmbedTexts = Callable[[list[str]], Awaitable[npt.NDArray[np.float32]]]

NOT_IN_DOCUMENTS = {"en": "Not in the documents.", "zh": "文档中没有相关内容。"}

_INSTRUCTIONS = (
    "Answer the question from the numbered sources below and from nothing else. After each sentence put the number of the "
    "source it comes from, like [1]. Keep numbers and names exactly as the source has them. If the sources do not contain "
    f"the answer, reply only: {NOT_IN_DOCUMENTS['en']} (in Chinese: {NOT_IN_DOCUMENTS['zh']}) "
    "Answer in the language of the question."
)
_BLANK_LINES = re.compile(r"\n\s*\n")
_LIST_OR_ROW = re.compile(r"^[^\S\n]*(?:[-*+•]|\d+[.)])\s|\|", re.MULTILINE)
_LINE = re.compile(r"[^\n]+")
_HEADING = re.compile(r"\s*#{1,6}\s")
_MIN_SENTENCE_TERMS = 2
_MAX_QUOTED_HITS = 5


@dataclass(frozen=True, slots=True)
class Source(Generic[P]):
    """A passage as the model sees it: `number` from 1; `text` may be the passage's beginning only."""

    number: int
    hit: Hit[P]
    text: str


@dataclass(frozen=True, slots=True)
class GroundedPrompt(Generic[P]):
    """`system` and `user` messages, and the sources that found room in them."""

    system: str
    user: str
    sources: tuple[Source[P], ...]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Relevance:
    """When a sentence answers: cosine to the question + `overlap_weight` × share of the question's words ≥ `threshold`.

    The defaults are for multilingual-e5-small, whose cosines lie between 0.7 and 0.95. Without an embedder only the
    words count, against `words_threshold`.
    """

    threshold: float = 0.88
    overlap_weight: float = 0.1
    words_threshold: float = 0.4
    max_quotes: int = 2
    margin: float = 0.03  # a further quote may score this much less than the best one


@dataclass(frozen=True, slots=True)
class Quote(Generic[P]):
    """A verbatim sentence: `hit.passage.text[start:end]`."""

    hit: Hit[P]
    start: int
    end: int
    text: str
    score: float


def grounded_prompt(
    question: str,
    hits: Sequence[Hit[P]],
    *,
    label: Callable[[Hit[P]], str],
    budget_tokens: int,
    count_tokens: CountTokens,
) -> GroundedPrompt[P]:
    """Packs the best hits, in order, into `budget_tokens` (instructions and question included).

    One that does not fit is left out for a later, smaller one; if not even the first fits, its first sentences do.
    `label` says where a passage stands (file, page or heading).
    """
    empty = _user_message(question, ())
    used = count_tokens(_INSTRUCTIONS) + count_tokens(empty)
    entries: list[tuple[Source[P], str]] = []
    for hit in hits:
        text = _with_context(hit)
        entry = _entry(len(entries) + 1, label(hit), text)
        cost = count_tokens(entry)
        if used + cost > budget_tokens and not entries:
            text = _beginning(text, budget_tokens - used - count_tokens(_entry(1, label(hit), "")), count_tokens)
            entry = _entry(1, label(hit), text)
            cost = count_tokens(entry)
        if text and used + cost <= budget_tokens:
            entries.append((Source(len(entries) + 1, hit, text), entry))
            used += cost
    user = _user_message(question, [entry for _, entry in entries])
    return GroundedPrompt(_INSTRUCTIONS, user, tuple(source for source, _ in entries), used)


async def extract_answer(
    question: str,
    hits: Sequence[Hit[P]],
    *,
    question_vector: npt.NDArray[np.float32] | None = None,
    embed: EmbedTexts | None = None,
    relevance: Relevance = Relevance(),
) -> list[Quote[P]]:
    """The sentences that answer best, verbatim, best first; nothing when none is relevant enough.

    `embed` embeds passages, `question_vector` is the question as embedded for the search (both, or neither: then words
    decide). Nothing is generated: label the result as extractive.
    """
    candidates = list(_candidates(question, hits[:_MAX_QUOTED_HITS]))
    if not candidates:
        return []
    num_terms = max(1, len(set(query_terms(question).values())))
    overlaps = np.array([len(matched_words(question, quote.text)) / num_terms for quote in candidates], np.float32)
    if embed is None or question_vector is None:
        scores, threshold = overlaps, relevance.words_threshold
    else:
        cosines = _cosines(await embed([quote.text for quote in candidates]), question_vector)
        scores, threshold = cosines + relevance.overlap_weight * overlaps, relevance.threshold
    best = float(scores.max())
    if best < threshold:
        return []
    floor = max(threshold, best - relevance.margin)
    order = sorted(range(len(candidates)), key=lambda index: -float(scores[index]))[: relevance.max_quotes]
    chosen = [index for index in order if scores[index] >= floor]
    return [
        Quote(candidates[index].hit, candidates[index].start, candidates[index].end, candidates[index].text, float(scores[index]))
        for index in chosen
    ]


def passage_sentences(text: str) -> list[tuple[int, int]]:
    """The spans of a passage's sentences; lines of lists and tables count as sentences, headings stand alone."""
    spans: list[tuple[int, int]] = []
    start = 0
    for end in [*(match.start() for match in _BLANK_LINES.finditer(text)), len(text)]:
        if _LIST_OR_ROW.search(text, start, end):
            for line in _LINE.finditer(text, start, end):
                spans.extend(sentence_spans(text, line.start(), line.end()))
        else:
            spans.extend(sentence_spans(text, start, end))
        start = end
    return spans


def _candidates(question: str, hits: Sequence[Hit[P]]) -> Iterator[Quote[P]]:
    seen: set[str] = {question.strip()}
    for hit in hits:
        for start, end in passage_sentences(hit.passage.text):
            sentence = hit.passage.text[start:end]
            is_short = len(query_terms(sentence)) < _MIN_SENTENCE_TERMS
            if sentence in seen or is_short or _HEADING.match(sentence):
                continue
            seen.add(sentence)
            yield Quote(hit, start, end, sentence, 0.0)


def _cosines(vectors: npt.NDArray[np.float32], query: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1) * float(np.linalg.norm(query))
    return (vectors @ query) / np.maximum(lengths, 1e-9)


def _with_context(hit: Hit[P]) -> str:
    """Rows cut from a table cannot be read without its header, nor sections without their heading."""
    return f"{hit.passage.context}\n{hit.passage.text}" if hit.passage.context else hit.passage.text


def _entry(number: int, label: str, text: str) -> str:
    return f"[{number}] {label}\n{text}\n\n"


def _user_message(question: str, entries: Sequence[str]) -> str:
    return f"Sources:\n\n{''.join(entries)}Question: {question}"


def _beginning(text: str, budget_tokens: int, count_tokens: CountTokens) -> str:
    end = 0
    for _, stop in sentence_spans(text):
        if count_tokens(text[:stop]) > budget_tokens:
            break
        end = stop
    return text[:end]
