"""The list of evals, a new one, one less."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, button, empty, page_head, table, text
from noria.console.evals._forms import new_eval

__all__ = ["evals_page"]

_PAGE = 50


async def evals_page(session: Session) -> None:
    t = session.t
    with page_head(t("evals.title")):
        button(t("evals.create"), partial(new_eval, session), icon="add", kind="primary")

    async def fetch(after: str | None) -> dict[str, Any]:
        return await session.api.get("/v1/evals", {"limit": _PAGE, "order": "desc", "after": after})

    with box("panel"):
        pages = Pages(session, fetch, lambda rows: _draw(session, rows, pages))
    await pages.load()


def _draw(session: Session, evals: list[dict[str, Any]], pages: Pages) -> None:
    t = session.t
    if not evals:
        empty(t("evals.none"), t("evals.none_hint"))
        return
    columns = [(t("evals.name"), ""), (t("evals.criteria"), "wide"), (t("evals.created"), "when"), ("", "num")]
    body = table(columns)
    for row in evals:
        with body, box(tag="tr"):
            with box("name", tag="td"):
                ui.link(row["name"] or row["id"], f"/evals/{row['id']}")
            criteria = ", ".join(str(each.get("name") or each.get("type")) for each in row["testing_criteria"])
            text(criteria, "wide fill muted", tag="td")
            text(session.time(row["created_at"]), "when", tag="td")
            with box("num", tag="td"):
                pages.delete_button(
                    f"/v1/evals/{row['id']}", t("evals.delete", name=row["name"] or row["id"]), t("evals.delete_text")
                )
