"""What takes its time: lists whose answers overtake each other, choices beyond the first page, answers that grow long."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from noria.console import _answer, _pages, _span_detail
from noria.console._conversation import Answer
from noria.console._offers import chosen, offer
from noria.console._pages import Pages
from noria.errors import NotFound


class Part:
    """Stands for whatever is drawn: counts, and takes every call."""

    made = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        Part.made += 1
        self.visible, self.word = True, ""

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None: ...

    def set_visibility(self, visible: bool) -> None:
        self.visible = visible

    def set_text(self, word: str) -> None:
        self.word = word

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: self


def session() -> Any:
    return SimpleNamespace(
        t=lambda key, **values: f"{key} {values}", reporting=nullcontext, backend=SimpleNamespace(reachable=True)
    )


class Rows:
    """A list whose answers come when the test says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[str | None, asyncio.Future[dict[str, Any]]]] = []

    async def fetch(self, after: str | None) -> dict[str, Any]:
        self.calls.append((after, asyncio.get_running_loop().create_future()))
        return await self.calls[-1][1]

    def answer(self, call: int, *rows: str) -> None:
        self.calls[call][1].set_result({"data": [{"id": row} for row in rows], "has_more": True, "last_id": rows[-1]})


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> tuple[Pages, Rows, list[list[str]]]:
    monkeypatch.setattr(_pages, "box", Part)
    monkeypatch.setattr(_pages, "button", Part)
    drawn: list[list[str]] = []
    rows = Rows()
    return Pages(session(), rows.fetch, lambda found: drawn.append([row["id"] for row in found])), rows, drawn


async def test_a_slow_answer_to_older_filters_is_dropped(pages: tuple[Pages, Rows, list[list[str]]]) -> None:
    shown, rows, drawn = pages
    old = asyncio.ensure_future(shown.load())
    await asyncio.sleep(0)
    new = asyncio.ensure_future(shown.restart())
    await asyncio.sleep(0)
    rows.answer(1, "new")
    await new
    rows.answer(0, "old")
    await old
    assert drawn == [["new"]]


async def test_refreshing_neither_goes_back_nor_starves(pages: tuple[Pages, Rows, list[list[str]]]) -> None:
    shown, rows, drawn = pages
    first, second, third = (asyncio.ensure_future(shown.load()) for _ in range(3))
    await asyncio.sleep(0)
    rows.answer(0, "a")
    await first  # a later call is under way: this answer is still shown
    rows.answer(2, "c")
    await third
    rows.answer(1, "b")
    await second
    assert drawn == [["a"], ["c"]]


async def test_two_clicks_on_next_turn_one_page(pages: tuple[Pages, Rows, list[list[str]]]) -> None:
    shown, rows, drawn = pages
    load = asyncio.ensure_future(shown.load())
    await asyncio.sleep(0)
    rows.answer(0, "a")
    await load
    clicks = [asyncio.ensure_future(shown._turn(1)) for _ in range(2)]
    await asyncio.sleep(0)
    rows.answer(1, "b")
    await asyncio.gather(*clicks)
    assert [after for after, _ in rows.calls] == [None, "a"]
    assert drawn == [["a"], ["b"]]


class Listed:
    """An API with `number` rows, a page of 100 at a time."""

    def __init__(self, number: int) -> None:
        self.ids = [f"row-{index}" for index in range(number)]

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        if path != "/rows":
            found = path.rpartition("/")[2]
            if found not in self.ids:
                raise NotFound("No.")
            return {"id": found}
        assert params is not None
        start = self.ids.index(params["after"]) + 1 if params["after"] else 0
        part = self.ids[start : start + params["limit"]]
        more = start + len(part) < len(self.ids)
        return {"data": [{"id": each} for each in part], "has_more": more, "last_id": part[-1] if part else None}


async def test_what_was_asked_for_is_offered_wherever_it_stands() -> None:
    found = await offer(Listed(350), "/rows", ["row-349", "gone", "row-3", None], pages=1)
    assert [row["id"] for row in found.rows[100:]] == ["row-349"]
    assert (found.count, found.more, found.missing) == ("101+", True, ("gone",))
    whole = await offer(Listed(350), "/rows")
    assert (len(whole.rows), whole.count) == (350, "350")
    assert (await offer(Listed(0), "/rows")).count == "0"


def test_nothing_else_is_chosen_instead() -> None:
    assert chosen({"a": "A", "b": "B"}, "b") == "b"
    assert chosen({"a": "A"}, "b") is None
    assert chosen({"a": "A"}, None) == "a"
    assert chosen({}, None) is None


def test_a_long_conversation_is_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def button(_: str, action: Any, **__: Any) -> Part:
        asked.append(action)
        return Part()

    monkeypatch.setattr(_span_detail, "box", Part)
    monkeypatch.setattr(_span_detail, "button", button)
    for number in (0, 1, 30, 31, 60):
        drawn: list[int] = []
        _span_detail._in_parts(session(), list(range(number)), drawn.append)
        assert drawn == list(range(number))
    assert asked == []
    drawn = []
    _span_detail._in_parts(session(), list(range(100)), drawn.append)
    assert drawn == [*range(30), *range(70, 100)]
    for _ in range(2):
        asked[0]()
    assert drawn[60:] == list(range(30, 70))


def test_a_growing_answer_is_rendered_the_more_seldom_the_longer_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    rendered: list[int] = []
    monkeypatch.setattr(_answer.time, "monotonic", lambda: now)
    monkeypatch.setattr(_answer, "box", Part)
    monkeypatch.setattr(_answer, "text", Part)
    monkeypatch.setattr(_answer, "ui", SimpleNamespace(html=Part))
    monkeypatch.setattr(_answer, "answer_html", lambda text, _: rendered.append(len(text)) or "")
    answer = Answer("small")
    view = _answer.AnswerView(session(), answer)
    monkeypatch.setattr(view, "_draw_foot", lambda: None)
    for _ in range(1000):  # two minutes of 100,000 characters in all, at the page's eight looks a second
        now += 0.12
        answer.text += "x" * 100
        answer.state = "writing"
        answer.touch()
        view.update()
    assert sum(rendered) < 1000 * 0.12 * 2 * 50_000
    assert len(rendered) < 300
    answer.state = "done"
    answer.touch()
    assert view.update()
    assert rendered[-1] == 100_000
