"""The frame around every page: navigation, the banner while the API is away, preferences; and which path is which page."""

import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import Response
from fastapi.responses import RedirectResponse
from nicegui import PageArguments, ui

from noria.console._home import home_page
from noria.console._knowledge import knowledge_page
from noria.console._lineage import lineage_page
from noria.console._models import models_page
from noria.console._playground import playground_page
from noria.console._session import Backend, Session
from noria.console._settings import settings_page
from noria.console._sign_in import sign_in_page
from noria.console._store_page import store_page
from noria.console._trace_page import trace_page
from noria.console._traces import traces_page
from noria.console._widgets import box, button, text
from noria.console.datasets import dataset_page, datasets_page
from noria.console.evals import comparison_page, eval_page, evals_page, run_page
from noria.console.prompts import prompt_page, prompts_page
from noria.console.texts import LANGUAGES
from noria.console.tuning import job_page, tuning_page
from noria.console.wheel import wheel_page, wheels_page
from noria.errors import AuthenticationFailed, NoriaError

__all__ = ["add_pages"]

# By what one is about to do: build something, see how it does and make it better, run it.
_NAVIGATION: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("", (("home", "/", "home"),)),
    (
        "build",
        (
            ("playground", "/playground", "chat_bubble_outline"),
            ("prompts", "/prompts", "edit_note"),
            ("knowledge", "/knowledge", "menu_book"),
        ),
    ),
    (
        "improve",
        (
            ("traces", "/traces", "account_tree"),
            ("datasets", "/datasets", "dataset"),
            ("evals", "/evals", "rule"),
            ("tuning", "/tuning", "model_training"),
            ("wheel", "/wheels", "autorenew"),
        ),
    ),
    ("run", (("models", "/models", "memory"), ("settings", "/settings", "tune"))),
)
_ON_PHONES = {"home", "playground", "traces", "wheel"}  # the others are behind `more` there
_VERSION = str(int(time.time()))  # browsers fetch the style anew after an upgrade
_DARK: dict[str, bool | None] = {"auto": None, "light": False, "dark": True}
Builder = Callable[..., Awaitable[None]]
_PAGES: dict[str, Builder] = {
    "/": home_page,
    "/playground": playground_page,
    "/prompts": prompts_page,
    "/prompts/{prompt}": prompt_page,
    "/knowledge": knowledge_page,
    "/knowledge/{store}": store_page,
    "/datasets": datasets_page,
    "/datasets/{dataset}": dataset_page,
    "/evals": evals_page,
    "/evals/{eval}": eval_page,
    "/evals/{eval}/compare": comparison_page,
    "/evals/{eval}/runs/{run}": run_page,
    "/tuning": tuning_page,
    "/tuning/{job}": job_page,
    "/wheels": wheels_page,
    "/wheels/{wheel}": wheel_page,
    "/lineage": lineage_page,
    "/models": models_page,
    "/settings": settings_page,
    "/traces": traces_page,
    "/traces/{trace}": trace_page,
}


def add_pages(backend: Backend) -> None:
    """Registers the pages with NiceGUI, once a process."""

    @ui.page("/sign-in")
    async def sign_in(expired: str = "") -> Response | None:  # pyright: ignore[reportUnusedFunction]
        session = _open(backend)
        if await session.admitted() and backend.reachable:
            return RedirectResponse("/", 303)
        sign_in_page(session, expired=bool(expired))
        return None

    async def root() -> Response | None:
        session = _open(backend)
        if not await session.admitted():
            return RedirectResponse("/sign-in", 303)
        with box("shell"):
            _navigation(session)
            with box("main", "main"):
                _banner(session)
                ui.sub_pages(_routes(session)).classes("content")
        return None

    for path in _PAGES:  # not one pattern for all: an unknown path would build Home only to throw it away
        ui.page(re.sub(r"\{(\w+)\}", r"{_\1}", path))(root)


def _open(backend: Backend) -> Session:
    session = Session(backend)
    ui.add_head_html(f'<link rel="stylesheet" href="/static/console.css?{_VERSION}">')
    ui.add_head_html(f'<script src="/static/console.js?{_VERSION}" defer></script>')
    ui.dark_mode(_DARK.get(session.theme))
    ui.colors(primary="#12708a", positive="#2e7d4f", negative="#b3382c", warning="#9a6700")
    ui.run_javascript(f"document.documentElement.lang = {session.language!r}")
    return session


