"""Where sentences end, in Chinese and English alike."""

from __future__ import annotations

import re

__all__ = ["sentence_spans"]

# A run of terminators with the quotes and brackets that close after it.
_CANDIDATE = re.compile(r"(?:[。！？；…]+|[.!?]+)[\"'”’」』）)\]】》]*")
_CJK_TERMINATOR = re.compile(r"[。！？；…]")
_WORD_BEFORE = re.compile(r"[\w.&]+$")
_ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof sr jr st rev gen sen rep gov capt lt col sgt vs etc e.g i.e cf al viz approx ca
    fig figs eq eqs no nos vol ch sec pp p ed eds inc ltd co corp dept univ assn est jan feb mar apr jun
    jul aug sep sept oct nov dec mon tue wed thu fri sat sun a.m p.m u.s u.k u.n e.u ph.d m.d b.a m.a
    """.split()  # noqa: SIM905
)


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """The spans of the sentences in `text[start:end]`, without the white space around them."""
    end = len(text) if end is None else end
    spans: list[tuple[int, int]] = []
    begin = start
    for match in _CANDIDATE.finditer(text, start, end):
        if _ends_sentence(text, match, begin, end):
            _append(spans, text, begin, match.end())
            begin = match.end()
    _append(spans, text, begin, end)
    return spans


def _ends_sentence(text: str, match: re.Match[str], begin: int, end: int) -> bool:
    if _CJK_TERMINATOR.match(match.group()):
        return True
    after = match.end()
    if after >= end:
        return True
    following = text[after]
    if not following.isspace():
        # `3.11`, `node.js`, `file.txt`; but `Really?是的` ends.
        return match.group()[0] in "!?" and _is_cjk(following)
    if match.group()[0] != "." or len(match.group().rstrip("\"'”’)]")) > 1:
        return True
    upcoming = text[after : after + 40].lstrip()
    if upcoming[:1].islower():
        return False
    before = _WORD_BEFORE.search(text[max(begin, match.start() - 20) : match.start()])
    word = before.group().lower() if before else ""
    is_initial = len(word) == 1 and word.isalpha() and word != "i"
    return not (word in _ABBREVIATIONS or is_initial)


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    stripped = piece.strip()
    if stripped:
        start += len(piece) - len(piece.lstrip())
        spans.append((start, start + len(stripped)))


def _is_cjk(character: str) -> bool:
    return "\u2e80" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff"
