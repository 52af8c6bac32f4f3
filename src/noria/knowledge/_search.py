"""Hybrid search: nearest by vector and best by words, fused by reciprocal rank, each hit saying why it is there.

Fusion by rank needs no calibration between cosines and BM25 scores. `score` is the fused score over the highest one
possible, so 1.0 means first in both rankings; it orders hits and says nothing of relevance in itself (the cosine in
`dense.score` does). Source: Cormack, Clarke & Büttcher 2009, https://doi.org/10.1145/1571941.1572114
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from noria.errors import InvalidRequest, UnsupportedField
from noria.knowledge.index import AllowedFiles, Floats, Ranking, TextIndex, VectorIndex, matched_words

__all__ = [
    "Hit",
    "HybridSearch",
    "Leg",
    "PassageText",
    "Query",
    "RankingOptions",
    "refuse_rewrite_query",
]

_RANK_CONSTANT = 60  # the paper's k: how much the first ranks count above the later ones
_MIN_CANDIDATES = 50  # taken from each ranking before they are fused
_RANKERS = ("auto", "default-2024-11-15", "none")


class PassageText(Protocol):
    """What search needs of a passage; the caller's own row usually fits."""

    @property
    def text(self) -> str: ...

    @property
    def context(self) -> str: ...


P = TypeVar("P", bound=PassageText)


@dataclass(frozen=True, slots=True)
class Leg:
    """Where one of the rankings had a passage: `rank` from 1, and its own score (cosine, or BM25)."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Hit(Generic[P]):
    """A passage and why it was found. `matched_words` are the query's words that it holds, in any inflection."""

    id: int
    score: float
    passage: P
    dense: Leg | None
    text: Leg | None
    matched_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RankingOptions:
    """OpenAI's `ranking_options`. A weight of 0 leaves that ranking out (and its index unasked).

    Every `ranker` of OpenAI's names is taken and means the same here: there is one fusion and no model that ranks anew.
    """

    score_threshold: float = 0.0
    embedding_weight: float = 1.0
    text_weight: float = 1.0

    @classmethod
    def from_openai(cls, body: Mapping[str, Any] | None, *, param: str = "ranking_options") -> RankingOptions:
        """Validated strictly; InvalidRequest names the field that is wrong."""
        options = dict(body or {})
        ranker = options.pop("ranker", "auto")
        if ranker not in _RANKERS:
            raise InvalidRequest(f"`{param}.ranker` is {ranker!r}.", param=f"{param}.ranker", hint=f"Use {', '.join(_RANKERS)}.")
        threshold = _number(options.pop("score_threshold", 0.0), f"{param}.score_threshold", maximum=1.0)
        hybrid = options.pop("hybrid_search", None)
        _no_others(options, param)
        if hybrid is None:
            return cls(threshold)
        if not isinstance(hybrid, Mapping):
            raise InvalidRequest(f"`{param}.hybrid_search` must be an object.", param=f"{param}.hybrid_search")
        weights = dict(hybrid)
        path = f"{param}.hybrid_search"
        embedding = _number(weights.pop("embedding_weight", None), f"{path}.embedding_weight")
        text = _number(weights.pop("text_weight", None), f"{path}.text_weight")
        _no_others(weights, path)
        if embedding + text <= 0:
            raise InvalidRequest(f"`{path}`: at least one weight must be above 0.", param=path)
        return cls(threshold, embedding, text)


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for. `vector` is the embedding of `text`; without it only the words count."""

    text: str
    vector: Floats | None
    k: int = 10
    allowed: AllowedFiles | None = None
    ranking: RankingOptions = field(default_factory=RankingOptions)


class HybridSearch:
    """One vector index and one text index over the same passages."""

    def __init__(self, vectors: VectorIndex, texts: TextIndex) -> None:
        self._vectors = vectors
        self._texts = texts

    async def search(self, query: Query, fetch: Callable[[Sequence[int]], Awaitable[Mapping[int, P]]]) -> list[Hit[P]]:
        """The best `query.k` passages. `fetch` gives the passages of ids; for those that it does not know (just deleted) the
        next ones come up."""
        dense, text = await self._rankings(query, max(_MIN_CANDIDATES, 4 * query.k))
        rest = [row for row in _fuse(dense, text, query.ranking) if row[1] >= query.ranking.score_threshold]
        hits: list[Hit[P]] = []
        while rest and len(hits) < query.k:
            wanted, rest = rest[: query.k], rest[query.k :]
            passages = await fetch([row[0] for row in wanted])
            hits += [
                Hit(hit_id, score, passages[hit_id], dense_leg, text_leg)
                for hit_id, score, dense_leg, text_leg in wanted
                if hit_id in passages
            ]
        return [_explained(hit, query.text) for hit in hits[: query.k]]

    async def _rankings(self, query: Query, depth: int) -> tuple[Ranking, Ranking]:
        async def nothing() -> Ranking:
            return Ranking.empty()

        use_vector = query.vector is not None and query.ranking.embedding_weight > 0
        use_text = query.ranking.text_weight > 0
        return await asyncio.gather(
            asyncio.to_thread(self._vectors.search, query.vector, depth, query.allowed)  # pyright: ignore[reportArgumentType]
            if use_vector
            else nothing(),
            asyncio.to_thread(self._texts.search, query.text, depth, query.allowed) if use_text else nothing(),
        )


def refuse_rewrite_query(value: bool | None) -> None:
    """OpenAI's `rewrite_query` is not honoured: silently searching for the query as it is would pretend."""
    if value:
        raise UnsupportedField("`rewrite_query` is not supported.", param="rewrite_query", hint="Leave it out.")


def _fuse(dense: Ranking, text: Ranking, options: RankingOptions) -> list[tuple[int, float, Leg | None, Leg | None]]:
    """(id, score, dense leg, text leg), best first; ties by id."""
    dense_legs, text_legs = _legs(dense), _legs(text)
    highest = (options.embedding_weight + options.text_weight) / (_RANK_CONSTANT + 1)

    def score(leg: Leg | None, weight: float) -> float:
        return weight / (_RANK_CONSTANT + leg.rank) if leg is not None else 0.0

    rows = [
        (
            hit_id,
            (score(dense_legs.get(hit_id), options.embedding_weight) + score(text_legs.get(hit_id), options.text_weight))
            / highest,
            dense_legs.get(hit_id),
            text_legs.get(hit_id),
        )
        for hit_id in dense_legs.keys() | text_legs.keys()
    ]
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def _legs(ranking: Ranking) -> dict[int, Leg]:
    pairs = zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True)
    return {hit_id: Leg(rank, score) for rank, (hit_id, score) in enumerate(pairs, start=1)}


def _explained(hit: Hit[P], query: str) -> Hit[P]:
    return replace(hit, matched_words=matched_words(query, _whole(hit.passage))) if hit.text is not None else hit


def _whole(passage: PassageText) -> str:
    return f"{passage.context}\n{passage.text}" if passage.context else passage.text


def _number(value: object, path: str, *, maximum: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= maximum or math.isinf(value):
        limits = f"from 0 to {maximum:g}" if math.isfinite(maximum) else "of 0 or more"
        raise InvalidRequest(f"`{path}` must be a number {limits}.", param=path)
    return float(value)


def _no_others(rest: Mapping[str, object], path: str) -> None:
    if rest:
        name = f"{path}.{min(rest)}"
        raise InvalidRequest(f"`{name}` is not a known field.", param=name, hint="Leave it out.")
