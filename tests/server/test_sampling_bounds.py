"""Bounds of sampling fields that keep one request from harming others: refused before any engine sees them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

BODIES: list[dict[str, Any]] = [
    {"prompt": "hello", "repetition_penalty": 1e-40},
    {"prompt": "hello", "repetition_penalty": 1000},
    {"prompt": []},
    {"prompt": [], "stream": True},
    {"prompt": [[]]},
]


@pytest.mark.parametrize("given", BODIES, ids=repr)
def test_what_no_engine_should_see_is_a_400(client: httpx.Client, given: dict[str, Any]) -> None:
    answer = client.post("/v1/completions", json={"model": "scripted", **given})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"].startswith(next(name for name in reversed(given) if name != "stream"))
