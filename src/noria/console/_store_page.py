"""One vector store: its files as they are indexed, and a search that says why."""

from __future__ import annotations

from typing import Any

from nicegui import ui
from nicegui.events import UploadEventArguments

from noria.console import _format
from noria.console._knowledge import file_counts
from noria.console._session import Session
from noria.console._store_files import FileList
from noria.console._store_search import search_panel
from noria.console._widgets import box, button, page_head, panel, text
from noria.errors import NoriaError

__all__ = ["store_page"]

_WATCH_S = 1.5


async def store_page(session: Session, store: str) -> None:
    t = session.t
    found: dict[str, Any] = await session.api.get(f"/v1/vector_stores/{store}")
    with page_head(found["name"] or found["id"], found["description"] or ""):
        ask = f"/playground?store={found['id']}"
        button(t("store.ask"), lambda: ui.navigate.to(ask), icon="chat_bubble_outline")
    facts = box("summary")
    with box("panes store"):
        with box("pane grow"), panel(t("store.files")):
            upload = box()
            files = FileList(session, found["id"])
        with box("pane grow"):
            search_panel(session, found["id"], files)

    async def watch() -> None:
        nonlocal found
        try:
            fresh = await session.api.get(f"/v1/vector_stores/{store}")
            await files.load()
        except NoriaError:
            return  # the banner tells
        found = fresh
        _facts(session, facts, found)

    async def tick() -> None:
        if found["file_counts"]["in_progress"]:
            await watch()

    with upload:
        _upload(session, found["id"], watch)
    _facts(session, facts, found)
    await files.load()
    ui.timer(_WATCH_S, tick, immediate=False)


def _facts(session: Session, place: Any, store: dict[str, Any]) -> None:
    t = session.t
    place.clear()
    with place:
        file_counts(session, store["file_counts"])
        for name, value in (
            (t("knowledge.size"), _format.size(store["usage_bytes"])),
            (t("store.embedder"), store.get("embedding_model")),
            (t("store.expires"), session.time(store["expires_at"]) if store["expires_at"] else None),
        ):
            if value:
                with box(tag="span"):
                    text(name, "muted")
                    text(value)
        text(store["id"], "mono muted")


def _upload(session: Session, store_id: str, changed: Any) -> None:
    """Files go through this process to the API piece by piece; the browser shows how far each has come."""
    t = session.t

    async def take(event: UploadEventArguments) -> None:
        try:
            file = await session.api.upload(event.file.name, event.file.content_type, event.file.iterate())
            await session.api.post(f"/v1/vector_stores/{store_id}/files", {"file_id": file["id"]})
        except NoriaError as error:
            session.notice(error)
        await changed()

    made = ui.upload(multiple=True, auto_upload=True, on_upload=take, label=t("store.drop")).classes("upload")
    made.props("flat bordered color=transparent hide-upload-btn")
    text(t("store.formats"), "muted hint")
