"""Spans as nested bars on one time axis. Choosing one, by mouse or arrow keys, tells whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from nicegui.element import Element

from noria.console import _format
from noria.console._session import Session
from noria.console._widgets import box, text

__all__ = ["Waterfall", "flatten", "kind_of"]

_MOST = 400  # rows; beyond, a page gets slow and nobody reads on
_TICKS = 4
_KEYS = """(e) => {
  const step = {ArrowDown: 1, ArrowUp: -1}[e.key];
  if (step) {
    e.preventDefault();
    const rows = [...e.currentTarget.parentElement.querySelectorAll('.span-row')];
    const next = rows[rows.indexOf(e.currentTarget) + step];
    if (next) { next.focus(); next.click(); }
  } else if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); e.currentTarget.click(); }
}"""
Span = dict[str, Any]


def flatten(spans: list[Span]) -> Iterator[tuple[int, Span]]:
    """Depth and span, parents before children. With a stack: a chain may be deeper than Python's."""
    stack = [(0, span) for span in reversed(spans)]
    while stack:
        depth, span = stack.pop()
        yield depth, span
        stack += [(depth + 1, child) for child in reversed(span["children"])]


def kind_of(span: Span) -> str:
    """What colour a bar has: error, model, search, tool, or other."""
    if span["status"] == "error":
        return "error"
    operation = span["operation"] or ""
    if operation in {"chat", "text_completion", "generate_content", "embeddings"}:
        return "model"
    if operation in {"retrieval", "search"} or "search" in span["name"]:
        return "search"
    return "tool" if operation == "execute_tool" else "other"


class Waterfall:
    """Made inside the panel that shows it."""

    def __init__(self, session: Session, trace: dict[str, Any]) -> None:
        rows = list(flatten(trace["spans"]))
        self._rows: list[tuple[Element, Span]] = []
        self._show: Callable[[Span], None] = lambda span: None
        start = min((span["start_ns"] for _, span in rows), default=0)
        end = max((span["start_ns"] + span["duration_ns"] for _, span in rows), default=1)
        self._start, self._extent = start, max(end - start, 1)
        with box("axis"):
            text(session.t("trace.spans"), "axis-name")
            with box("axis-ticks"):
                for tick in range(_TICKS + 1):
                    label = text(_format.seconds(self._extent / 1e9 * tick / _TICKS) if tick else "0", "tick")
                    label.style(f"left: {tick * 100 / _TICKS}%")
        with box("spans"):
            for depth, span in rows[:_MOST]:
                self._row(depth, span)
        if len(rows) > _MOST:
            text(session.t("trace.more", count=len(rows) - _MOST), "muted")

    def on_choose(self, show: Callable[[Span], None]) -> None:
        """Calls `show` with each span chosen, at once with the first."""
        self._show = show
        if self._rows:
            self._choose(*self._rows[0])

    def _row(self, depth: int, span: Span) -> None:
        kind = kind_of(span)
        left = (span["start_ns"] - self._start) / self._extent * 100
        width = span["duration_ns"] / self._extent * 100
        with box("span-row") as row:
            row.props("tabindex=0 role=button")
            with box("span-name").style(f"padding-left: {min(depth, 12) * 14}px"):
                text("", f"swatch {kind}")
                text(span["name"])
            with box("track"):
                box(f"bar {kind}").style(f"left: {left:.3f}%; width: max(2px, {width:.3f}%)")
            text(_format.seconds(span["duration_ns"] / 1e9), "took")
        row.on("click", partial(self._choose, row, span))
        row.on("keydown", js_handler=_KEYS)
        self._rows.append((row, span))

    def _choose(self, row: Element, span: Span) -> None:
        for other, _ in self._rows:
            if "chosen" in other.classes and other is not row:
                other.classes(remove="chosen")
        row.classes("chosen")
        self._show(span)
