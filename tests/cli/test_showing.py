"""What people see: widths, tables, citations, waterfalls."""

from __future__ import annotations

import io
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from noria.cli import _show
from noria.cli._answering import number_citations
from noria.cli._harmless import harmless_streams
from noria.cli._show import Column, duration, fit, money, size, table
from noria.cli._terminal import Rewritable, rows_of
from noria.cli._trace_views import bar, outline

from .conftest import Run


@given(st.lists(st.tuples(st.integers(1, 120), st.booleans()), min_size=1, max_size=8), st.integers(20, 200))
def test_columns_fit_if_those_that_may_shrink_can_make_room(columns: list[tuple[int, bool]], room: int) -> None:
    natural, may = [width for width, _ in columns], [shrinks for _, shrinks in columns]
    widths = fit(natural, may, room)
    assert all(width <= was for width, was in zip(widths, natural, strict=True))
    assert all(width == was for width, was, shrinks in zip(widths, natural, may, strict=True) if not shrinks)
    least = sum(min(was, 8) if shrinks else was for was, shrinks in columns)
    assert sum(widths) <= max(room, least)


def test_a_table_fits_80_columns_with_chinese_and_leaves_empty_columns_out(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    columns = (Column("NAME", shrink=True), Column("NOTHING"), Column("SIZE", "right"), Column("ID"))
    rows = [("水车说明书" * 20, "", "12 kB", "id_1"), ("short", "", "1.2 MB", "id_2")]
    table(columns, rows, empty="none")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "NOTHING" not in lines[0]
    assert all(cell_len(line) <= 80 for line in lines)
    assert {cell_len(line[: line.index("id_")]) for line in lines[1:]} == {cell_len(lines[0][: lines[0].index("ID")])}
    assert "…" in lines[1]


def test_figures() -> None:
    assert [duration(each) for each in (0.00034, 0.0123, 1.5, 125, 7300)] == [
        "340 µs",
        "12 ms",
        "1.50 s",
        "2 min 05 s",
        "2 h 01 min",
    ]
    assert [size(each) for each in (12, 98_000_000, None)] == ["12 B", "98.0 MB", ""]
    assert [money(each) for each in (0, 0.00012, 3, None)] == ["$0", "$0.00012", "$3.00", ""]


def test_what_is_shown_on_a_terminal_keeps_its_colours_and_loses_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    for name in ("NO_COLOR", "COLORTERM", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", screen)
    _show.out.cache_clear()
    with harmless_streams():
        table([Column("A", style="dim"), Column("B")], [("x\x1b[31m", "\x9by")], empty="")
        print("\x1b[2J")
    _show.out.cache_clear()
    assert "\x1b[2m" in screen.getvalue()  # its own style
    for foreign in ("\x1b[31m", "\x9b", "\x1b[2J"):
        assert foreign not in screen.getvalue()


def test_line_ends_of_other_systems_are_line_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", screen)
    with harmless_streams():
        for piece in ("one\r\ntwo\r", "\nthr\ree\r", "", "\r", "\n", "end\r"):
            print(piece, end="", flush=True)
        streamed = Rewritable(sys.stdout, live=True)
        for piece in ("a\r", "\nb"):
            streamed.write(piece)
        streamed.replace("a\r\nb")
    assert screen.getvalue() == "one\ntwo\nthr\ufffdee\nenda\nb\n\ufffd"


def test_citations_are_numbered_as_the_server_says_and_marked_once() -> None:
    text = "Water lifts it. It is old [2]. Nobody knows."
    notes = [
        {"index": 15, "file_id": "f1", "filename": "a.md", "noria": {"number": 1, "quote": "water\nlifts", "page": 3}},
        {"index": 29, "file_id": "f2", "filename": "b.md", "noria": {"number": 2, "quote": "old", "heading_path": ["A", "B"]}},
    ]
    shown, sources = number_citations(text, notes)
    assert shown == "Water lifts it. [1] It is old [2]. Nobody knows."
    assert [(s.number, s.filename, s.place, s.quotes) for s in sources] == [
        (1, "a.md", "page 3", ("water lifts",)),
        (2, "b.md", "A › B", ("old",)),
    ]


@given(st.text("ab. 水", max_size=40), st.lists(st.tuples(st.integers(0, 50), st.integers(1, 3)), max_size=6))
def test_marks_change_nothing_else(text: str, cited: list[tuple[int, int]]) -> None:
    notes = [{"index": index, "file_id": f"f{number}", "noria": {"number": number}} for index, number in cited]
    shown, sources = number_citations(text, notes)
    assert re.sub(r" ?(\[\d\])+", "", shown) == text
    assert {source.number for source in sources} == {number for _, number in cited}


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 40))
def test_a_bar_is_always_seen_and_never_leaves_its_place(start: int, length: int, more: int, width: int) -> None:
    drawn = bar(start, length, start + length + more, width)
    assert len(drawn) == width
    assert "█" in drawn
    assert "█ █" not in drawn


def rows_by_cells(text: str, width: int) -> int:
    """The slow reference: a screen that is filled cell by cell."""
    rows = 0
    for line in text.split("\n"):
        rows += 1
        used = 0
        for character in line:
            cells = cell_len(character)
            if used + cells > width:
                rows += 1
                used = 0
            used += cells
    return rows


@given(st.text("ab 水，\n", max_size=120), st.integers(2, 20))
def test_rows_on_a_terminal(text: str, width: int) -> None:
    assert rows_of(text, width) == rows_by_cells(text, width)


def test_text_is_rewritten_in_place_where_it_is_in_sight() -> None:
    stream = io.StringIO()
    shown = Rewritable(stream, live=True)
    shown.write("one\ntwo")
    shown.replace("one\ntwo [1]")
    assert stream.getvalue() == "one\ntwo\r\x1b[1A\x1b[Jone\ntwo [1]\n"
    quiet = io.StringIO()
    shown = Rewritable(quiet, live=False)
    shown.write("one")
    shown.replace("one [1]")
    assert quiet.getvalue() == "one [1]\n"


def test_json_is_outlined_for_people() -> None:
    value = {"messages": [{"role": "user", "content": "Hi"}], "k": 3, "text": "a\nb", "on": True}
    assert list(outline(value)) == ["messages:", "  - user: Hi", "k: 3", "text:", "  a", "  b", "on: true"]
