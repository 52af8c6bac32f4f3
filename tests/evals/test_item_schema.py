"""No schema and no row of an eval takes more than a moment, and those that people write pass."""

from __future__ import annotations

import time
from typing import Any

import pytest
from jsonschema import validators

from noria.errors import InvalidRequest
from noria.evals._item_schema import ItemSchema, check_item_schema


def bomb(depth: int, keyword: str = "anyOf") -> dict[str, Any]:
    """`2 ** depth` steps: each definition names the one before it twice."""
    definitions: dict[str, Any] = {"d0": False}
    for each in range(1, depth + 1):
        definitions[f"d{each}"] = {keyword: [{"$ref": f"#/$defs/d{each - 1}"}] * 2}
    return {"$defs": definitions, "$ref": f"#/$defs/d{depth}"}


ADDRESS = {"type": "object", "properties": {"street": {"type": "string"}, "city": {"$ref": "#/$defs/name"}}}
USUAL = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$defs": {"name": {"type": "string", "minLength": 1}, "address": ADDRESS},
    "type": "object",
    "properties": {
        **{f"field_{number}": {"anyOf": [{"$ref": "#/$defs/name"}, {"type": "null"}]} for number in range(300)},
        "home": {"$ref": "#/$defs/address"},
        "work": {"$ref": "#/$defs/address"},
        "pattern": {"type": "string"},
        "$schema": {"type": "string"},
        "children": {"type": "array", "items": {"$ref": "#"}},
        "words": {"type": "array", "uniqueItems": True, "items": {"type": "string"}},
    },
    "required": ["home"],
}
FITS = {
    "home": {"street": "Rue", "city": "Paris"},
    "children": [{"home": {}, "field_1": None}] * 50,
    "words": [str(number) for number in range(20_000)],
}


def test_what_people_write_passes() -> None:
    check_item_schema(USUAL)
    schema = ItemSchema(USUAL)
    schema.check(FITS)
    for wrong in ({}, {**FITS, "field_7": ""}, {**FITS, "children": [{"home": {"city": ""}}]}, {**FITS, "words": ["a", "a"]}):
        with pytest.raises(InvalidRequest, match="does not fit"):
            schema.check(wrong)
        assert not validators.validator_for(USUAL)(USUAL).is_valid(wrong)


@pytest.mark.parametrize("schema", [bomb(30), bomb(30, "allOf"), bomb(10_000), {"properties": {"a": bomb(30)}, **bomb(13)}])
def test_a_bomb_is_refused_when_it_comes(schema: dict[str, Any]) -> None:
    begun = time.perf_counter()
    with pytest.raises(InvalidRequest, match="too large"):
        check_item_schema(schema)
    assert time.perf_counter() - begun < 5


def test_a_draft_inside_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"\$schema inside"):
        check_item_schema({"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#"}}})


def nested(depth: int) -> dict[str, Any]:
    return {"c": nested(depth - 1)} if depth else {"c": 1}


TWICE = [{"properties": {"c": {"$ref": "#"}}, "required": ["never"]}] * 2


@pytest.mark.parametrize(
    ("schema", "item"),
    [
        (bomb(14), {}),
        ({**bomb(14), "$schema": "https://json-schema.org/draft/2020-12/schema"}, {}),
        ({"type": "object", "anyOf": TWICE}, nested(30)),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "anyOf": TWICE}, nested(30)),
        ({"properties": {"b": {"items": {"enum": [*[0] * 1000, 1]}}}}, {"b": [1] * 1000}),
        ({"properties": {"a": {"uniqueItems": True}}}, {"a": [{"a": number} for number in range(300)]}),
    ],
)
def test_a_row_takes_only_so_many_steps(schema: dict[str, Any], item: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="cannot be held against item_schema: it takes more than 20,000 steps"):
        ItemSchema(schema, most_steps=20_000).check(item)
