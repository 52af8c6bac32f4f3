"""Reading: event streams, key=value, times, routes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.cli._cards import Addition, build_card
from noria.cli._trace_views import moment
from noria.cli._values import parse_attributes, parse_filters, parse_value
from noria.client import events
from noria.errors import InvalidRequest

_LINES = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=("Cs",)), max_size=12)


@given(st.lists(st.lists(_LINES, min_size=1, max_size=3), max_size=5), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_events_do_not_depend_on_how_the_bytes_are_cut(data: list[list[str]], end: str, draw: st.DataObject) -> None:
    text = "".join("".join(f"data: {line}{end}" for line in event) + end for event in data)
    raw = text.encode()
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert list(events(pieces)) == ["\n".join(event) for event in data]


def test_events_leave_out_comments_other_fields_and_what_is_cut_off() -> None:
    raw = b": hello\nevent: x\nid: 1\ndata:no space\n\ndata: cut"
    assert list(events([raw])) == ["no space"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("lang=zh", {"type": "eq", "key": "lang", "value": "zh"}),
        ("year>=2020", {"type": "gte", "key": "year", "value": 2020}),
        ("draft!=true", {"type": "ne", "key": "draft", "value": True}),
        ('code="007"', {"type": "eq", "key": "code", "value": "007"}),
        ('{"type": "in", "key": "a", "value": [1]}', {"type": "in", "key": "a", "value": [1]}),
    ],
)
def test_filters(text: str, wanted: dict[str, Any]) -> None:
    assert parse_filters([text]) == wanted


def test_several_filters_must_all_hold() -> None:
    found = parse_filters(["a=1", "b<2"])
    assert found is not None
    assert (found["type"], [each["key"] for each in found["filters"]]) == ("and", ["a", "b"])
    assert parse_filters([]) is None


@pytest.mark.parametrize("text", ["nothing", "=x", "{broken"])
def test_a_filter_that_cannot_be_read_says_so(text: str) -> None:
    with pytest.raises(InvalidRequest, match="filter"):
        parse_filters([text])


@given(st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_and_truth_are_read_as_such(value: float | bool) -> None:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@given(st.text())
def test_quotes_keep_text(value: str) -> None:
    assert parse_attributes([f'key="{value}"']) == {"key": value}


def test_moments() -> None:
    assert moment("2h", now=10_000) == 2_800
    assert moment("1700000000") == 1_700_000_000
    assert moment("2026-01-31T08:00+00:00") == 1769846400
    with pytest.raises(InvalidRequest, match="not a time"):
        moment("yesterday")


def addition(*targets: str, provider: str | None = None, route: str | None = None) -> Addition:
    return Addition("new", targets, provider, route, "chat", sticky=False, card_file=None)


def test_routes_and_providers_become_cards() -> None:
    card = build_card(addition("a=0.9", "org/b:free=0.1", route="weighted"), {}, {})
    assert card["route"]["targets"] == [{"model": "a", "weight": 0.9}, {"model": "org/b:free", "weight": 0.1}]
    card = build_card(addition(provider="openai"), {"upstream": "gpt"}, {"input": 1.0, "output": None})
    assert card == {
        "id": "new", "task": "chat", "upstream": "gpt", "price": {"input": 1.0}, "source": "provider", "provider": "openai",
    }  # fmt: skip
    assert build_card(addition(), {"base_url": "https://x/v1"}, {})["provider"] == "custom"


@pytest.mark.parametrize(
    "given",
    [
        addition(),
        addition("a"),
        addition(route="fallback"),
        addition("a=x", route="weighted"),
        addition("a", provider="p", route="fallback"),
    ],
)
def test_contradicting_options_are_refused(given: Addition) -> None:
    with pytest.raises(InvalidRequest):
        build_card(given, {}, {})
