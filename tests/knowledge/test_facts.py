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


@pytest.mark.parametrize(
    ("answer", "passage"),
    [
        ("Holiday allowance is 25 days a year.", "Staff get 25 days of annual leave a year as allowance."),
        ("Manager approval is needed for travel.", "Travel needs the approval of your superior."),
        ("Car parking is free for guests.", "Guests may use the parking for free."),
        ("Lunch costs 4 euros in the canteen.", "The canteen serves meals that cost 4 euros."),
        ("Doctor certificates are needed after three days.", "After three days of absence medical certificates are needed."),
        ("Employee passwords expire after 90 days.", "Passwords expire after 90 days."),
        ("Password resets are done by the help desk in Bonn.", "The help desk in Bonn does resets."),
        ("Password length is 12 characters.", "At Acme Ltd the minimum length is 12 characters."),
        ("There are four steps to install it.", "The steps to install it: download it, check, unpack and run it on 2 machines."),
    ],
)  # fmt: skip
def test_words_that_begin_sentences_and_counts_of_ones_own_are_no_inventions(answer: str, passage: str) -> None:
    assert cite(answer, [source(passage)]).unsupported == ()


@pytest.mark.parametrize(
    ("answer", "passage"),
    [
        ("Einstein discovered radium.", "Marie Curie discovered radium."),
        ("Einstein discovered radium.", "Curie discovered radium in Paris."),
        ("Einstein discovered radium.", "In Paris, Curie discovered radium."),
        ("VX200 pumps lift 30 litres.", "The ML100 pumps lift 30 litres."),
        ("There are four steps to install it.", "There are three large steps to install it on 2 machines."),
        ("安装分为四个步骤。", "安装分为三个步骤，用时2小时。"),
    ],
)
def test_other_names_and_other_counts_of_the_same_are_told(answer: str, passage: str) -> None:
    assert cite(answer, [source(passage)]).citations == ()


@pytest.mark.parametrize(
    ("answer", "passage"),
    [
        ("顾客可在30天内退货。", "消费者可在30天内退货。"),
        ("许可的期限为5年。", "授权的期限为5年。"),
        ("雷达的探测距离为20公里。", "设备的探测距离为20公里。"),
        ("毛利的比例为30%。", "利润的比例为30%。"),
        ("顾问每周来公司2天。", "专家每周来公司2天。"),
        ("白名单每月更新一次。", "可信地址每月更新一次。"),
        ("熊猫每天吃竹子12小时。", "它们每天吃竹子12小时。"),
        ("安装分为四个步骤。", "安装分为下载2个文件、解压和运行等步骤。"),
    ],
)
def test_chinese_words_that_look_like_people_and_counts_of_ones_own(answer: str, passage: str) -> None:
    assert cite(answer, [source(passage)]).unsupported == ()
