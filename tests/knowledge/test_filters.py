"""Attribute filters: strict to read, right on every type, and fast because they are answered by file."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import InvalidRequest
from noria.knowledge import FileAttributes, parse_filter

_VALUES = st.one_of(st.sampled_from(["a", "b", "2024-01-02", ""]), st.integers(-3, 3), st.sampled_from([0.5, 1.0]), st.booleans())
_ATTRIBUTES = st.dictionaries(st.sampled_from(["x", "y", "z"]), _VALUES, max_size=3)


def _comparisons() -> st.SearchStrategy[dict[str, Any]]:
    keys = st.sampled_from(["x", "y", "missing"])
    equal = st.fixed_dictionaries({"type": st.sampled_from(["eq", "ne"]), "key": keys, "value": _VALUES})
    ordered = st.fixed_dictionaries(
        {
            "type": st.sampled_from(["gt", "gte", "lt", "lte"]),
            "key": keys,
            "value": _VALUES.filter(lambda v: not isinstance(v, bool)),
        }
    )
    among = st.fixed_dictionaries({"type": st.sampled_from(["in", "nin"]), "key": keys, "value": st.lists(_VALUES, max_size=3)})
    return st.one_of(equal, ordered, among)


_FILTERS = st.recursive(
    _comparisons(),
    lambda parts: st.fixed_dictionaries(
        {"type": st.sampled_from(["and", "or"]), "filters": st.lists(parts, min_size=1, max_size=3)}
    ),
    max_leaves=6,
)


@given(files=st.lists(_ATTRIBUTES, min_size=1, max_size=20), body=_FILTERS, changed=_ATTRIBUTES)
@settings(max_examples=300, deadline=None)
def test_the_fast_way_agrees_with_the_obvious_one(
    files: list[dict[str, Any]], body: dict[str, Any], changed: dict[str, Any]
) -> None:
    wanted = parse_filter(body)
    table = FileAttributes()
    for ordinal, attributes in enumerate(files):
        table.set(ordinal * 2, attributes)
    table.allowed(wanted)  # so that a stale cache would show
    table.set(0, changed)
    files[0] = changed
    allowed = table.allowed(wanted)
    expected = [ordinal * 2 for ordinal, attributes in enumerate(files) if wanted.matches(attributes)]
    assert allowed.ordinals().tolist() == expected
    assert allowed.share == pytest.approx(len(expected) / len(files))


@pytest.mark.parametrize(
    ("body", "attributes", "expected"),
    [
        ({"type": "eq", "key": "lang", "value": "zh"}, {"lang": "zh"}, True),
        ({"type": "eq", "key": "n", "value": 1}, {"n": True}, False),
        ({"type": "eq", "key": "n", "value": 1}, {"n": 1.0}, True),
        ({"type": "ne", "key": "lang", "value": "zh"}, {}, True),
        ({"type": "gt", "key": "day", "value": "2024-05-01"}, {"day": "2024-11-30"}, True),
        ({"type": "gt", "key": "day", "value": 5}, {"day": "2024"}, False),
        ({"type": "lte", "key": "n", "value": 3}, {"n": 3}, True),
        ({"type": "in", "key": "n", "value": [1, "b"]}, {"n": "b"}, True),
        ({"type": "nin", "key": "n", "value": [1, "b"]}, {"n": 2}, True),
    ],
)
def test_comparisons(body: dict[str, Any], attributes: dict[str, Any], expected: bool) -> None:
    assert parse_filter(body).matches(attributes) is expected


_EQ = {"type": "eq", "key": "a", "value": 1}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (5, "filters"),
        ({}, "filters.type"),
        ({**_EQ, "type": "like"}, "filters.type"),
        ({**_EQ, "extra": 1}, "filters.extra"),
        ({"type": "eq", "value": 1}, "filters.key"),
        ({"type": "eq", "key": "a"}, "filters.value"),
        ({**_EQ, "value": {}}, "filters.value"),
        ({**_EQ, "type": "in"}, "filters.value"),
        ({**_EQ, "type": "gt", "value": True}, "filters.value"),
        ({"type": "and", "filters": []}, "filters.filters"),
        ({"type": "or", "filters": [_EQ, {**_EQ, "value": None}]}, "filters.filters[1].value"),
        ({"type": "and", "filters": [_EQ] * 257}, "filters"),
    ],
)
def test_a_wrong_filter_is_refused_by_name(body: object, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_filter(body)
    assert caught.value.param == param


def test_nesting_is_limited() -> None:
    body: dict[str, Any] = _EQ
    for _ in range(5_000):
        body = {"type": "and", "filters": [body]}
    with pytest.raises(InvalidRequest, match="nested"):
        parse_filter(body)


def test_dropped_files_pass_no_filter() -> None:
    table = FileAttributes()
    table.set(0, {})
    table.set(3, {})
    table.drop(3)
    assert table.allowed(None).ordinals().tolist() == [0]


def test_ten_thousand_files_cost_little() -> None:
    table = FileAttributes()
    for ordinal in range(10_000):
        table.set(ordinal, {"group": ordinal % 100, "name": f"file {ordinal}"})
    wanted = parse_filter({"type": "and", "filters": [{"type": "eq", "key": "group", "value": 3}]})
    started = time.process_time()
    assert table.allowed(wanted).ordinals().size == 100
    assert time.process_time() - started < 0.02
