"""Answers of servers as JSON or errors, error events, figures, and what a home's files announce."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.client import announced, error_from, event_error, json_of, money, seconds, size
from noria.errors import NoriaError, RateLimited, UpstreamError

URL = "http://127.0.0.1:1"


@given(st.integers(200, 599), st.binary(max_size=40))
def test_whatever_is_answered_is_json_or_an_expected_error(status: int, content: bytes) -> None:
    try:
        json_of(URL, status, content, {})
    except NoriaError:
        return
    assert status < 300


@pytest.mark.parametrize("body", [b"[]", b"7", b'{"error": "no"}', b'{"error": []}', b'{"error": {}}', b"\xff"])
def test_an_error_of_any_shape_is_one(body: bytes) -> None:
    assert "answered 500" in error_from(URL, 500, body, {}).message


def test_an_error_keeps_what_it_says() -> None:
    error = error_from(URL, 429, b'{"error": {"message": "Slowly.", "code": "rate", "param": "x"}}', {"retry-after": "3"})
    assert isinstance(error, RateLimited)
    assert (error.message, error.code, error.param, error.retry_after_s) == ("Slowly.", "rate", "x", 3.0)


def test_a_server_that_sends_one_on_is_no_noria() -> None:
    assert "sends callers on to https://x/" in error_from(URL, 308, b"", {"location": "https://x/"}).message


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"error": {"message": "Died."}}, "Died."),
        ({"type": "error", "message": "Died.", "code": "x"}, "Died."),
        ({"error": "Died."}, "Died."),
        ({"choices": [], "error": None}, None),
        ({"type": "response.failed", "error": {"message": "elsewhere"}}, None),
        ([], None),
    ],
)
def test_error_events_of_both_apis(event: Any, message: str | None) -> None:
    error = event_error(event)
    assert (None if error is None else error.message) == message
    assert error is None or isinstance(error, UpstreamError)


@given(st.floats(0, 1e9))
def test_every_figure_is_short(value: float) -> None:
    assert len(seconds(value)) <= 14
    assert len(size(value * 1000)) <= 10
    assert len(money(value / 1e6)) <= 12


def test_a_file_that_is_none_announces_nothing(tmp_path: Path) -> None:
    file = tmp_path / "server.json"
    assert announced(file) is None
    for content in ("", "[]", "{}", '{"url": "http://x", "pid": "y"}'):
        file.write_text(content)
        assert announced(file) is None
    file.write_text('{"url": "http://x", "pid": 1}')
    assert announced(file) is not None
