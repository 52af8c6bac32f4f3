"""Text to index terms, the same way for passages and queries: Chinese segmented, English stemmed, stop words left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

__all__ = ["index_terms", "matched_words", "query_terms", "segment", "text_analyzer"]

_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff]+")
_WORD = re.compile(r"\w+")
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
    """Chinese runs cut into words (overlapping ones too, as for search), with spaces between; the rest as it is."""
    if not _HAN.search(text):
        return text
    import rjieba

    return _HAN.sub(lambda match: " " + " ".join(rjieba.cut_for_search(match.group())) + " ", text)


@lru_cache(maxsize=1)
def text_analyzer() -> Any:
    """Tantivy's analyzer over segmented text."""
    import tantivy

    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    for token_filter in (
        tantivy.Filter.remove_long(80),
        tantivy.Filter.lowercase(),
        tantivy.Filter.ascii_fold(),
        tantivy.Filter.stopword("english"),
        tantivy.Filter.stemmer("english"),
    ):
        builder = builder.filter(token_filter)
    return builder.build()


def query_terms(query: str) -> dict[str, str]:
    """Index term to the word it came from, in the query's order. Stop words only count when there is nothing else."""
    return dict(_query_terms(query))


@lru_cache(maxsize=256)  # one search asks for the same query's terms once per hit
def _query_terms(query: str) -> tuple[tuple[str, str], ...]:
    words = _WORD.findall(segment(query))
    kept = [word for word in words if word not in _HAN_STOP_WORDS and word.lower() not in _QUESTION_WORDS]
    return tuple((_terms(kept) or _terms(words)).items())


def _terms(words: Iterable[str]) -> dict[str, str]:
    analyzer = text_analyzer()
    terms: dict[str, str] = {}
    for word in words:
        for term in analyzer.analyze(word):
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
