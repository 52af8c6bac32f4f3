"""The files of a store: each one's state, its attributes, its extracted text, and taking it out."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, button, confirm, dialog, empty, state, table, text

__all__ = ["FileList", "show_text"]

_STATES = {"completed": "ok", "in_progress": "busy", "failed": "error", "cancelled": "off"}
_PAGE = 50
_LONG = 300_000  # characters of extracted text that a page shows
_TO_MARK = "setTimeout(() => document.querySelector('.source-text mark')?.scrollIntoView({block: 'center'}), 250)"
_AROUND = 20_000  # characters before and after a passage


class FileList:
    """Made inside the panel that shows it. `load` redraws only what has changed."""

    def __init__(self, session: Session, store_id: str) -> None:
        self._session, self._store_id = session, store_id
        self._path = f"/v1/vector_stores/{store_id}/files"
        self._pages = Pages(session, self._fetch, self._draw)

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The files of the page that is seen."""
        return self._pages.shown or []

    async def load(self) -> None:
        await self._pages.load()

    async def _fetch(self, after: str | None) -> dict[str, Any]:
        return await self._session.api.get(self._path, {"limit": _PAGE, "after": after})

    def _draw(self, files: list[dict[str, Any]]) -> None:
        if files:
            self._table(files)
        else:
            empty(self._session.t("store.none"), self._session.t("store.none_hint"))

    def _table(self, files: list[dict[str, Any]]) -> None:
        t = self._session.t
        columns = [(t("store.file"), ""), (t("traces.status"), ""), (t("store.passages"), "num wide")]
        body = table([*columns, (t("store.attributes"), "wide"), ("", "num")])
        for file in files:
            with body, box(tag="tr"):
                with box(tag="td"):
                    text(_name(file), "file-name", tag="div")
                    if file["last_error"]:
                        text(file["last_error"]["message"], "problem small", tag="div")
                with box(tag="td"):
                    state(_STATES.get(file["status"], "off"), t.of("file", file["status"]))
                text(_format.count(file.get("num_passages")), "num wide", tag="td")
                attributes = ", ".join(f"{k}={_written(v)}" for k, v in (file["attributes"] or {}).items())
                text(attributes or "–", "wide muted small", tag="td")
                with box("num buttons", tag="td"):
                    self._buttons(file)

    def _buttons(self, file: dict[str, Any]) -> None:
        t = self._session.t
        if file["status"] == "completed":
            show = partial(show_text, self._session, self._store_id, file["id"], _name(file))
            button("", show, icon="o_article", kind="quiet", hint=t("store.text"))
        button("", partial(self._edit, file), icon="o_label", kind="quiet", hint=t("store.attributes"))
        button("", partial(self._ask_delete, file), icon="delete_outline", kind="quiet", hint=t("delete"))

    def _ask_delete(self, file: dict[str, Any]) -> None:
        t = self._session.t

        async def delete() -> None:
            await self._session.api.delete(f"{self._path}/{file['id']}", {"delete_upload": "true"})
            await self.load()

        confirm(self._session, t("store.delete", name=_name(file)), t("store.delete_text"), delete, verb=t("delete"))

    def _edit(self, file: dict[str, Any]) -> None:
        t = self._session.t
        with dialog(t("store.attributes_of", name=_name(file))) as made:
            text(t("store.attributes_hint"), "muted", tag="p")
            shown = "\n".join(f"{key} = {_written(value)}" for key, value in (file["attributes"] or {}).items())
            field = ui.textarea(value=shown, placeholder="year = 2026\nteam = hr").props("outlined dense autogrow autofocus")

            async def save() -> None:
                with self._session.reporting():
                    attributes = parse_attributes(field.value or "")
                    await self._session.api.post(f"{self._path}/{file['id']}", {"attributes": attributes})
                    made.close()
                    await self.load()

            with box("dialog-actions"):
                button(t("cancel"), made.close)
                button(t("save"), save, kind="primary")


def parse_attributes(given: str) -> dict[str, str | float | bool]:
    """`key = value` a line; a value is true, false, a number, or else text (in quotes, if it looks like one of those)."""
    found: dict[str, str | float | bool] = {}
    for line in given.splitlines():
        name, _, value = line.partition("=")
        if name.strip():
            found[name.strip()] = parse_value(value.strip())
    return found


def parse_value(given: str) -> str | float | bool:
    try:
        value = json.loads(given)
    except ValueError:
        return given
    return value if isinstance(value, str | bool | int | float) else given


def _written(value: Any) -> str:
    """So that `parse_value` gives the same back; whole numbers without the API's `.0`."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str) and parse_value(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _name(file: dict[str, Any]) -> str:
    return str(file.get("filename") or file["id"])


async def show_text(
    session: Session, store_id: str, file_id: str, name: str, span: tuple[int, int] | None = None, event: object = None
) -> None:
    """The text that was extracted, as it is searched; `span` is marked in it and scrolled to."""
    with session.reporting():
        found = await session.api.get(f"/v1/vector_stores/{store_id}/files/{file_id}/content")
        content = "".join(part["text"] for part in found["data"])
        start, end = span or (0, 0)
        first, last = max(0, start - _AROUND), (end + _AROUND if span else _LONG)
        with dialog(name, wide=True) as made:
            with box("passage source-text"):
                text(("…" if first else "") + content[first:start])
                if span:
                    text(content[start:end], tag="mark")
                text(content[end:last] + ("…" if last < len(content) else ""))
            with box("dialog-actions"):
                button(session.t("close"), made.close)
        if span:
            ui.run_javascript(_TO_MARK)
