"""Texts that are nearly the same: MinHash over character n-grams, locality-sensitive hashing to find candidates.

Characters, not words, so that Chinese needs no dictionary. What a third of all texts share is left out, or every pair of short
questions inside a long template would look alike; and a cluster whose texts each hold all that most of them hold is a template
that was filled in, not one text with small changes: its texts are compared by the rest. Linear in the texts: within a bucket each
is compared with a few others only, so a pair may be missed, but none is invented: a pair found has an estimated Jaccard
similarity of `threshold`.
Sources: Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman, Ullman, "Mining of Massive
Datasets", chapter 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

__all__ = ["clusters", "near_groups", "near_pairs", "shingles", "signatures"]

_Hashes = np.ndarray[Any, np.dtype[np.uint64]]
_NUM_HASHES = 128
_RECALL = 0.98
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 4096
_COMPARED = 8
_SAMPLE = 2000
_COMMON_SHARE = 0.3
_LEAST_SAMPLE = 20
_FRAME_SAMPLE = 200
_MOST = 0.6
# The least change, a character more, takes away four runs of Latin letters or two of Chinese.
_LACKING = 2
_FEW = 6  # texts, too few to show a template surely
# Odd multipliers permute the 32-bit hashes; the terms make the permutations differ near 0.
_random = np.random.default_rng(1)
_MULTIPLIERS = _random.integers(0, 2**31, _NUM_HASHES, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_TERMS = _random.integers(0, 2**32, _NUM_HASHES, dtype=np.uint32)


def shingles(text: str) -> _Hashes:
    """The distinct hashes of a text's runs of characters: five of Latin letters, three where Chinese is among them."""
    points = np.frombuffer(text.encode("utf-32-le", "replace"), dtype=np.uint32).astype(np.uint64)
    width = 3 if points.size and float(np.mean(points > 0x2E80)) > 0.2 else 5
    if points.size <= width:
        return np.array([hash_of(points)], dtype=np.uint64)
    mixed = np.zeros(points.size - width + 1, dtype=np.uint64)
    for offset in range(width):
        mixed = mixed * _PRIME + points[offset : offset + mixed.size] + np.uint64(1)
    mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed * _PRIME)


def hash_of(points: _Hashes) -> np.uint64:
    """One hash of a text too short for a run."""
    value = 0xCBF29CE484222325
    for point in points.tolist():
        value = ((value ^ point) * 0x100000001B3) % 2**64
    return np.uint64(value)


def signatures(texts: Sequence[str], common: _Hashes | None = None) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """MinHash signatures `[len(texts), 128]`, without the shingles in `common`, sorted (default: what a third of them share)."""
    common = _common(texts) if common is None else common
    found = np.empty((len(texts), _NUM_HASHES), dtype=np.uint32)
    for place, text in enumerate(texts):
        own = shingles(text)
        if common.size:
            places = np.minimum(np.searchsorted(common, own), common.size - 1)
            rare = own[common[places] != own]
            own = rare if rare.size else own
        found[place] = _minimum(own)
    return found


def _minimum(own: _Hashes) -> np.ndarray[Any, np.dtype[np.uint32]]:
    least = np.full(_NUM_HASHES, 2**32 - 1, dtype=np.uint32)
    short = (own >> np.uint64(32)).astype(np.uint32)
    for start in range(0, short.size, _BLOCK):
        mixed = short[start : start + _BLOCK, None] * _MULTIPLIERS[None, :] + _TERMS[None, :]
        least = np.minimum(least, mixed.min(axis=0))
    return least


