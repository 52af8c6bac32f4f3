"""A list shown page by page: what a cursor API gives, with newer and older buttons below. Knows nothing about the rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from nicegui import ui

from noria.console._session import Session
from noria.console._widgets import box, button, confirm
from noria.errors import NoriaError

__all__ = ["Pages"]

Fetch = Callable[[str | None], Awaitable[dict[str, Any]]]
Draw = Callable[[list[dict[str, Any]]], None]


class Pages:
    """`fetch` gets a page behind a cursor, in the API's list shape; `draw` shows its rows in a fresh place.

    Answers may overtake each other: one to an older question (another page, other filters), or older than what is shown, is
    dropped.
    """

    def __init__(self, session: Session, fetch: Fetch, draw: Draw) -> None:
        self._session, self._fetch, self._draw = session, fetch, draw
        self._cursors: list[str | None] = [None]
        self._next: str | None = None
        self.shown: list[dict[str, Any]] | None = None
        self._question = 0  # which page with which filters
        self._asked = 0  # calls so far, and the one whose answer is shown
        self._answered = 0
        self._place = box()
        with box("pager") as self._pager:
            self._back = button(session.t("pages.back"), lambda: self._turn(-1), icon="chevron_left", kind="quiet")
            self._forth = button(session.t("pages.forth"), lambda: self._turn(1), icon="chevron_right", kind="quiet")

    @property
    def first(self) -> bool:
        return len(self._cursors) == 1

    async def load(self) -> None:
        """The page again; redrawn only where something has changed."""
        self._asked += 1
        asked, question = self._asked, self._question
        page = await self._fetch(self._cursors[-1])
        if question != self._question or asked < self._answered:
            return
        self._answered = asked
        rows = page["data"]
        self._next = (page.get("next_cursor") or page.get("last_id")) if page["has_more"] else None
        self._pager.set_visibility(not self.first or self._next is not None)
        self._back.set_enabled(not self.first)
        self._forth.set_enabled(self._next is not None)
        if rows == self.shown:
            return
        self.shown = rows
        self._place.clear()
        with self._place:
            self._draw(rows)

    async def restart(self) -> None:
        """From the first page, after a filter has changed."""
        self._cursors, self.shown = [None], None
        self._question += 1
        with self._session.reporting():
            await self.load()

    def keep_fresh(self, interval_s: float, when: Callable[[], bool]) -> None:
        """Loads the page again every so often while `when` holds. Failures are the banner's to tell."""

        async def tick() -> None:
            if when() and self._session.backend.reachable:
                with suppress(NoriaError):
                    await self.load()

        ui.timer(interval_s, tick, immediate=False)

    def delete_button(self, path: str, question: str, explanation: str) -> None:
        """A row's button that deletes what is at `path`, once it was asked."""
        t = self._session.t

        async def delete() -> None:
            await self._session.api.delete(path)
            self._session.done(t("deleted"))
            await self.load()

        def ask() -> None:
            confirm(self._session, question, explanation, delete, verb=t("delete"))

        button("", ask, icon="delete_outline", kind="quiet", hint=t("delete"))

    async def _turn(self, step: int) -> None:
        if step > 0 and self._next:
            self._cursors.append(self._next)
        elif step < 0 and not self.first:
            self._cursors.pop()
        else:
            return
        self._question += 1
        self._next = None  # until the page has come: a second click goes no further
        with self._session.reporting():
            await self.load()
