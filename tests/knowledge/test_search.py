"""Fusion, explanations, options and what may change under a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noria.errors import InvalidRequest, UnsupportedField
from noria.knowledge import HybridSearch, Query, RankingOptions, refuse_rewrite_query
from noria.knowledge.index import AllowedFiles, TantivyTextIndex

from .index.exact import ExactVectorIndex


@dataclass(frozen=True)
class Row:
    text: str
    context: str = ""


ROWS = {
    1: Row("Water wheels lift water from the river.", "Irrigation"),
    2: Row("水车利用河水的力量提水。"),
    3: Row("The invoice is due within thirty days of delivery.", "Payment"),
    4: Row("The invoice is due within thirty days of delivery!", "Payment"),
    5: Row("Cats sleep most of the day."),
}
VECTORS = np.eye(5, 8, dtype=np.float32)


async def fetch(ids: Sequence[int]) -> Mapping[int, Row]:
    return {number: ROWS[number] for number in ids if number in ROWS}


@pytest.fixture
def search(tmp_path: Path) -> HybridSearch:
    ids, files = np.array(list(ROWS)), np.array([0, 1, 2, 3, 4])
    vectors = ExactVectorIndex(8)
    vectors.add(ids, files, VECTORS)
    texts = TantivyTextIndex(tmp_path)
    texts.add(ids, files, [f"{row.context}\n{row.text}" for row in ROWS.values()])
    return HybridSearch(vectors, texts)


async def test_first_in_both_rankings_scores_one_and_says_why(search: HybridSearch) -> None:
    hits = await search.search(Query("lifting water with wheels", VECTORS[0]), fetch)
    assert hits[0].id == 1
    assert hits[0].score == pytest.approx(1.0)
    assert hits[0].dense is not None
    assert hits[0].text is not None
    assert (hits[0].dense.rank, hits[0].dense.score, hits[0].text.rank) == (1, pytest.approx(1.0), 1)
    assert hits[0].matched_words == ("lifting", "water", "wheels")


async def test_headings_count_and_are_explained(search: HybridSearch) -> None:
    hits = await search.search(Query("irrigation", None), fetch)
    assert [hit.id for hit in hits] == [1]
    assert hits[0].matched_words == ("irrigation",)


async def test_weights_choose_the_ranking(search: HybridSearch) -> None:
    by_vector = await search.search(Query("cats", VECTORS[0], ranking=RankingOptions(text_weight=0)), fetch)
    by_words = await search.search(Query("cats", VECTORS[0], ranking=RankingOptions(embedding_weight=0)), fetch)
    assert by_vector[0].id == 1
    assert by_vector[0].text is None
    assert [hit.id for hit in by_words] == [5]
    assert by_words[0].dense is None


async def test_threshold_filter_and_deleted_rows(search: HybridSearch) -> None:
    query = Query("invoice", VECTORS[2], ranking=RankingOptions(score_threshold=0.9))
    assert [hit.id for hit in await search.search(query, fetch)] == [3, 4]
    only = Query("invoice", VECTORS[2], allowed=AllowedFiles.only([4]))
    assert [hit.id for hit in await search.search(only, fetch)] == [5]

    async def all_gone(ids: Sequence[int]) -> Mapping[int, Row]:
        return {}

    assert await search.search(Query("invoice", VECTORS[2]), all_gone) == []


async def test_dead_rows_give_way_to_the_next(search: HybridSearch) -> None:
    alive = {1, 5}

    async def some(ids: Sequence[int]) -> Mapping[int, Row]:
        return {number: ROWS[number] for number in ids if number in alive}

    everything = [hit.id for hit in await search.search(Query("invoice", VECTORS[2], k=5), fetch)]
    found = await search.search(Query("invoice", VECTORS[2], k=2), some)
    assert [hit.id for hit in found] == [number for number in everything if number in alive]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"ranker": "cohere"}, "ranking_options.ranker"),
        ({"score_threshold": 1.5}, "ranking_options.score_threshold"),
        ({"score_threshold": True}, "ranking_options.score_threshold"),
        ({"magic": 1}, "ranking_options.magic"),
        ({"hybrid_search": {"embedding_weight": 1}}, "ranking_options.hybrid_search.text_weight"),
        ({"hybrid_search": {"embedding_weight": 0, "text_weight": 0}}, "ranking_options.hybrid_search"),
        ({"hybrid_search": {"embedding_weight": -1, "text_weight": 0}}, "ranking_options.hybrid_search.embedding_weight"),
        ({"hybrid_search": {"embedding_weight": 1, "text_weight": 1, "x": 1}}, "ranking_options.hybrid_search.x"),
        ({"hybrid_search": 3}, "ranking_options.hybrid_search"),
    ],
)
def test_wrong_options_are_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        RankingOptions.from_openai(body)
    assert caught.value.param == param


def test_options() -> None:
    body = {"ranker": "none", "score_threshold": 0.2, "hybrid_search": {"embedding_weight": 2, "text_weight": 0.5}}
    assert RankingOptions.from_openai(body) == RankingOptions(0.2, 2.0, 0.5)
    assert RankingOptions.from_openai(None) == RankingOptions()
    refuse_rewrite_query(False)
    with pytest.raises(UnsupportedField):
        refuse_rewrite_query(True)
