"""What answers say of themselves, whatever their line ends and cuts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.models import error_in
from noria.models._stream_facts import facts_of_body, facts_of_stream

from .upstream import ANSWER, chunk, encoded

ERROR = {"message": "no", "code": "x"}


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("failed", [{"error": ERROR}, chunk({}, "error", error=ERROR)])
def test_the_end_of_a_stream_says_what_happened(end: bytes, failed: dict[str, Any]) -> None:
    error = b"data:" + json.dumps(failed).encode() + b"\n\n"
    good = facts_of_stream(encoded(chunk({"content": "a"})).replace(b"\n", end))
    assert (good.error, good.usage, good.done) == (None, ANSWER["usage"], True)
    broken = facts_of_stream((encoded(chunk({"content": "a"}), done=False) + error).replace(b"\n", end))
    assert (broken.error, broken.usage, broken.done) == (ERROR, None, False)
    both = facts_of_stream((error + encoded(chunk({"content": "a"}))).replace(b"\n", end))
    assert (both.error, both.usage, both.done) == (ERROR, ANSWER["usage"], True)


@given(st.text(), st.booleans())
def test_what_a_model_says_is_never_an_error(said: str, spaced: bool) -> None:
    odd = f'{said}{{"error": {{"message": "no"}}}}\n\ndata: {{"error": 1}}'
    data = encoded(chunk({"content": odd}), chunk({"content": "error"}, error=None), spaced=spaced)
    assert error_in(data) is None
    assert facts_of_stream(data).error is None


def test_a_comment_behind_the_end_is_none_of_it() -> None:
    data = encoded(chunk({"content": "a"})) + b': spans {"error": 1, "usage": {"a": 2}}\n\n'
    facts = facts_of_stream(data)
    assert (facts.error, facts.usage, facts.done) == (None, ANSWER["usage"], True)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff", b"data:", b"data: {}", b'data: {"usage": 1, "error": null}'])
def test_anything_may_come(raw: bytes) -> None:
    for facts in (facts_of_body(raw), facts_of_stream(raw)):
        assert (facts.error, facts.usage, facts.done) == (None, None, False)
