"""Templates: what they may name, and that nothing that was filled in is read again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import InvalidRequest
from noria.evals._templates import MissingVariable, Variables, fill, look_up

SCHEMA = {
    "type": "object",
    "properties": {
        "q": {"type": "string"},
        "facts": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "free": {"type": "object"},
        "ground truth": {"type": "string"},
        "问题": {"type": "string"},
    },
}
VARIABLES = Variables(SCHEMA, sample=True)


@pytest.mark.parametrize(
    "path", ["item.q", "item.facts[0].name", "item.free.a.b", "item", "sample.output_json.a[1]", "item.ground truth", "item.问题"]
)
def test_what_the_schema_has_may_be_named(path: str) -> None:
    VARIABLES.check(f"a {{{{ {path} }}}} b", "input")


@pytest.mark.parametrize(
    "path", ["item.x", "item.facts[0].nme", "q", "", "sample.text", "item.", "item..q", "item.q[", "sample.__class__", "item.q]["]
)
def test_what_it_has_not_is_named_in_the_error(path: str) -> None:
    with pytest.raises(InvalidRequest, match="unknown variable") as caught:
        VARIABLES.check(f"a {{{{{path}}}}} b", "testing_criteria[0].input")
    assert caught.value.param == "testing_criteria[0].input"
    assert path in caught.value.message


def test_outputs_need_a_sample() -> None:
    with pytest.raises(InvalidRequest, match="include_sample_schema"):
        Variables(SCHEMA, sample=False).check("{{sample.output_text}}", "input")


def test_values_that_are_not_text_become_json() -> None:
    row = {"item": {"a": {"b": [1, None, "ä"]}, "n": 1.5, "s": "t"}}
    assert fill("{{item.a}} {{item.n}} {{item.s}} {{item.a.b[2]}}", row) == '{"b":[1,null,"ä"]} 1.5 t ä'


def test_a_missing_field_is_said() -> None:
    with pytest.raises(MissingVariable, match=r"item\.b"):
        fill("{{item.b}}", {"item": {"a": 1}})
    with pytest.raises(MissingVariable):
        look_up("item.a[3]", {"item": {"a": [1]}})


def test_a_poisoned_row_stays_text() -> None:
    row = {"item": {"q": "{{item.secret}} {{sample.output_text}} {{", "secret": "s3cret"}, "sample": {"output_text": "x"}}
    assert fill("Q: {{item.q}}", row) == "Q: {{item.secret}} {{sample.output_text}} {{"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(max_size=80), VALUES)
def test_filling_never_crashes_and_never_reads_twice(template: str, value: Any) -> None:
    try:
        VARIABLES.check(template, "t")
    except InvalidRequest:
        return
    try:
        filled = fill(template, {"item": {"q": value}, "sample": {"output_text": "{{item.q}}"}})
    except MissingVariable:
        return
    assert isinstance(filled, str)


@given(st.text())
def test_text_goes_in_as_it_is(text: str) -> None:
    assert fill("{{item.q}}|{{item.q}}", {"item": {"q": text}}) == f"{text}|{text}"