def _common(texts: Sequence[str]) -> _Hashes:
    """Shingles that a good part of a sample has."""
    step = max(1, len(texts) // _SAMPLE)
    sample = [shingles(text[:20_000]) for text in texts[::step]]
    if len(sample) < _LEAST_SAMPLE:
        return np.empty(0, dtype=np.uint64)
    values, counts = np.unique(np.concatenate(sample), return_counts=True)
    return values[counts > _COMMON_SHARE * len(sample)]


def _frame(texts: Sequence[str]) -> _Hashes | None:
    """What texts share that are one template filled in; None where they are one text with changes here and there.

    Who fills a template in leaves all of it as it is; who changes a text takes something of it away.
    """
    step = max(1, len(texts) // _FRAME_SAMPLE)
    sample = [shingles(text) for text in texts[::step]]
    values, counts = np.unique(np.concatenate(sample), return_counts=True)
    most = values[counts > _MOST * len(sample)]
    changed = sum(int(np.isin(most, own, assume_unique=True, invert=True).sum()) >= _LACKING for own in sample)
    return None if changed * 2 >= len(sample) else values[counts > max(1, _COMMON_SHARE * len(sample))]


def near_groups(texts: Sequence[str], threshold: float) -> Iterator[tuple[list[int], float]]:
    """The places of texts that are nearly the same, each group with the least similarity found in it."""
    common = _common(texts)
    pending, frames = [(list(range(len(texts))), common, False)], common
    few: list[tuple[list[int], float]] = []
    while pending:
        places, known, unframed = pending.pop()
        for own, similarity in _alike(texts, places, known, threshold):
            again = unframed and len(own) == len(places)
            frame = None if again or len(own) < 3 else _frame([texts[place] for place in own])
            if frame is not None:
                frames = np.union1d(frames, frame)
                pending.append((own, np.union1d(known, frame), True))
            elif len(own) < _FEW:
                few.append((own, similarity))
            else:
                yield own, similarity
    for own, similarity in few:  # they show no template, but may be of one that others showed
        yield from [(own, similarity)] if frames.size == common.size else _alike(texts, own, frames, threshold)


def _alike(texts: Sequence[str], places: list[int], common: _Hashes, threshold: float) -> Iterator[tuple[list[int], float]]:
    pairs = near_pairs(signatures([texts[place] for place in places], common), threshold)
    least: dict[int, float] = {}
    for left, _, similarity in pairs:
        least[left] = min(similarity, least.get(left, 1.0))
    for cluster in clusters(pairs):
        yield [places[place] for place in cluster], min(least.get(place, 1.0) for place in cluster)


def bands_for(threshold: float) -> tuple[int, int]:
    """How many bands of how many hashes make a pair of the threshold a candidate; as long as may be, for few candidates."""
    for size in range(32, 1, -1):
        bands = _NUM_HASHES // size
        if 1 - (1 - threshold**size) ** bands >= _RECALL:
            return bands, size
    return _NUM_HASHES, 1


def near_pairs(found: np.ndarray[Any, np.dtype[np.uint32]], threshold: float) -> list[tuple[int, int, float]]:
    """Pairs of places with their estimated similarity, from `threshold` on."""
    pairs: dict[tuple[int, int], float] = {}
    if len(found) < 2:
        return []
    bands, size = bands_for(threshold)
    for band in range(bands):
        part = np.ascontiguousarray(found[:, band * size : (band + 1) * size])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * size))).ravel()
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        ends = np.append(starts[1:], len(order))
        for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
            _compare(found, order[start:end], threshold, pairs)
    return [(left, right, similarity) for (left, right), similarity in pairs.items()]


def _compare(
    found: np.ndarray[Any, np.dtype[np.uint32]],
    bucket: np.ndarray[Any, np.dtype[np.int64]],
    threshold: float,
    pairs: dict[tuple[int, int], float],
) -> None:
    """Each of a bucket against its first few and its neighbour."""
    members = np.sort(bucket)
    for place in range(min(_COMPARED, len(members) - 1)):
        _note(found, int(members[place]), members[place + 1 :], threshold, pairs)
    for left, right in zip(members[_COMPARED:-1].tolist(), members[_COMPARED + 1 :].tolist(), strict=True):
        if (left, right) not in pairs:
            _note(found, left, np.array([right]), threshold, pairs)


def _note(
    found: np.ndarray[Any, np.dtype[np.uint32]],
    left: int,
    others: np.ndarray[Any, np.dtype[np.int64]],
    threshold: float,
    pairs: dict[tuple[int, int], float],
) -> None:
    similar = (found[others] == found[left]).mean(axis=1)
    for right, similarity in zip(others[similar >= threshold].tolist(), similar[similar >= threshold].tolist(), strict=True):
        pairs[left, right] = similarity


def clusters(pairs: Sequence[tuple[int, int, float]]) -> list[list[int]]:
    """The places that pairs connect, each cluster in order, clusters by their first."""
    parent: dict[int, int] = {}

    def root(place: int) -> int:
        while parent.setdefault(place, place) != place:
            parent[place] = place = parent[parent[place]]
        return place

    for left, right, _ in pairs:
        one, other = sorted((root(left), root(right)))
        parent[other] = one
    found: dict[int, list[int]] = {}
    for place in sorted(parent):
        found.setdefault(root(place), []).append(place)
    return [found[first] for first in sorted(found)]
