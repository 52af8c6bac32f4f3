"""The list of datasets, a new one, one less."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, button, dialog, empty, page_head, table, text

__all__ = ["datasets_page"]

_PAGE = 25


async def datasets_page(session: Session) -> None:
    t = session.t
    with page_head(t("datasets.title")):
        button(t("datasets.create"), partial(_create, session), icon="add", kind="primary")

    async def fetch(after: str | None) -> dict[str, Any]:
        page = await session.api.get("/v1/noria/datasets", {"limit": _PAGE, "after": after})
        details = (session.api.get(f"/v1/noria/datasets/{row['id']}") for row in page["data"])
        return {**page, "data": list(await asyncio.gather(*details))}

    with box("panel"):
        pages = Pages(session, fetch, lambda rows: _draw(session, rows, pages))
    await pages.load()


def _draw(session: Session, datasets: list[dict[str, Any]], pages: Pages) -> None:
    t = session.t
    if not datasets:
        empty(t("datasets.none"), t("datasets.none_hint"))
        return
    columns = [(t("datasets.name"), ""), (t("datasets.rows"), "num"), (t("datasets.version"), "num")]
    columns += [
        (t("datasets.open_findings"), "num wide"),
        (t("datasets.description"), "wide"),
        (t("datasets.created"), "when wide"),
    ]
    body = table([*columns, ("", "num")])
    for row in datasets:
        open_findings = sum(kinds.get("open", 0) for kinds in row["findings"].values())
        with body, box(tag="tr"):
            with box("name", tag="td"):
                ui.link(row["name"], f"/datasets/{row['id']}")
            text(_format.count(row["newest"]["counts"]["total"] if row["newest"] else 0), "num", tag="td")
            text(row["head"] or "–", "num", tag="td")
            text(_format.count(open_findings) if open_findings else "–", "num wide", tag="td")
            text(row["description"] or "–", "wide fill muted", tag="td")
            text(session.time(row["created_at"]), "when wide", tag="td")
            with box("num", tag="td"):
                pages.delete_button(
                    f"/v1/noria/datasets/{row['id']}", t("datasets.delete", name=row["name"]), t("datasets.delete_text")
                )


def _create(session: Session) -> None:
    t = session.t
    with dialog(t("datasets.create")) as made:
        name = ui.input(t("datasets.name")).props("outlined dense autofocus maxlength=128")
        description = ui.input(t("datasets.description")).props("outlined dense maxlength=4000")
        with box("pair"):
            validation = ui.number(t("datasets.validation_share"), value=0.1, min=0, max=1, step=0.05).props("outlined dense")
            test = ui.number(t("datasets.test_share"), value=0.1, min=0, max=1, step=0.05).props("outlined dense")
        text(t("datasets.shares_hint"), "muted small", tag="p")

        async def create() -> None:
            body = {
                "name": (name.value or "").strip(),
                "description": description.value or "",
                "validation_share": float(validation.value or 0),
                "test_share": float(test.value or 0),
            }
            with session.reporting():
                row = await session.api.post("/v1/noria/datasets", body)
                made.close()
                ui.navigate.to(f"/datasets/{row['id']}")

        name.on("keydown.enter", create)
        with box("dialog-actions"):
            button(t("cancel"), made.close)
            button(t("add"), create, kind="primary")