def _routes(session: Session) -> dict[str, Builder]:
    return {path: _page(session, build) for path, build in _PAGES.items()}


def _page(session: Session, build: Builder) -> Builder:
    """A page whose failure to load is shown in its place, with a way to try again."""

    # NiceGUI looks at this annotation while the program runs, so this module has no postponed ones.
    async def shown(args: PageArguments) -> None:
        if "zone" not in session.store:
            await ui.context.client.connected()
            session.store["zone"] = await ui.run_javascript("Intl.DateTimeFormat().resolvedOptions().timeZone")
        with box("page") as place:
            pass

        async def load() -> None:
            place.clear()
            with place:
                try:
                    await build(session, **args.path_parameters, **_queries(build, args))
                except AuthenticationFailed:
                    session.to_sign_in()
                    return
                except NoriaError as error:
                    session.reload = load
                    _failed(session, error, load)
                    return
            session.reload = None

        await load()

    return shown


def _queries(build: Builder, args: PageArguments) -> dict[str, Any]:
    return {"query": dict(args.query_parameters)} if "query" in build.__annotations__ else {}


def _failed(session: Session, error: NoriaError, again: Callable[[], Any]) -> None:
    with box("empty"):
        text(session.t("error.page"), "strong")
        text(session.explain(error), "muted")
        button(session.t("retry"), again)


def _navigation(session: Session) -> None:
    t = session.t
    with box("nav", "nav"):
        with ui.link(target="/").classes("brand"):
            ui.element("img").classes("mark").props('src="/static/favicon.svg" alt=""')
            text("Noria")
        with box("nav-links"):
            for group, links in _NAVIGATION:
                with box("nav-group"):
                    if group:
                        text(t(f"nav.{group}"), "nav-group-name")
                    for name, path, icon in links:
                        _link(t(f"nav.{name}"), path, icon, "" if name in _ON_PHONES else "not-on-phones")
            with ui.element("button").classes("nav-link phone-only").props("type=button"):
                ui.icon("menu")
                text(t("nav.more"))
                _more_menu(session)
        with box("nav-foot"):
            _language_menu(session)
            _theme_menu(session)


def _link(title: str, path: str, icon: str, classes: str = "") -> None:
    with ui.link(target=path).classes(f"nav-link {classes}").props(f"data-path={path}"):
        ui.icon(icon)
        text(title)


def _more_menu(session: Session) -> None:
    """What a phone's bar has no room for."""
    with ui.menu().props("auto-close").classes("more"):
        for group, links in _NAVIGATION:
            hidden = [link for link in links if link[0] not in _ON_PHONES]
            if group and hidden:
                text(session.t(f"nav.{group}"), "nav-group-name")
            for name, path, icon in hidden:
                _link(session.t(f"nav.{name}"), path, icon)
        with box("search-row"):
            _language_menu(session)
            _theme_menu(session)


def _language_menu(session: Session) -> None:
    with button("", icon="translate", kind="quiet", hint=session.t("settings.language")), ui.menu().props("auto-close"):
        for language, title in LANGUAGES.items():
            ui.menu_item(title, partial(prefer, session, "language", language))


def _theme_menu(session: Session) -> None:
    icons = {"auto": "brightness_auto", "light": "light_mode", "dark": "dark_mode"}
    with (
        button("", icon=icons.get(session.theme, "brightness_auto"), kind="quiet", hint=session.t("settings.theme")),
        ui.menu().props("auto-close"),
    ):
        for theme in _DARK:
            ui.menu_item(session.t(f"theme.{theme}"), partial(prefer, session, "theme", theme))


def prefer(session: Session, name: str, value: str) -> None:
    """Remembers a preference and shows the page with it."""
    session.store[name] = value
    ui.navigate.reload()


def _banner(session: Session) -> None:
    """Comes while the API is away; when it is back, a page that had failed to load is loaded again."""
    with box("banner") as banner:
        banner.props("role=alert")
        text(session.t("error.api_unreachable"))
    banner.set_visibility(False)
    was = {"away": False}

    async def look() -> None:
        away = not session.backend.reachable
        if away != was["away"]:
            was["away"] = away
            banner.set_visibility(away)
            if not away:
                ui.notify(session.t("api_back"), type="positive", position="top", timeout=2000)
                if session.reload is not None:
                    await session.reload()

    ui.timer(1.0, look)
