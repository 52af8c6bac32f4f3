"""Prompts within their budget, verbatim answers, and citations that are checked against the passage."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pytest

from noria.knowledge import Hit, Source, cite, extract_answer, grounded_prompt
from noria.knowledge._answer import passage_sentences


@dataclass(frozen=True)
class Row:
    text: str
    context: str = ""


def hit(number: int, text: str, context: str = "") -> Hit[Row]:
    return Hit(number, 1.0 / number, Row(text, context), None, None)


WHEELS = hit(
    1,
    "The norias of Hama were built in the 14th century. Seventeen of them still stand on the Orontes. "
    "The largest is 20 metres across and lifts 95 litres at a time.",
    "Water wheels",
)
CHINESE = hit(2, "水车利用河水的力量转动。它每小时可以提水2000升，用来灌溉田地。")
TABLE = hit(3, "| part | price |\n|---|---|\n| rim | 70 euros |\n| spokes | 15 euros |")


def count_tokens(text: str) -> int:
    return len(text.split())


def label(one: Hit[Row]) -> str:
    return f"file-{one.id}.md"


def test_the_prompt_numbers_its_sources_and_keeps_to_its_budget() -> None:
    prompt = grounded_prompt("How old?", [WHEELS, CHINESE], label=label, budget_tokens=1000, count_tokens=count_tokens)
    assert [source.number for source in prompt.sources] == [1, 2]
    assert "[1] file-1.md\nWater wheels\nThe norias" in prompt.user
    assert prompt.user.endswith("Question: How old?")
    assert "Not in the documents." in prompt.system
    assert count_tokens(prompt.system + " " + prompt.user) <= prompt.num_tokens <= 1000


def test_what_does_not_fit_makes_room_for_a_smaller_one() -> None:
    full = grounded_prompt("?", [WHEELS], label=label, budget_tokens=10_000, count_tokens=count_tokens)
    prompt = grounded_prompt(
        "?", [WHEELS, WHEELS, CHINESE], label=label, budget_tokens=full.num_tokens + 8, count_tokens=count_tokens
    )
    assert [source.hit.id for source in prompt.sources] == [1, 2]
    cut = grounded_prompt("?", [WHEELS], label=label, budget_tokens=full.num_tokens - 10, count_tokens=count_tokens)
    assert cut.sources[0].text.endswith("Orontes.")
    assert cut.num_tokens <= full.num_tokens - 10
    assert grounded_prompt("?", [WHEELS], label=label, budget_tokens=5, count_tokens=count_tokens).sources == ()


async def test_an_extract_is_verbatim() -> None:
    quotes = await extract_answer("How many norias still stand on the Orontes?", [CHINESE, WHEELS])
    assert quotes[0].text == "Seventeen of them still stand on the Orontes."
    assert quotes[0].hit.passage.text[quotes[0].start : quotes[0].end] == quotes[0].text
    chinese = await extract_answer("水车每小时提水多少升？", [WHEELS, CHINESE])
    assert chinese[0].text == "它每小时可以提水2000升，用来灌溉田地。"


async def test_nothing_relevant_gives_nothing() -> None:
    assert await extract_answer("Who won the football match in Madrid?", [WHEELS, CHINESE]) == []
    assert await extract_answer("anything", []) == []


async def test_an_embedder_decides_where_there_is_one() -> None:
    async def embed(texts: list[str]) -> np.ndarray:
        return np.array([[1.0, 0.0] if "20 metres" in text else [0.6, 0.8] for text in texts], np.float32)

    near, far = np.array([1.0, 0.0], np.float32), np.array([0.0, -1.0], np.float32)
    quotes = await extract_answer("size?", [WHEELS], question_vector=near, embed=embed)
    assert [quote.text[:11] for quote in quotes] == ["The largest"]
    assert await extract_answer("size?", [WHEELS], question_vector=far, embed=embed) == []


def test_rows_and_headings_are_sentences_of_their_own() -> None:
    text = "## Parts\n\nOne. Two.\n\n- first item\n- second item\n\n| a | b |\n| 1 | 2 |"
    assert [text[a:b] for a, b in passage_sentences(text)] == [
        "## Parts", "One.", "Two.", "- first item", "- second item", "| a | b |", "| 1 | 2 |"
    ]  # fmt: skip


@pytest.mark.parametrize("blank", ["\n", " ", " \n", "\t", "\n- "])
def test_long_runs_of_white_space_take_no_time(blank: str) -> None:
    text = f"The first wheel turns.{blank * 8_000}The second one stands."
    begun = time.process_time()
    spans = passage_sentences(text)
    checked = cite(f"Seventeen of them still stand.{blank * 8_000}x [1]", SOURCES)
    assert time.process_time() - begun < 0.5
    assert (text[slice(*spans[0])], text[slice(*spans[-1])])[0].startswith("The first wheel turns.")
    assert text[slice(*spans[-1])].endswith("The second one stands.")
    assert checked.unsupported or checked.citations


SOURCES = [Source(number, one, one.passage.text) for number, one in enumerate([WHEELS, CHINESE, TABLE], start=1)]


@pytest.mark.parametrize(
    ("answer", "number", "quoted"),
    [
        ("Seventeen norias still stand on the Orontes [1].", 1, "Seventeen of them still stand on the Orontes."),
        ("Seventeen of them still stand on the Orontes. [1]", 1, "Seventeen of them still stand on the Orontes."),
        ("Seventeen of them still stand on the Orontes. [3]", 1, "Seventeen of them still stand on the Orontes."),
        ("The largest lifts 95 litres at a time.", 1, "The largest is 20 metres across and lifts 95 litres at a time."),
        ("水车每小时提水2000升[2]。", 2, "它每小时可以提水2000升，用来灌溉田地。"),
        ("The spokes cost 15 euros.", 3, "| spokes | 15 euros |"),
    ],
)
def test_supported_sentences_are_cited(answer: str, number: int, quoted: str) -> None:
    checked = cite(answer, SOURCES)
    assert checked.unsupported == ()
    (citation,) = checked.citations
    assert citation.number == number
    assert citation.hit.passage.text[citation.quote_start : citation.quote_end] == quoted


@pytest.mark.parametrize(
    "answer",
    [
        "Eighteen hundred of them still stand on the Danube. [1]",  # another river
        "The largest is 25 metres across and lifts 95 litres at a time. [1]",  # another number
        "The largest lifts 950 litres at a time.",
        "水车每小时提水3000升[2]。",
        "Cats sleep most of the day. [2]",
        "The spokes cost 16 euros.",
    ],
)
def test_unsupported_sentences_are_told(answer: str) -> None:
    checked = cite(answer, SOURCES)
    assert checked.citations == ()
    assert len(checked.unsupported) == 1


def test_offsets_and_several_sentences() -> None:
    answer = "Seventeen of them still stand. [1] Cats fly to the Moon. 水车利用河水的力量转动。[2]"
    checked = cite(answer, SOURCES)
    assert [(answer[c.start : c.end], c.number) for c in checked.citations] == [
        ("Seventeen of them still stand.", 1),
        ("水车利用河水的力量转动。", 2),
    ]
    assert [answer[start:end] for start, end in checked.unsupported] == ["Cats fly to the Moon."]


def test_thousands_separators_do_not_make_another_number() -> None:
    source = Source(1, hit(1, "It lifts 12,500 litres a day."), "")
    assert cite("It lifts 12500 litres a day.", [source]).citations
