"""Text to index terms, the same way for passages and queries: Chinese segmented, English stemmed, stop words left out.

A word is a run of letters, marks and digits. The marks that tantivy's tokenizer would cut it at (an Indic virama, a Thai tone)
are left out of the terms. Scripts that are written without spaces, Chinese apart, are indexed as overlapping pairs of letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

__all__ = ["index_terms", "matched_words", "query_terms", "segment", "text_analyzer"]

_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff]+")
# Kana, Thai and Lao, Burmese, Khmer. A letter of theirs is one that can stand alone, with the marks behind it.
_UNSPACED = re.compile("[\u3041-\u30fa\u30fc-\u30ff\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0ecd\u1000-\u103f\u1780-\u17d3]+")
# Latin letters and Chinese need nothing but the dictionary; seeing that in one pass costs a fifth of looking for the rest.
_PLAIN = re.compile("[\u0000-\u02ff\u2000-\u206f\u2190-\u2bff\u3000-\u3029\u3030-\u303f\u3400-\u9fff\uff00-\uffef]*")
_MARKED_WORD = r"[\p{L}\p{M}\p{N}]+"
_MAX_QUERY_TERMS = 64  # a pasted page is no query; the first terms decide
# The analyzer drops the usual articles and prepositions; these are what questions add.
_QUESTION_WORDS = frozenset(
    """
    how what who whom whose which when where why do does did doing done can could should would shall may might must will
    i me my we us our you your he she his her its they them am were been being be has have had having from about than
    please tell show give explain describe any some so also just more most many much s t
    """.split()  # noqa: SIM905
)
_HAN_STOP_WORDS = frozenset(
    """
    的 了 是 在 和 与 及 或 也 都 就 而 着 过 吗 呢 吧 啊 把 被 给 让 向 从 对 于 为 以 之 其 这 那 个 们 我 你
    他 她 它 有 没有 什么 怎么 如何 哪 哪些 谁 多少 为什么 请 请问 一个 可以 這 個 們 為 與 過 嗎 給 讓 對 於
    """.split()  # noqa: SIM905
)


def segment(text: str) -> str:
    """As it is given to the analyzer, for passages and queries alike."""
    return text if text.isascii() else _without_cutting_marks(_spaced(text))


def _spaced(text: str) -> str:
    """Composed (NFC), with spaces where words begin: Chinese by its dictionary (overlapping words too, as for search), other
    scripts without spaces in pairs of letters; the rest as it is."""
    if not _PLAIN.fullmatch(text):
        text = unicodedata.normalize("NFC", text)
        text = _UNSPACED.sub(lambda match: f" {_pairs(match.group())} ", text)
    if _HAN.search(text):
        import rjieba

        text = _HAN.sub(lambda match: " " + " ".join(rjieba.cut_for_search(match.group())) + " ", text)
    return text


def _pairs(run: str) -> str:
    letters: list[str] = []
    for character in run:
        if letters and unicodedata.category(character).startswith("M"):
            letters[-1] += character
        else:
            letters.append(character)
    return " ".join("".join(letters[start : start + 2]) for start in range(max(1, len(letters) - 1)))


@lru_cache(maxsize=1)
def text_analyzer() -> Any:
    """Tantivy's analyzer over segmented text."""
    import tantivy

    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())  # a third of the time of one by a pattern
    for token_filter in (
        tantivy.Filter.remove_long(80),
        tantivy.Filter.lowercase(),
        tantivy.Filter.ascii_fold(),
        tantivy.Filter.stopword("english"),
        tantivy.Filter.stemmer("english"),
    ):
        builder = builder.filter(token_filter)
    return builder.build()


@lru_cache(maxsize=1)
def _words() -> Any:
    """Cuts a query into words as they stand, at the places where `segment` and the analyzer cut."""
    import tantivy

    return tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(_MARKED_WORD)).build()


def _without_cutting_marks(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else _cutting_marks().sub("", text)


@lru_cache(maxsize=1)
def _cutting_marks() -> re.Pattern[str]:
    """The marks that the tokenizer takes for the end of a word; asked of it, for they are no category of Unicode's."""
    import tantivy

    tokenizer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple()).build()
    marks = [chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code)).startswith("M")]
    return re.compile("[" + "".join(mark for mark in marks if len(tokenizer.analyze(f"a{mark}a")) > 1) + "]")


def query_terms(query: str) -> dict[str, str]:
    """Index term to the word it came from, in the query's order. Stop words only count when there is nothing else."""
    return dict(_query_terms(query))


@lru_cache(maxsize=256)  # one search asks for the same query's terms once per hit
def _query_terms(query: str) -> tuple[tuple[str, str], ...]:
    words = _words().analyze(_spaced(query))
    kept = [word for word in words if word not in _HAN_STOP_WORDS and word.lower() not in _QUESTION_WORDS]
    return tuple((_terms(kept) or _terms(words)).items())


def _terms(words: Iterable[str]) -> dict[str, str]:
    analyzer = text_analyzer()
    terms: dict[str, str] = {}
    for word in words:
        for term in analyzer.analyze(_without_cutting_marks(word)):
            terms.setdefault(term, word)
        if len(terms) >= _MAX_QUERY_TERMS:
            break
    return terms


def index_terms(text: str) -> frozenset[str]:
    """The terms under which `text` is indexed."""
    return frozenset(text_analyzer().analyze(segment(text)))


def matched_words(query: str, text: str) -> tuple[str, ...]:
    """The words of `query` that `text` holds in any inflection, in the query's order."""
    terms = query_terms(query)
    held = index_terms(text)
    return tuple(dict.fromkeys(word for term, word in terms.items() if term in held))
