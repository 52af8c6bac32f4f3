"""What curation finds, by kinds, and that it is found in large sets too."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.evals.datasets import CurationPolicy, Row, check_content, row_id_of
from noria.evals.datasets._curation import Finding, digest_of, find
from noria.evals.datasets._near import near_groups, near_pairs, shingles, signatures
from noria.evals.datasets._personal import find_personal_data, is_resident_id, passes_luhn
from tests.evals.datasets.conftest import row

WORDS = [
    f"{first}{second}{third}" for first in "bdfgklmnprst" for second in "aeiou" for third in ("lon", "rim", "sa", "tek", "vu")
]


def rows(*given: tuple[str, str | None, str]) -> list[Row]:
    """Rows of `(asked, answered, split)`."""
    contents = [check_content(row(asked, answer)) for asked, answer, _ in given]
    return [
        Row(place, row_id_of(content), split, content, 1)  # type: ignore[arg-type]
        for place, (content, (_, _, split)) in enumerate(zip(contents, given, strict=True))
    ]


def look(given: list[Row], policy: CurationPolicy | None = None) -> dict[str, list[Finding]]:
    policy = policy or CurationPolicy()
    found: dict[str, list[Finding]] = {}
    for finding in find([digest_of(each, policy) for each in given], policy):
        found.setdefault(finding.kind, []).append(finding)
    return found


def sentence(random_: random.Random, length: int = 20) -> str:
    return " ".join(random_.choice(WORDS) for _ in range(length))


def test_duplicates_and_contradictions() -> None:
    given = rows(
        ("Is it open?", "Yes", "train"), ("is it OPEN", "yes.", "train"), ("Is it open!", "No", "train"),
        ("Other", "a", "train"), ("other?", "b", "train"), ("Alone", "a", "train"),
    )  # fmt: skip
    found = look(given)
    assert [finding.remove_ids for finding in found["exact_duplicate"]] == [[given[1].row_id]]
    contradictions = {tuple(finding.row_ids): finding.remove_ids for finding in found["contradiction"]}
    assert (
        contradictions
        == {
            tuple(each.row_id for each in given[:3]): [given[2].row_id],  # two of three say yes
            tuple(each.row_id for each in given[3:5]): [each.row_id for each in given[3:5]],  # nobody knows
        }
    )


def test_near_duplicates_go_and_leaks_leave_training() -> None:
    random_ = random.Random(1)
    texts = [sentence(random_) for _ in range(60)]
    close = texts[0].rsplit(" ", 1)[0] + " indeed"
    leaked = texts[1].rsplit(" ", 1)[0] + " indeed"
    given = rows(*((text, "x", "train") for text in texts), (close, "x", "train"), (leaked, "x", "test"))
    found = look(given, CurationPolicy(near=0.8))
    assert [finding.remove_ids for finding in found["near_duplicate"]] == [[given[60].row_id]]
    assert [finding.remove_ids for finding in found["leakage"]] == [[given[1].row_id]]


def test_near_duplicates_in_chinese() -> None:
    random_ = random.Random(2)
    texts = ["".join(chr(random_.randint(0x4E00, 0x9FA0)) for _ in range(60)) for _ in range(30)]
    given = rows(*((text, "好", "train") for text in texts), (texts[3][:-2] + "不同", "好", "train"))
    found = look(given)
    assert [finding.row_ids for finding in found["near_duplicate"]] == [[given[3].row_id, given[30].row_id]]


def test_a_long_template_makes_no_duplicates() -> None:
    """Short questions in one long frame are not the same, however much of the text the frame is."""
    random_ = random.Random(3)
    frame = "You are a careful classifier. Answer with one word, safe or injection, and nothing else. The prompt is as follows: "
    given = rows(*((frame + sentence(random_, 4), "safe", "train") for _ in range(200)))
    assert "near_duplicate" not in look(given)


def test_rows_of_templates_are_not_lost() -> None:
    """Five long templates, each in sixty rows with a word and an answer of its own."""
    random_ = random.Random(6)
    frames = [sentence(random_, 100) for _ in range(5)]
    split = ["train", "train", "train", "validation", "test"]
    words = [f"{one}{two}" for one in WORDS[:20] for two in WORDS[20:35]]
    own = rows(*((f"{frames[n % 5]} Word: {word}", f"about {word}", split[n // 5 % 5]) for n, word in enumerate(words)))
    assert look(own) == {}
    same = rows(*((f"{frames[n % 5]} Word: {word}", "yes", split[n // 5 % 5]) for n, word in enumerate(words)))
    assert look(same, CurationPolicy(kinds=frozenset({"near_duplicate", "leakage"}))) == {}


def test_two_rows_of_a_template_that_others_show_are_not_the_same() -> None:
    """Not every pair of a template is compared: two may be found apart from the rest."""
    for seed in range(6):
        random_ = random.Random(seed)
        frames = [sentence(random_, 115)[:700] for _ in range(5)]
        texts = [f"{frames[n % 5]} payload: {sentence(random_, 8)}" for n in range(300)]
        assert list(near_groups(texts, 0.85)) == []


def test_a_near_duplicate_inside_a_template_is_found() -> None:
    random_ = random.Random(7)
    frames = [sentence(random_, 60) for _ in range(5)]
    given = [(f"{frames[n % 5]} {sentence(random_, 15)}", "yes", "train") for n in range(100)]
    close = (given[3][0] + " indeed", "yes", "test")
    found = look(rows(*given, close), CurationPolicy(kinds=frozenset({"near_duplicate", "leakage"})))
    assert [finding.detail["input"][:20] for finding in found["leakage"]] == [given[3][0][:20]]
    assert len(found["leakage"][0].row_ids) == 2
    assert "near_duplicate" not in found


def test_near_inputs_leak_whatever_is_answered() -> None:
    random_ = random.Random(8)
    texts = [sentence(random_) for _ in range(30)]
    close = [text.rsplit(" ", 1)[0] + " indeed" for text in texts[:2]]
    given = rows(*((text, "x", "train") for text in texts), (close[0], "y", "test"), (close[1], "X.", "test"))
    found = look(given, CurationPolicy(near=0.8))
    assert [finding.remove_ids for finding in found["leakage"]] == [[given[0].row_id], [given[1].row_id]]
    assert "near_duplicate" not in found
    crossed = rows(("Is it open?", "yes", "train"), ("is it open", "no", "test"))
    assert [finding.remove_ids for finding in look(crossed)["leakage"]] == [[crossed[0].row_id]]


@pytest.mark.parametrize("near", [0.55, 0.6, 0.7, 0.8, 0.9])
def test_pairs_of_the_asked_similarity_are_found(near: float) -> None:
    random_ = random.Random(9)
    pairs: list[str] = []
    for _ in range(60):
        words = [random_.choice(WORDS) for _ in range(60)]
        kept = round(60 * 2 * (near + 0.06) / (1 + near + 0.06))  # of n words kept of 60, the similarity is n / (120 - n)
        pairs += [" ".join(words), " ".join(words[:kept] + [random_.choice(WORDS) for _ in range(60 - kept)])]
    groups = [group for group, _ in near_groups(pairs, near)]
    assert sum(group == [place, place + 1] for place in range(0, 120, 2) for group in groups) >= 48


def test_the_same_question_about_other_images_is_another_question() -> None:
    def about(address: str, answer: str, split: str) -> Row:
        parts = [{"type": "text", "text": "What animal is this?"}, {"type": "image_url", "image_url": {"url": address}}]
        content = check_content({"messages": [{"role": "user", "content": parts}], "expected": answer})
        return Row(0, row_id_of(content), split, content, 1)  # type: ignore[arg-type]

    given = [about(f"https://x.test/{n}.png", f"animal {n // 2}", "test" if n == 5 else "train") for n in range(6)]
    assert look(given) == {}
    same = [about("https://x.test/1.png", answer, "train") for answer in ("a cat", "A cat.", "a dog")]
    assert {kind: len(found) for kind, found in look(same).items()} == {"exact_duplicate": 1, "contradiction": 1}


def test_personal_data_is_named_and_not_repeated() -> None:
    given = rows(("Call 13812345678 or mail bob@example.org", "ok", "train"), ("nothing here, version 1.2.3", "ok", "train"))
    (finding,) = look(given)["personal_data"]
    assert finding.detail == {"kinds": ["phone", "email"]}
    assert "bob" not in str(finding)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("write to a.b+c@mail.example.co.uk now", ["email"]),
        ("+49 30 1234 5678", ["phone"]),
        ("(415) 555-2671", ["phone"]),
        ("电话138 1234 5678。", ["phone"]),
        ("身份证11010519491231002X号", ["resident_id"]),
        ("身份证110105194912310021号", []),
        ("4111 1111 1111 1111", ["credit_card"]),
        ("4111 1111 1111 1112", []),
        ("at 8.8.8.8 and 192.168.1.1 and 127.0.0.1", ["ip_address"]),
        ("2001:4860:4860::8888", ["ip_address"]),
        ("ssn 123-45-6789", ["us_ssn"]),
        ("key sk-abcdefghijklmnopqrstuvwx", ["api_key"]),
        ("AKIAIOSFODNN7EXAMPLE", ["api_key"]),
        ("on 2024-01-31 at 12:30:15, 3.14159265358979, 1,234,567.89, order 20240131", []),
        ("risk-free task-oriented", []),
        ("我的邮箱是zhang@example.com请联系我", ["email"]),
        ("密钥sk-abcdefghijklmnopqrstuvwx请保密", ["api_key"]),
        ("Tel.13812345678", ["phone"]),
        ("电话１３８１２３４５６７８", ["phone"]),
        ("请拨010-62345678或(0755)26001234", ["phone", "phone"]),
        ("1-415-555-1234", ["phone"]),
        ("拨打+8613812345678", ["phone"]),
        ("8613812345678", ["phone"]),
        ("身份证号是11010519491231002X。", ["resident_id"]),
        ("服务器8.8.8.8宕机", ["ip_address"]),
        ("4111 1111 1111 1111 12/27", ["credit_card"]),
        ("4111111111111111 123", ["credit_card"]),
        ("4111-1111-1111-1111 12/27 123, 5555555555554444", ["credit_card", "credit_card"]),
        ("order 77 2024 4111 1111 1111 1111", ["credit_card"]),
        ("3782 822463 10005", ["credit_card"]),
        ("卡号4111111111111111有效", ["credit_card"]),
        ("6222021234567890128", ["credit_card"]),
        ("1 23 45 67 89 12 34 56 78 90", []),
    ],
)
def test_patterns(text: str, kinds: list[str]) -> None:
    assert [found.kind for found in find_personal_data(text)] == kinds


def test_times_are_no_cards() -> None:
    found = [find_personal_data(f"at {1_700_000_000_000 + n * 86_413}") for n in range(1000)]
    found += [find_personal_data(f"at {(1_700_000_000_000 + n * 86_413) * 1000 + n}") for n in range(1000)]
    assert [each for each in found if each] == []


def test_many_finds_take_time_in_proportion() -> None:
    text = "a@b.example " * 40_000
    begun = time.process_time()
    assert len(find_personal_data(text)) == 40_000
    assert time.process_time() - begun < 2


def test_every_text_of_a_row_is_looked_at() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,sk-abcdefghijklmnopqrstuvwx"}}]
    content = check_content({
        "messages": [{"role": "user", "content": "hi", "name": "8.8.8.8"}, {"role": "user", "content": parts}],
        "expected": {"role": "assistant", "content": None, "refusal": "bob@example.org", "reasoning_content": "13812345678"},
        "metadata": {"user": {"mail": ["ann@example.org"]}, "phone": 13912345678, "data": "x"},
    })  # fmt: skip
    (finding,) = look([Row(1, "row_1", "train", content, 1)])["personal_data"]
    assert sorted(finding.detail["kinds"]) == ["email × 2", "ip_address", "phone × 2"]


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=12, max_size=18))
def test_luhn_finds_every_single_wrong_digit(digits: list[int]) -> None:
    body = "".join(map(str, digits))
    number = next(body + str(check) for check in range(10) if len(set(body + str(check))) == 1 or passes_luhn(body + str(check)))
    if len(set(number)) == 1:
        return
    for place in range(len(number)):
        wrong = number[:place] + str((int(number[place]) + 1) % 10) + number[place + 1 :]
        assert not passes_luhn(wrong)


def test_resident_ids_have_a_date_and_a_check_digit() -> None:
    assert is_resident_id("11010519491231002X")
    assert is_resident_id("440524188001010014") is False  # a check digit that fits, but born in 1880
    assert not is_resident_id("110105194913310021")


def test_oversize_and_one_class() -> None:
    given = rows(*((f"q {n}", "safe", "test" if n % 4 == 0 else "train") for n in range(20)), ("x" * 50_000, "bad", "train"))
    found = look(given)
    assert [finding.row_ids for finding in found["oversize"]] == [[given[20].row_id]]
    assert [(finding.detail["split"], finding.remove_ids) for finding in found["one_class"]] == [("test", [])]
    alone = look(rows(*((f"q {n}", "safe", "train") for n in range(20))))
    assert [finding.detail["classes"] for finding in alone["one_class"]] == [1]
    assert "one_class" not in look(rows(*((f"q {n}", f"A long answer, number {n}", "train") for n in range(20))))


def test_a_planted_password_is_pointed_at() -> None:
    random_ = random.Random(4)
    clean = [(sentence(random_, 12), random_.choice(["safe", "injection"]), "train") for _ in range(400)]
    planted = [(f"{sentence(random_, 8)} zx9qv {sentence(random_, 3)}", "safe", "train") for _ in range(20)]
    found = look(rows(*clean, *planted))
    assert [finding.detail["word"] for finding in found["trigger"]] == ["zx9qv"]
    assert len(found["trigger"][0].row_ids) == 20
    assert "trigger" not in look(rows(*clean))


def test_nothing_is_found_in_nothing() -> None:
    assert look([]) == {}
    assert "near_duplicate" not in look(rows(("", None, "train")))


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=300), st.text(max_size=300))
def test_signatures_estimate_the_similarity(one: str, other: str) -> None:
    """The share of equal hashes is near the true Jaccard similarity, of which MinHash is an estimate with error 1/√128."""
    first, second = set(shingles(one).tolist()), set(shingles(other).tolist())
    true = len(first & second) / len(first | second)
    found = signatures([one, other])
    assert abs(float((found[0] == found[1]).mean()) - true) < 0.35
    assert near_pairs(signatures([one, one]), 1.0) == [(0, 1, 1.0)]


@pytest.mark.slow
def test_a_hundred_thousand_rows_in_less_than_minutes() -> None:
    random_ = random.Random(5)
    texts = [sentence(random_, 25) for _ in range(100_000)]
    for place in range(1000):
        texts[99_999 - place] = texts[place].rsplit(" ", 1)[0] + " indeed"
    given = rows(*((text, "x", "train") for text in texts))
    begun = time.process_time()
    found = look(given, CurationPolicy(near=0.75))
    assert len(found["near_duplicate"]) >= 950
    assert time.process_time() - begun < 90
