"""Checks an answer against its sources, sentence by sentence, and points at the words that carry each.

A sentence is supported when a stretch of at most two sentences of one passage holds most of its content words and all
of its numbers, in digits or in words, and the passage holds every name in it. That is a check of words, not of logic: it
catches invented figures and names and sentences from nowhere; it does not catch a "not" that was dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from noria.knowledge._answer import Source, passage_sentences
from noria.knowledge._facts import Facts, counts_otherwise, facts_of, holds_names, is_numeral, numbers_in
from noria.knowledge._search import Hit, PassageText
from noria.knowledge.index import index_terms, query_terms

__all__ = ["CheckedAnswer", "Citation", "cite"]

P = TypeVar("P", bound=PassageText)

_MIN_OVERLAP = 0.6
_MARKED_MIN_OVERLAP = 0.5  # the model itself says where it is from
_MARKER = re.compile(r"(?:(?<!\s)\s+)?\[(\d{1,2}(?:\s*,\s*\d{1,2})*)\]")
_TRAILING_MARKERS = re.compile(r"(?:\s*\[\d{1,2}(?:\s*,\s*\d{1,2})*\])+[.。]?")


@dataclass(frozen=True, slots=True)
class Citation(Generic[P]):
    """`answer[start:end]` is supported by `hit.passage.text[quote_start:quote_end]`, the source with this number."""

    start: int
    end: int
    number: int
    hit: Hit[P]
    quote_start: int
    quote_end: int
    overlap: float


@dataclass(frozen=True, slots=True)
class CheckedAnswer(Generic[P]):
    """`unsupported` are the spans of sentences that no source carries."""

    citations: tuple[Citation[P], ...]
    unsupported: tuple[tuple[int, int], ...]


def cite(answer: str, sources: Sequence[Source[P]]) -> CheckedAnswer[P]:
    """The citations of `answer`. A marker like `[2]` in a sentence is where it is looked for first, not a proof."""
    citations: list[Citation[P]] = []
    unsupported: list[tuple[int, int]] = []
    by_number = {source.number: source for source in sources}
    for start, end, marked in _sentences(answer):
        sentence = _MARKER.sub("", answer[start:end])
        first = [by_number[number] for number in marked if number in by_number]
        found = [citation for source in first if (citation := _support(sentence, source, _MARKED_MIN_OVERLAP))]
        if not found:
            others = [_support(sentence, source, _MIN_OVERLAP) for source in sources if source not in first]
            found = sorted((citation for citation in others if citation), key=lambda one: (-one.overlap, one.number))[:1]
        citations.extend(Citation(start, end, one.number, one.hit, one.quote_start, one.quote_end, one.overlap) for one in found)
        if not found and query_terms(sentence):
            unsupported.append((start, end))
    return CheckedAnswer(tuple(citations), tuple(unsupported))


def _sentences(answer: str) -> list[tuple[int, int, list[int]]]:
    """The answer's sentences with the markers that belong to each: those inside it and those right after its full stop."""
    rows: list[tuple[int, int, list[int]]] = []
    for start, end in passage_sentences(answer):
        begin = start
        trailing = _TRAILING_MARKERS.match(answer, start)
        if trailing and rows:  # "Water turns it. [1] It lifts …": the marker opens the next span
            rows[-1][2].extend(_numbers_of(trailing.group()))
            begin = trailing.end()
            begin += len(answer[begin:end]) - len(answer[begin:end].lstrip())
        if begin < end:
            rows.append((begin, end, _numbers_of(answer[begin:end])))
    return rows


def _numbers_of(text: str) -> list[int]:
    return [int(number) for match in _MARKER.finditer(text) for number in match.group(1).split(",")]


def _support(sentence: str, source: Source[P], min_overlap: float) -> Citation[P] | None:
    passage = source.hit.passage
    terms, facts = set(query_terms(sentence)), facts_of(sentence)
    if not terms or not holds_names(f"{passage.context}\n{passage.text}", facts):
        return None
    start, end, overlap = _best_stretch(passage.text, terms, facts)
    if overlap < min_overlap:
        return None
    return Citation(0, 0, source.number, source.hit, start, end, round(overlap, 3))


def _best_stretch(text: str, terms: set[str], facts: Facts) -> tuple[int, int, float]:
    """The sentence that holds all of the numbers and most of the terms; two neighbours only where no sentence will do.

    Numbers must stand where the words do: elsewhere in the passage they belong to something else.
    """
    spans = passage_sentences(text)
    worded = {term for term in terms if not is_numeral(term)} or terms  # numbers may be written otherwise
    held = [terms & index_terms(text[start:end]) for start, end in spans]
    best = (0, 0, 0.0)
    for width in (1, 2):
        for index in range(len(spans) - width + 1):
            start, end = spans[index][0], spans[index + width - 1][1]
            found = frozenset[str]().union(*held[index : index + width])
            share = len(found) / len(found | worded)
            if share > best[2] and _holds_numbers(text[start:end], facts):
                best = (start, end, share)
        if best[2] >= _MIN_OVERLAP:
            break
    return best


def _holds_numbers(stretch: str, facts: Facts) -> bool:
    """A count ("two reasons") may be the answer's own, unless the stretch gives another number of the same."""
    return facts.numbers <= numbers_in(stretch) and not counts_otherwise(stretch, facts)
