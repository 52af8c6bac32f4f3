"""Where the API wants a key and none is at hand: takes one, tries it, and keeps it on this side for the browser's session."""

from __future__ import annotations

from nicegui import ui

from noria.console._session import Session
from noria.console._widgets import box, button, text
from noria.errors import NoriaError

__all__ = ["sign_in_page"]


def sign_in_page(session: Session) -> None:
    t = session.t
    ui.page_title(f"{t('sign_in.title')} · Noria")
    with box("sign-in"), box("panel"):
        text(t("sign_in.title"), tag="h1")
        text(t("sign_in.text"), "muted", tag="p")
        field = ui.input(t("sign_in.key"), password=True).props("outlined dense autofocus autocomplete=off").classes("wide-field")
        problem = text("", "problem")

        async def enter() -> None:
            session.sign_in((field.value or "").strip())
            try:
                await session.api.get("/v1/noria/status")
            except NoriaError as error:
                session.sign_out()
                problem.set_text(session.explain(error))
                return
            ui.navigate.to("/")

        field.on("keydown.enter", enter)
        button(t("sign_in.enter"), enter, kind="primary")
