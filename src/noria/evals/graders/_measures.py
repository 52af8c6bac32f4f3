"""Measures of likeness between a text and a reference, on words; Chinese, Japanese and Korean characters are words of their own.

* fuzzy_match: normalised indel similarity (rapidfuzz `ratio`), on characters
* bleu: sentence BLEU, n ≤ 4, brevity penalty, exponential smoothing (Papineni et al. 2002, https://aclanthology.org/P02-1040;
  smoothing 3 of Chen & Cherry 2014, as sacrebleu's `exp`)
* gleu: min(precision, recall) over n-grams up to 4 (Wu et al. 2016, https://arxiv.org/abs/1609.08144)
* meteor: exact words, then Porter stems; no synonyms (Lavie & Agarwal 2007, https://aclanthology.org/W07-0734; alpha .9, beta 3,
  gamma .5)
* rouge_n, rouge_l: F1 (Lin 2004, https://aclanthology.org/W04-1013)
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence

__all__ = ["measure", "tokens"]

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_")
_CJK = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff])")


def tokens(text: str, *, punctuation: bool = True) -> list[str]:
    """Lower-case words, each CJK character and each sign by itself."""
    spaced = _CJK.sub(r" \1 ", text.lower())
    found = _WORD.findall(spaced)
    return found if punctuation else [word for word in found if word[0].isalnum()]


def measure(metric: str, text: str, reference: str) -> float:
    """`text` beside `reference`, from 0 to 1."""
    if metric == "fuzzy_match":
        from rapidfuzz import fuzz

        return fuzz.ratio(text, reference) / 100
    if metric == "bleu":
        return _bleu(tokens(text), tokens(reference))
    if metric == "gleu":
        return _gleu(tokens(text), tokens(reference))
    words, expected = tokens(text, punctuation=False), tokens(reference, punctuation=False)
    if metric == "meteor":
        return _meteor(words, expected)
    if metric == "rouge_l":
        return _f1(_longest_common(words, expected), len(words), len(expected))
    return _rouge_n(words, expected, int(metric.removeprefix("rouge_")))


def _grams(words: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + size]) for start in range(len(words) - size + 1))


def _f1(common: int, made: int, wanted: int) -> float:
    return 2 * common / (made + wanted) if common else 0.0


def _rouge_n(words: Sequence[str], expected: Sequence[str], size: int) -> float:
    made, wanted = _grams(words, size), _grams(expected, size)
    return _f1((made & wanted).total(), made.total(), wanted.total())


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    from rapidfuzz.distance import LCSseq

    return LCSseq.similarity(first, second)


def _bleu(words: Sequence[str], expected: Sequence[str]) -> float:
    if not words or not expected:
        return 0.0
    logs, smooth = 0.0, 1.0
    orders = [size for size in range(1, 5) if len(words) >= size]
    for size in orders:
        made = _grams(words, size)
        common = (made & _grams(expected, size)).total()
        if common == 0:
            if size == 1:
                return 0.0
            smooth *= 2
            logs += math.log(1 / (smooth * made.total()))
        else:
            logs += math.log(common / made.total())
    shortness = min(0.0, 1 - len(expected) / len(words))
    return math.exp(shortness + logs / len(orders))


def _gleu(words: Sequence[str], expected: Sequence[str]) -> float:
    common = made = wanted = 0
    for size in range(1, 5):
        ours, theirs = _grams(words, size), _grams(expected, size)
        common += (ours & theirs).total()
        made += ours.total()
        wanted += theirs.total()
    return common / max(made, wanted) if common else 0.0


def _meteor(words: Sequence[str], expected: Sequence[str]) -> float:
    pairs = _align(words, expected)
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(words), len(pairs) / len(expected)
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    chunks = 1 + sum(later != (left + 1, right + 1) for (left, right), later in itertools.pairwise(pairs))
    return mean * (1 - 0.5 * (chunks / len(pairs)) ** 3)


def _align(words: Sequence[str], expected: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of positions of like words: equal ones first, then equal stems; from the end, as NLTK does."""
    pairs: list[tuple[int, int]] = []
    left, right = list(enumerate(words)), list(enumerate(expected))
    for form in (str, _stem):
        places: dict[str, list[int]] = {}
        for at, word in right:
            places.setdefault(form(word), []).append(at)
        for at, word in reversed(left):
            if found := places.get(form(word)):
                pairs.append((at, found.pop()))
        used_left, used_right = {at for at, _ in pairs}, {at for _, at in pairs}
        left = [entry for entry in left if entry[0] not in used_left]
        right = [entry for entry in right if entry[0] not in used_right]
    return sorted(pairs)


@functools.lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    return _stemmer().stemWord(word)


@functools.cache
def _stemmer():  # pyright: ignore[reportUnknownParameterType]
    import snowballstemmer

    return snowballstemmer.stemmer("porter")
