"""The fast lane answers as the framework's own routes do."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

HELLO = [{"role": "user", "content": "hello 你好"}]
SLOW = {"x-slow-lane": "1"}


def _comparable(answer: httpx.Response) -> Any:
    """Status and body without what differs from call to call."""
    body = answer.json()
    return answer.status_code, {key: value for key, value in body.items() if key not in {"id", "created"}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": "scripted", "messages": HELLO}),
        ("/v1/chat/completions", {"model": "scripted", "messages": HELLO, "max_tokens": 1, "user": "u", "metadata": {"a": "b"}}),
        ("/v1/chat/completions", {"model": "scripted", "messages": HELLO, "foo": 1}),
        ("/v1/chat/completions", {"model": "scripted", "messages": HELLO, "audio": {}}),
        ("/v1/chat/completions", {"model": "scripted", "messages": [{"role": "user", "content": "x", "zz": 1}]}),
        ("/v1/chat/completions", {"model": "scripted", "messages": "x"}),
        ("/v1/chat/completions", {"model": "scripted"}),
        ("/v1/chat/completions", {"model": "nope", "messages": HELLO}),
        ("/v1/chat/completions", []),
        ("/v1/chat/completions", {}),
        ("/v1/completions", {"model": "scripted", "prompt": "a b"}),
        ("/v1/completions", {"model": "scripted", "prompt": "a b", "suffix": "c"}),
        ("/v1/completions", {"model": "scripted", "prompt": 5}),
        ("/v1/embeddings", {"model": "scripted-embedding", "input": ["a", "b"]}),
        ("/v1/embeddings", {"model": "scripted-embedding", "input": {}}),
        ("/v1/embeddings", {"model": "scripted", "input": "a"}),
    ],
)
def test_both_lanes_agree(client: httpx.Client, path: str, body: Any) -> None:
    assert _comparable(client.post(path, json=body)) == _comparable(client.post(path, json=body, headers=SLOW))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"a": NaN}', b'"\\ud800"'])
def test_both_lanes_refuse_bad_json(client: httpx.Client, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    fast = client.post("/v1/chat/completions", content=content, headers=headers)
    slow = client.post("/v1/chat/completions", content=content, headers={**headers, **SLOW})
    assert fast.status_code == slow.status_code == 400
    assert fast.json()["error"]["type"] == slow.json()["error"]["type"]


def test_both_lanes_are_traced_alike(client: httpx.Client) -> None:
    body = {"model": "scripted", "messages": HELLO}
    shapes = []
    for headers in ({}, SLOW):
        answer = client.post("/v1/chat/completions", json=body, headers=headers)
        trace = client.get(f"/v1/noria/traces/{answer.headers['x-noria-trace-id']}").json()
        root = trace["spans"][0]
        shapes.append((root["name"], root["attributes"]["http.route"], [child["name"] for child in root["children"]]))
    assert shapes[0] == shapes[1]
