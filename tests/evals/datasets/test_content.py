"""What makes two rows ask or say the same, and what keeps a row in its split for good."""

from __future__ import annotations

from typing import Any

import pytest

from noria.evals.datasets import answer_key, check_content, input_media, split_key, split_of
from noria.evals.datasets._content import conversation_key, fold

ASKED = "What animal is this?"


def shown(address: str, kind: str = "image_url") -> dict[str, Any]:
    part = {"type": kind, kind: {"url": address} if kind == "image_url" else {"data": address, "format": "wav"}}
    return check_content({"messages": [{"role": "user", "content": [{"type": "text", "text": ASKED}, part]}]})


@pytest.mark.parametrize("kind", ["image_url", "input_audio"])
def test_an_image_or_a_sound_is_part_of_the_input(kind: str) -> None:
    cat, again, dog = shown("https://x.test/cat.png", kind), shown("https://x.test/cat.png", kind), shown("data:,dog", kind)
    assert input_media(cat["messages"]) == input_media(again["messages"]) != input_media(dog["messages"])
    assert conversation_key(cat) == conversation_key(again) != conversation_key(dog)
    bare = check_content({"messages": [{"role": "user", "content": ASKED}]})
    parts = check_content({"messages": [{"role": "user", "content": [{"type": "text", "text": ASKED}]}]})
    assert input_media(bare["messages"]) == input_media(parts["messages"]) == ""
    assert conversation_key(bare) == conversation_key(parts) != conversation_key(cat)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("7+3", "7-3"), ("C++", "C#"), ("3 < 5", "3 > 5"), ("value of 5", "value of -5"), ("x != 2", "x = 2"), ("3.5", "35"),
        ("3.5", "3 5"), ("What is 5!", "What is 5"), ("😀", "😡"), ("I am 😀", "I am 😡"), ("कि", "की"), ("ที่", "ที"),
        ("5²", "52"), ("value of .5", "value of 5"), ("a_b", "a b"), ("100%", "100$"), ("f(x)", "f[x]"), ("~x", "x"),
    ],
)  # fmt: skip
def test_signs_that_carry_meaning_stay(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Is it open?", "is  it OPEN"), ("Yes.", "yes"), ("Well, yes!", "well yes"), ("Ｈｅｌｌｏ！", "hello"), ("Ｃ＋＋", "c++"),
        ("你好，世界。", "你好,世界"), ("答案：５", "答案:5"), ("value：5", "value: 5"), ("Really?! No…", "really no"),
        ("ｶﾞ", "ガ"), ("a\u200b b", "A B"), ("¿Qué tal?", "que\u0301 tal"),
    ],
)  # fmt: skip
def test_case_width_white_space_and_marks_between_sentences_do_not_matter(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_nothing_but_marks_is_kept() -> None:
    assert fold(" ?! ") == "?!"


def test_the_split_of_a_text_never_changes() -> None:
    """Written down: another key would move rows from test to train in the datasets that there are."""
    asked = [
        "7+3",
        "7-3",
        "Is it open?",
        "is it OPEN",
        "C++ or C#?",
        "你好，世界。",
        "कि",
        "?!",
        "value of -5",
        "x_y",
        "5²",
        "a b c",
    ]
    found = [split_of(check_content({"messages": [{"role": "user", "content": text}]}), 0.3, 0.3) for text in asked]
    assert found == [
        "train", "train", "validation", "validation", "test", "test", "test", "train", "train", "train", "train", "validation",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["image_url", "input_audio"])
def test_images_and_sounds_do_not_move_a_row_to_another_split(kind: str) -> None:
    bare = check_content({"messages": [{"role": "user", "content": ASKED}]})
    assert split_key(bare["messages"]) == "what animal is this"
    for number in range(10):
        each = shown(f"https://x.test/{number}.png", kind)
        assert split_key(each["messages"]) == split_key(bare["messages"])
        assert split_of(each, 0.3, 0.3) == split_of(bare, 0.3, 0.3)


def test_the_ids_of_calls_do_not_make_answers_differ() -> None:
    def call(identity: str, arguments: str) -> dict[str, Any]:
        function = {"name": "look", "arguments": arguments}
        return {"role": "assistant", "content": None, "tool_calls": [{"id": identity, "type": "function", "function": function}]}

    assert answer_key(call("call_1", '{"a":1,"b":2}')) == answer_key(call("call_2", '{"b": 2, "a": 1}'))
    assert answer_key(call("call_1", '{"a":1}')) != answer_key(call("call_1", '{"a":2}'))
    assert answer_key({"role": "assistant", "content": None, "refusal": "No."}) == answer_key({"content": "no"})
