"""Names and numbers in words: what is there in other words is supported, what is invented is told."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from noria.knowledge import Hit, Source, cite


@dataclass(frozen=True)
class Row:
    text: str
    context: str = ""


def source(text: str) -> Source[Row]:
    return Source(1, Hit(1, 1.0, Row(text), None, None), "")


FIRM = "Li Na founded the electronics company in 1987. It gives a three-year warranty. Two of its five plants are in Germany."
FIRMA = "李娜于1987年创立了这家电子公司。产品的保修期为三年，第二年起收费。公司设在北京，有二十五名员工，产量为三百万台。"


@pytest.mark.parametrize(
    "answer",
    [
        "Li Na founded the electronics company in 1987.",
        "Na founded the company in 1987.",
        "In 1987 the electronics company was founded by Li Na.",
        "The warranty is three years.",
        "It gives a 3-year warranty.",
        "Its warranty is for one of three years.",
        "The German plants are two of its five.",
        "Currently it gives a three-year warranty.",
    ],
)
def test_names_and_numbers_that_are_there(answer: str) -> None:
    assert cite(answer, [source(FIRM)]).unsupported == ()


@pytest.mark.parametrize(
    "answer",
    [
        "Zhang founded the electronics company in 1987.",
        "Zhang Wei founded the electronics company in 1987.",
        "Li Ron founded the electronics company in 1987.",
        "It gives a seven-year warranty on electronics.",
        "It gives a twenty-year warranty.",
        "It gives a 7-year warranty.",
        "Four of its five plants are in Germany.",
        "Two of its six plants are in Germany.",
        "Two of its five plants are in France.",
    ],
)
def test_invented_names_and_numbers_in_words_are_told(answer: str) -> None:
    assert cite(answer, [source(FIRM)]).citations == ()


@pytest.mark.parametrize(
    "answer",
    [
        "李娜于1987年创立了这家电子公司。",
        "这家公司于一九八七年由李娜创立。",
        "产品的保修期为3年。",
        "产品的保修期为三年。",
        "公司有２５名员工。",
        "公司设在北京市。",
        "公司的员工有25名，产量为300万台。",
        "产品从第二年起收费。",
    ],
)
def test_chinese_names_and_numbers_that_are_there(answer: str) -> None:
    assert cite(answer, [source(FIRMA)]).unsupported == ()


@pytest.mark.parametrize(
    "answer",
    [
        "张伟于1987年创立了这家电子公司。",
        "李娜于一九九七年创立了这家电子公司。",
        "产品的保修期为五年。",
        "产品的保修期为5年。",
        "产品的保修期为一年。",
        "公司设在上海，有二十五名员工。",
        "公司有三十五名员工。",
        "公司有３５名员工。",
        "产量为三十万台。",
        "产品从第四年起收费，保修期为三年。",
    ],
)
def test_invented_chinese_names_and_numbers_are_told(answer: str) -> None:
    assert cite(answer, [source(FIRMA)]).citations == ()


@pytest.mark.parametrize("text", ["one ", "hundred and ", "million ", "一", "万", "A ", "1", "1,000 ", "\n", "- "])
def test_long_runs_take_no_time_and_are_no_error(text: str) -> None:
    begun = time.monotonic()
    run = text * (20_000 // len(text))
    cite(f"Zhang{run}5 million {run}万。", [source(f"Water {run}turns.")])
    assert time.monotonic() - begun < 5
