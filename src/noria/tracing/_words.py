"""The words under which text is found, the same for writing and for searching and for both databases.

Letters and digits form words, without case and accents. Chinese, Japanese and Korean are cut into overlapping pairs of
characters, which needs no dictionary and finds any run of two or more. Knows nothing about where the index is.
"""

from __future__ import annotations

import re
from unicodedata import normalize

_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af"
_CJK_RUN = re.compile(f"[{_CJK}]+")
_WORD = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_ACCENTS = re.compile("[\u0300-\u036f]")
_MAX_WORD = 64
_LONG = re.compile(r"[A-Za-z0-9]{65,}")
_STRIDE, _WINDOW = 48, 17
_MAX_TERMS = 32


def indexed(text: str) -> str:
    """The text for SQLite's `ascii` tokenizer, which knows words of ASCII; of other texts the words are cut here."""
    # Base64 and the like would fill the index with words that nobody types.
    if not text.isascii():
        return " ".join(_words_of(text))
    return _LONG.sub(_shortened, text) if _may_have_long(text) else text


def _may_have_long(text: str) -> bool:
    """Whether an ASCII text can hold a word of more than 64: one covers a whole window at some multiple of the stride.

    Nearly no text does, and to look at a few places costs a fifth of what the expression does.
    """
    return any(text[at : at + _WINDOW].isalnum() for at in range(0, len(text) - _WINDOW + 1, _STRIDE))


def terms(query: str) -> list[tuple[str, bool]]:
    """The words that must all occur, each with whether its beginning is enough (the last word, as one types)."""
    found: list[tuple[str, bool]] = []
    for match in _WORD.finditer(_folded(query)):
        word = match[0]
        if _CJK_RUN.fullmatch(word):
            found += [(word, True)] if len(word) == 1 else [(pair, False) for pair in _pairs(word)[:-1]]
        else:
            found.append((word[:_MAX_WORD], False))
    if found and not found[-1][1] and found[-1][0].isascii() and query and query[-1].isalnum():
        found[-1] = (found[-1][0], True)
    return list(dict.fromkeys(found))[:_MAX_TERMS]


def _pairs(run: str) -> list[str]:
    # The last character alone too, so that a search for one character finds it by its beginning wherever it stands.
    return [run[i : i + 2] for i in range(len(run))]


def fts5_query(query: str) -> str | None:
    """The query in SQLite FTS5's language, None if there is no word in it."""
    found = terms(query)
    return " AND ".join(f'"{word}"{"*" if begins else ""}' for word, begins in found) or None


def tsquery(query: str) -> str | None:
    """The query in PostgreSQL's language, None if there is no word in it."""
    found = terms(query)
    return " & ".join(f"'{word}'{':*' if begins else ''}" for word, begins in found) or None


def lexemes(text: str) -> list[str]:
    """The distinct words of a text, for PostgreSQL's `array_to_tsvector`."""
    return list(set(_words_of(text)))


def _words_of(text: str) -> list[str]:
    words: list[str] = []
    for match in _WORD.finditer(_folded(text)):
        words += _pairs(match[0]) if _CJK_RUN.fullmatch(match[0]) else [match[0][:_MAX_WORD]]
    return words


def _shortened(word: re.Match[str]) -> str:
    return word[0][:_MAX_WORD]


def _folded(text: str) -> str:
    """Lower case, without accents, full-width forms as plain ones."""
    if text.isascii():
        return text.lower()
    # Recomposed at the end: Korean and Japanese letters come apart too.
    return normalize("NFC", _ACCENTS.sub("", normalize("NFKD", text))).lower()
