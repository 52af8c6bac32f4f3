"""Rows of a version: what goes in at the left, what is expected at the right; one opened shows its sources and can be changed."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from noria.console._feedback import said_of
from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, button, dialog, empty, text

__all__ = ["RowList", "row_box"]

_PAGE = 20
_LONG = 4000
_OWN = ("messages", "tools", "expected", "chosen", "rejected", "metadata")
_ANSWERS = ("expected", "chosen", "rejected")


class RowList:
    """Made inside the panel that shows it; `changed` is called after a row was changed or removed."""

    def __init__(
        self, session: Session, dataset_id: str, version: int, changed: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        t = session.t
        self._session, self._path, self._changed = session, f"/v1/noria/datasets/{dataset_id}", changed
        self._dataset_id = dataset_id
        self._wanted: dict[str, Any] = {"version": version, "split": "", "text": ""}
        with box("filters"):
            words = ui.input(t("dataset.search"), on_change=self._filtered).props("outlined dense debounce=400 clearable")
            words.classes("filter grow").bind_value_to(self._wanted, "text")
            splits = {"": t("any"), **{name: t(f"split.{name}") for name in ("train", "validation", "test")}}
            split = ui.select(splits, value="", label=t("evals.split"), on_change=self._filtered)
            split.props("outlined dense options-dense").classes("filter").bind_value_to(self._wanted, "split")
        self._pages = Pages(session, self._fetch, self._draw)

    async def load(self) -> None:
        await self._pages.load()

    async def _filtered(self) -> None:
        await self._pages.restart()

    async def _fetch(self, after: str | None) -> dict[str, Any]:
        return await self._session.api.get(f"{self._path}/rows", {**self._wanted, "limit": _PAGE, "order": "asc", "after": after})

    def _draw(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            empty(self._session.t("dataset.no_rows"))
        for row in rows:
            row_box(self._session, row, on_open=self._open)

    async def _open(self, row: dict[str, Any]) -> None:
        t = self._session.t
        with self._session.reporting():
            found = await self._session.api.get(f"{self._path}/rows/{row['id']}")
            with dialog(t("dataset.row"), wide=True) as made:
                _sources(self._session, found, self._dataset_id)
                content = {name: found[name] for name in _OWN if found.get(name) not in (None, {}, [])}
                field = ui.textarea(t("dataset.row_json"), value=json.dumps(content, ensure_ascii=False, indent=1))
                field.props("outlined dense autogrow input-class=mono input-style='max-height: 420px'")

                async def save() -> None:
                    try:
                        body = json.loads(field.value or "")
                    except ValueError as error:
                        ui.notify(t("dataset.bad_row", reason=error), type="negative", position="top")
                        return
                    with self._session.reporting():
                        await self._session.api.put(f"{self._path}/rows/{row['id']}", body)
                        await after()

                async def remove() -> None:
                    with self._session.reporting():
                        await self._session.api.post(f"{self._path}/rows", {"remove": [row["id"]]})
                        await after()

                async def after() -> None:
                    made.close()
                    if self._changed is not None:
                        await self._changed()

                with box("dialog-actions"):
                    button(t("dataset.row_remove"), remove, kind="danger")
                    button(t("cancel"), made.close)
                    button(t("save"), save, kind="primary")


def row_box(
    session: Session,
    row: dict[str, Any],
    *,
    note: str = "",
    kind: str = "",
    on_open: Callable[[dict[str, Any]], Any] | None = None,
) -> None:
    """One row; `note` is a word on it with the class `kind`."""
    t = session.t
    with box(f"eval-row {'openable' if on_open else ''}") as place:
        if on_open is not None:
            place.props("tabindex=0 role=button").on("click", lambda: on_open(row)).on("keydown.enter", lambda: on_open(row))
        with box("eval-asked"):
            for message in row.get("messages") or ():
                if message.get("role") in {"system", "developer"}:  # the same for most rows
                    text(_short(said_of(message)), "clamp muted small", tag="div").tooltip(_short(said_of(message))[:600])
                    continue
                with box(f"message {'from-user' if message.get('role') == 'user' else ''}"):
                    text(t.of("role", str(message.get("role"))), "role")
                    text(_short(said_of(message)), "said", tag="div")
            if not row.get("messages"):
                text(t("dataset.erased"), "muted")
        with box("eval-answer"):
            with box("tags"):
                text(t.of("split", row["split"]), "tag")
                if note:
                    text(note, f"tag {kind}")
                for name, value in list((row.get("metadata") or {}).items())[:4]:
                    text(f"{name}={value}"[:60], "tag")
            given = [name for name in _ANSWERS if row.get(name)]
            for name in given:
                text(t(f"dataset.{name}"), "section-name", tag="h3")
                answer = row[name]
                words = said_of(answer) or json.dumps(answer, ensure_ascii=False) if isinstance(answer, dict) else str(answer)
                text(_short(words), "said", tag="div")
            if not given and row.get("messages"):
                text(t("dataset.no_answer"), "muted", tag="div")


def _sources(session: Session, row: dict[str, Any], dataset_id: str) -> None:
    t = session.t
    text(t("dataset.sources"), "section-name", tag="h3")
    with box("tags"):
        for source in row.get("sources") or ():
            for name in ("trace_id", "feedback_id", "completion_id", "file_id"):
                if source.get(name):
                    path = f"/traces/{source[name]}" if name == "trace_id" else f"/lineage?id={source[name]}"
                    word = t(f"source.{name}")
                    ui.link(f"{word} {source[name][:18]}", path).classes("tag")
        if not row.get("sources"):
            text(t("dataset.by_hand"), "muted")


def _short(content: str) -> str:
    return content if len(content) <= _LONG else f"{content[:_LONG]}…"
