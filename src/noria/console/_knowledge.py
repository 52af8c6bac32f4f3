"""The vector stores: a list, a new one, one less."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, button, dialog, empty, page_head, state, table, text

__all__ = ["knowledge_page"]

_PAGE = 50


async def knowledge_page(session: Session) -> None:
    t = session.t
    with page_head(t("knowledge.title")):
        button(t("knowledge.create"), partial(_create, session), icon="add", kind="primary")

    async def fetch(after: str | None) -> dict[str, Any]:
        return await session.api.get("/v1/vector_stores", {"limit": _PAGE, "after": after})

    with box("panel"):
        pages = Pages(session, fetch, lambda stores: _draw(session, stores, pages))
    await pages.load()


def _draw(session: Session, stores: list[dict[str, Any]], pages: Pages) -> None:
    t = session.t
    if not stores:
        empty(t("knowledge.none"), t("knowledge.none_hint"))
        return
    columns = [(t("knowledge.name"), ""), (t("knowledge.files"), ""), (t("knowledge.size"), "num")]
    body = table([*columns, (t("knowledge.active"), "when wide"), (t("knowledge.id"), "wide"), ("", "num")])
    for store in stores:
        with body, box(tag="tr"):
            with box("name", tag="td"):
                ui.link(store["name"] or store["id"], f"/knowledge/{store['id']}")
            with box(tag="td"):
                file_counts(session, store["file_counts"])
            text(_format.size(store["usage_bytes"]), "num", tag="td")
            text(session.time(store["last_active_at"]), "when wide", tag="td")
            text(store["id"], "mono muted wide", tag="td")
            with box("num", tag="td"):
                pages.delete_button(
                    f"/v1/vector_stores/{store['id']}",
                    t("knowledge.delete", name=store["name"] or store["id"]),
                    t("knowledge.delete_text"),
                )


def file_counts(session: Session, counts: dict[str, int]) -> None:
    """How many files are ready; beside them those under way and those that failed, if any."""
    t = session.t
    with box("counts"):
        text(t("knowledge.ready", count=counts["completed"]))
        if counts["in_progress"]:
            state("busy", t("knowledge.indexing", count=counts["in_progress"]))
        if counts["failed"]:
            state("error", t("knowledge.failed", count=counts["failed"]))


def _create(session: Session) -> None:
    t = session.t
    with dialog(t("knowledge.create")) as made:
        name = ui.input(t("knowledge.name")).props("outlined dense autofocus maxlength=512")
        description = ui.input(t("knowledge.description")).props("outlined dense maxlength=4096")
        days = ui.number(t("knowledge.expires"), min=1, max=365, precision=0).props("outlined dense clearable")

        async def create() -> None:
            body: dict[str, Any] = {"name": (name.value or "").strip()}
            if description.value:
                body["description"] = description.value
            if days.value:
                body["expires_after"] = {"anchor": "last_active_at", "days": int(days.value)}
            with session.reporting():
                store = await session.api.post("/v1/vector_stores", body)
                made.close()
                ui.navigate.to(f"/knowledge/{store['id']}")

        name.on("keydown.enter", create)
        with box("dialog-actions"):
            button(t("cancel"), made.close)
            button(t("add"), create, kind="primary")
