"""Where the API wants a key and none is at hand: takes one, tries it, and keeps it on this side; or takes the owner's address."""

from __future__ import annotations

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from nicegui import ui

from noria.console._session import Backend, Session
from noria.console._visitors import is_direct
from noria.console._widgets import box, button, text
from noria.errors import NoriaError

__all__ = ["enter", "sign_in_page"]


_KEEP = """<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>Noria</title>
<script>location.replace("/")</script><noscript><a href="/">Noria</a></noscript>"""


async def enter(backend: Backend, request: Request) -> Response:
    """Exchanges the secret of a sign-in for the browser's own grant, and takes it out of the address bar.

    A page and no redirect: browsers send a strict cookie with what a page of ours opens, and not along a redirect that another
    program or site began.
    """
    direct = backend.loopback and is_direct(request.client.host if request.client else None, request.headers)
    grant = backend.visitors.redeem(request.query_params.get("token", ""), direct=direct)
    if grant is None:
        return RedirectResponse("/sign-in?expired=1", 303)
    backend.visitors.dismiss(request.session.get("grant"))
    request.session["grant"] = grant
    return HTMLResponse(_KEEP, headers={"cache-control": "no-store"})


def sign_in_page(session: Session, *, expired: bool) -> None:
    t = session.t
    ui.page_title(f"{t('sign_in.title')} · Noria")
    with box("sign-in"), box("panel"):
        text(t("sign_in.title"), tag="h1")
        if expired:
            text(t("sign_in.expired"), "problem", tag="p")
        text(t("sign_in.text"), "muted", tag="p")
        field = ui.input(t("sign_in.key"), password=True).props("outlined dense autofocus autocomplete=off").classes("wide-field")
        problem = text("", "problem")

        async def go() -> None:
            try:
                path = await session.sign_in((field.value or "").strip())
            except NoriaError as error:
                problem.set_text(t("sign_in.refused") if error.code == "invalid_api_key" else session.explain(error))
                return
            ui.navigate.to(path)

        field.on("keydown.enter", go)
        button(t("sign_in.enter"), go, kind="primary")
        if session.direct:
            text(t("sign_in.owner"), "muted small", tag="p")
            text("noria up", "mono small", tag="p")
