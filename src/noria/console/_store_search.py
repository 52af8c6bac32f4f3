"""Search in a store, and why each passage was found."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._answer import place_words
from noria.console._markdown import marked_html, squeezed
from noria.console._session import Session
from noria.console._store_files import FileList, parse_value, show_text
from noria.console._widgets import box, button, empty, panel, text

__all__ = ["search_panel"]

_OPERATIONS = ("eq", "ne", "gt", "gte", "lt", "lte")
_SIGNS = {"eq": "=", "ne": "≠", "gt": ">", "gte": "≥", "lt": "<", "lte": "≤"}


def search_panel(session: Session, store_id: str, files: FileList) -> None:
    with panel(session.t("search.title")):
        _Search(session, store_id, files)


class _Search:
    def __init__(self, session: Session, store_id: str, files: FileList) -> None:
        self._session, self._store_id, self._files = session, store_id, files
        self._filters: list[dict[str, str]] = []
        t = session.t
        with box("search-row"):
            self._query = ui.input(placeholder=t("search.placeholder")).props("outlined dense clearable").classes("grow")
            self._query.on("keydown.enter", self._run)
            self._most = ui.number(t("search.most"), value=8, min=1, max=50, precision=0).props("outlined dense").classes("most")
            button(t("search.go"), self._run, icon="search", kind="primary")
        self._rows = box("search-filters")
        button(t("search.add_filter"), self._add_filter, icon="filter_list", kind="quiet")
        self._place = box("hits")

    def _add_filter(self) -> None:
        wanted = {"key": "", "type": "eq", "value": ""}
        known = sorted({key for file in self._files.shown for key in file["attributes"] or {}})
        t = self._session.t
        self._filters.append(wanted)
        with self._rows, box("search-row") as row:
            key = ui.input(t("search.attribute"), autocomplete=known).props("outlined dense").classes("grow")
            key.bind_value_to(wanted, "key")
            ui.select(_SIGNS, value="eq").props("outlined dense options-dense").classes("sign").bind_value_to(wanted, "type")
            value = ui.input(t("search.value")).props("outlined dense").classes("grow").on("keydown.enter", self._run)
            value.bind_value_to(wanted, "value")

            def remove() -> None:
                self._filters.remove(wanted)
                row.delete()

            button("", remove, icon="close", kind="quiet", hint=t("delete"))

    def _wanted(self) -> dict[str, Any] | None:
        given = [
            {"type": one["type"], "key": one["key"].strip(), "value": parse_value((one["value"] or "").strip())}
            for one in self._filters
            if (one["key"] or "").strip()
        ]
        if len(given) > 1:
            return {"type": "and", "filters": given}
        return given[0] if given else None

    async def _run(self) -> None:
        query = (self._query.value or "").strip()
        if not query:
            return
        body: dict[str, Any] = {"query": query, "max_num_results": int(self._most.value or 8), "explain": True}
        if filters := self._wanted():
            body["filters"] = filters
        with self._session.reporting():
            started = time.perf_counter()
            page = await self._session.api.post(f"/v1/vector_stores/{self._store_id}/search", body)
            self._show(page["data"], time.perf_counter() - started)

    def _show(self, hits: list[dict[str, Any]], took_s: float) -> None:
        t = self._session.t
        self._place.clear()
        with self._place:
            if not hits:
                empty(t("search.none"), t("search.none_hint"))
                return
            text(t("search.found", count=len(hits), time=_format.seconds(took_s)), "muted small")
            for rank, hit in enumerate(hits, 1):
                self._hit(rank, hit)

    def _hit(self, rank: int, hit: dict[str, Any]) -> None:
        t, why = self._session.t, hit["noria"]
        with box("hit"):
            with box("hit-head"):
                text(rank, "cite")
                text(hit["filename"], "strong")
                text(place_words(self._session, why), "muted small")
            with box("why"):
                text(t("search.score", value=f"{hit['score']:.3f}"))
                _reason(t("search.dense"), why["dense"], "search.cosine", self._session)
                _reason(t("search.text"), why["text"], "search.bm25", self._session)
                if why["matched_words"]:
                    text(t("search.words", words=", ".join(why["matched_words"])))
            if why.get("context"):
                text(why["context"], "muted small", tag="div")
            content = "".join(part["text"] for part in hit["content"])
            ui.html(marked_html(squeezed(content), why["matched_words"]), sanitize=True).classes("hit-text")
            span = (why["start"], why["end"])
            show = partial(show_text, self._session, self._store_id, hit["file_id"], hit["filename"], span)
            button(t("search.source"), show, icon="o_article", kind="quiet")


def _reason(name: str, found: dict[str, Any] | None, score: str, session: Session) -> None:
    if found is None:
        missed = session.t("search.not_found")
        text(f"{name}: {missed}", "muted")
        return
    text(f"{name}: #{found['rank']} · {session.t(score, value=format(found['score'], '.3f'))}")
