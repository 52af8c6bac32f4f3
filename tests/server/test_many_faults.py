"""A small body that is wrong in very many places costs no more than one that is wrong once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

import noria.server._app
from noria.errors import InvalidRequest
from noria.evals._messages import TemplateMessage
from noria.evals._parsing import Spec, parse
from noria.evals._specs import run_spec
from noria.fields import shorten
from noria.responses import ResponseRequest
from noria.server._chat_bodies import Body, ChatBody, CompletionBody, EmbeddingBody
from noria.server._dataset_views import AddRowsBody

MANY = 20_000
FEW = 40
BAD: list[Any] = [{}] * MANY


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (EmbeddingBody, {"model": "m", "input": BAD}),
        (EmbeddingBody, {"model": "m", "input": [*[[1]] * 100, *[["a"] * MANY]]}),
        (CompletionBody, {"model": "m", "prompt": BAD}),
        (CompletionBody, {"model": "m", "prompt": [["a"] * MANY]}),
        (CompletionBody, {"model": "m", "prompt": "a", "logit_bias": {str(key): "x" for key in range(MANY)}}),
        (ChatBody, {"model": "m", "messages": BAD}),
        (ChatBody, {"model": "m", "messages": [{"role": "user", "content": BAD}]}),
        (ChatBody, {"model": "m", "messages": [{"role": "assistant", "tool_calls": BAD}]}),
        (ChatBody, {"model": "m", "messages": [], "metadata": {str(key): 1 for key in range(MANY)}}),
        (ChatBody, {"model": "m", "messages": [], **{f"a{key}": 1 for key in range(MANY)}}),
        (ResponseRequest, {"model": "m", "input": BAD}),
        (ResponseRequest, {"model": "m", "input": [{"role": "user", "content": BAD}]}),
        (ResponseRequest, {"model": "m", "include": BAD}),
        (AddRowsBody, {"rows": BAD[:9000], "remove": BAD[:9000]}),
    ],
)
def test_faults_are_few_however_many_there_are(kind: type[BaseModel], body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    assert caught.value.error_count() <= FEW


def _kinds(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


def _lists(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            yield schema
        for part in schema.values():
            yield from _lists(part)
    elif isinstance(schema, (list, tuple)):
        for part in schema:
            yield from _lists(part)


def test_every_list_in_a_body_ends_at_its_first_fault() -> None:
    assert noria.server._app  # which imports all bodies
    slow = {
        kind.__name__
        for kind in (*_kinds(Body), *_kinds(Spec), ResponseRequest, TemplateMessage)
        if not all(each.get("fail_fast") for each in _lists(kind.__pydantic_core_schema__))
    }
    assert not slow


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "scripted-embedding", "input": BAD}),
        ("/v1/embeddings", {"model": "scripted-embedding", "input": ["a"] * 2049}),
        ("/v1/chat/completions", {"model": "scripted", "messages": BAD}),
        ("/v1/chat/completions", {"model": "scripted", **{f"a{key}": 1 for key in range(MANY)}}),
    ],
)
def test_both_lanes_say_so(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    fast, slow = (client.post(path, json=body, headers=headers) for headers in ({}, {"x-slow-lane": "1"}))
    assert fast.status_code == slow.status_code == 400
    assert fast.json() == slow.json()
    assert len(fast.content) < 1000


@pytest.mark.parametrize(
    ("path", "wrong", "param", "code"),
    [
        ("/v1/chat/completions", {f"a{key}": 1 for key in range(FEW)}, "a0", "unknown_parameter"),
        ("/v1/chat/completions", {"audio": {}, **{f"a{key}": 1 for key in range(MANY)}}, "audio", "unsupported_parameter"),
        (
            "/v1/chat/completions",
            {"temperature": 1, "metadata": {str(key): 1 for key in range(FEW)}},
            "metadata",
            "invalid_value",
        ),
        ("/v1/completions", {"logit_bias": {str(key): "x" for key in range(MANY)}}, "logit_bias", "invalid_value"),
        ("/v1/responses", {"input": "a", "metadata": {str(key): 1 for key in range(MANY)}}, "metadata", "invalid_value"),
    ],
)
def test_a_field_is_named_however_many_are_wrong(
    client: httpx.Client, path: str, wrong: dict[str, Any], param: str, code: str
) -> None:
    for headers in ({}, {"x-slow-lane": "1"}):
        refused = client.post(path, json={"model": "scripted", **wrong}, headers=headers)
        error = refused.json()["error"]
        assert (refused.status_code, error["param"], error["code"]) == (400, param, code)
        assert len(refused.content) < 1000


def test_a_specification_names_one_or_counts_them() -> None:
    rows = {"type": "file_content", "content": BAD}
    with pytest.raises(InvalidRequest, match=re.escape("data_source.source.content[0].item is missing")):
        parse(run_spec, {"type": "jsonl", "source": rows}, "data_source")
    with pytest.raises(InvalidRequest, match=r"data_source .*20,0\d\d faults"):
        parse(run_spec, {"type": "jsonl", "source": rows["type"], **{f"a{key}": 1 for key in range(MANY)}}, "data_source")
    whole: TypeAdapter[Any] = TypeAdapter(list[int])
    with pytest.raises(InvalidRequest, match="faults"):
        parse(whole, BAD, "numbers")


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner) | st.dictionaries(st.text(), inner)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), _nested, max_leaves=30))
def test_a_value_is_shown_as_python_would_and_no_longer(value: Any) -> None:
    whole = repr(value)
    assert shorten(value) == (whole if len(whole) <= 120 else whole[:117] + "…")
