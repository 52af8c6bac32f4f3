"""The list of prompts, a new one, one less."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, button, empty, page_head, table, text
from noria.console.prompts._editor import edit_template

__all__ = ["label_tags", "prompts_page"]

_PAGE = 50


async def prompts_page(session: Session) -> None:
    t = session.t

    async def create(body: dict[str, Any]) -> None:
        made = await session.api.post("/v1/noria/prompts", body)
        ui.navigate.to(f"/prompts/{made['id']}")

    with page_head(t("prompts.title")):
        open_editor = partial(edit_template, session, t("prompts.create"), {}, create, named=True)
        button(t("prompts.create"), open_editor, icon="add", kind="primary")

    async def fetch(after: str | None) -> dict[str, Any]:
        return await session.api.get("/v1/noria/prompts", {"limit": _PAGE, "after": after})

    with box("panel"):
        pages = Pages(session, fetch, lambda rows: _draw(session, rows, pages))
    await pages.load()


def _draw(session: Session, prompts: list[dict[str, Any]], pages: Pages) -> None:
    t = session.t
    if not prompts:
        empty(t("prompts.none"), t("prompts.none_hint"))
        return
    columns = [(t("prompts.name"), ""), (t("prompts.versions"), "num"), (t("prompts.labels"), "")]
    body = table([*columns, (t("prompts.description"), "wide"), (t("prompts.created"), "when wide"), ("", "num")])
    for prompt in prompts:
        with body, box(tag="tr"):
            with box("name", tag="td"):
                ui.link(prompt["name"], f"/prompts/{prompt['id']}")
            text(prompt["head"], "num", tag="td")
            with box(tag="td"):
                label_tags(prompt["labels"])
            text(prompt["description"] or "–", "wide fill muted", tag="td")
            text(session.time(prompt["created_at"]), "when wide", tag="td")
            with box("num", tag="td"):
                pages.delete_button(
                    f"/v1/noria/prompts/{prompt['id']}", t("prompts.delete", name=prompt["name"]), t("prompts.delete_text")
                )


def label_tags(labels: dict[str, int], only: int | None = None) -> None:
    """Each label with its version; with `only`, the names of those that point at that version."""
    with box("tags"):
        for label, number in sorted(labels.items()):
            if only is None or number == only:
                text(label if only is not None else f"{label} {number}", f"tag {'strong-tag' if label == 'production' else ''}")
