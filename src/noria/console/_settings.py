"""Preferences of this browser, API keys, and the instance's settings with where each came from."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nicegui import ui

from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, button, confirm, copyable, dialog, empty, page_head, panel, state, table, text
from noria.console.texts import LANGUAGES
from noria.errors import PermissionDenied

__all__ = ["settings_page"]

_PAGE = 50
_SCOPES = ("inference", "data", "traces", "spans", "admin")
Reload = Callable[[], Awaitable[None]]


async def settings_page(session: Session) -> None:
    t, api = session.t, session.api
    with page_head(t("settings.title")):
        if session.signed_in:
            button(t("settings.sign_out"), partial(_sign_out, session), icon="logout", kind="quiet")
    _preferences(session)
    try:
        settings = (await api.get("/v1/noria/settings"))["data"]
    except PermissionDenied as error:
        empty(t("settings.not_admin"), session.explain(error))
        return
    await _keys_panel(session)
    _settings_panel(session, settings)


def _sign_out(session: Session) -> None:
    session.sign_out()
    session.to_sign_in()


def _preferences(session: Session) -> None:
    t = session.t

    def keep(name: str, value: str) -> None:
        session.store[name] = value
        ui.navigate.reload()

    with panel(t("settings.preferences")), box("search-row"):
        languages = {str(language): title for language, title in LANGUAGES.items()}
        for name, options, value in (
            ("language", languages, session.language),
            ("theme", {theme: t(f"theme.{theme}") for theme in ("auto", "light", "dark")}, session.theme),
        ):
            made = ui.select(options, label=t(f"settings.{name}"), value=value)
            made.on_value_change(lambda event, name=name: keep(name, event.value))
            made.props("outlined dense options-dense").classes("filter")


async def _keys_panel(session: Session) -> None:
    t = session.t

    async def fetch(after: str | None) -> dict[str, Any]:
        return await session.api.get("/v1/noria/keys", {"limit": _PAGE, "after": after})

    with panel(t("keys.title"), actions=lambda: button(t("keys.create"), lambda: _create(session, pages.load), icon="add")):
        pages = Pages(session, fetch, lambda keys: _keys_table(session, keys, pages.load))
    await pages.load()


def _keys_table(session: Session, keys: list[dict[str, Any]], reload: Reload) -> None:
    t = session.t
    if not keys:
        empty(t("keys.none"), t("keys.none_hint"))
        return
    columns = [(t("knowledge.name"), ""), (t("keys.prefix"), ""), (t("keys.scopes"), "wide"), (t("keys.used"), "when wide")]
    body = table([*columns, (t("keys.expires"), "when wide"), (t("traces.status"), ""), ("", "num")])
    for key in keys:
        revoked = key["revoked_at"] is not None
        with body, box(tag="tr"):
            text(key["name"], "name", tag="td")
            text(f"{key['prefix']}…", "mono muted", tag="td")
            text(", ".join(key["scopes"]), "wide muted", tag="td")
            text(session.time(key["last_used_at"]), "when wide", tag="td")
            text(session.time(key["expires_at"]), "when wide", tag="td")
            with box(tag="td"):
                state("off" if revoked else "ok", t("keys.revoked") if revoked else t("keys.active"))
            with box("num", tag="td"):
                if not revoked:
                    button(t("keys.revoke"), partial(_revoke, session, key, reload), kind="quiet")


def _revoke(session: Session, key: dict[str, Any], reload: Reload) -> None:
    t = session.t

    async def go() -> None:
        await session.api.delete(f"/v1/noria/keys/{key['id']}")
        await reload()

    confirm(session, t("keys.revoke_title", name=key["name"]), t("keys.revoke_text"), go, verb=t("keys.revoke"))


def _create(session: Session, reload: Reload) -> None:
    t = session.t
    with dialog(t("keys.create")) as made:
        name = ui.input(t("knowledge.name")).props("outlined dense autofocus maxlength=256")
        scopes = ui.select(list(_SCOPES), multiple=True, label=t("keys.scopes"), value=["inference", "data"])
        scopes.props("outlined dense options-dense use-chips")
        with box("pair"):
            days = ui.number(t("keys.days"), min=1, max=3650, precision=0).props("outlined dense clearable")
            rate = ui.number(t("keys.rate"), min=0, precision=0).props("outlined dense clearable")

        async def create() -> None:
            body: dict[str, Any] = {"name": (name.value or "").strip(), "scopes": list(scopes.value or ())}
            if days.value:
                body["expires_in_days"] = days.value
            if rate.value is not None:
                body["requests_per_minute"] = int(rate.value)
            with session.reporting():
                issued = await session.api.post("/v1/noria/keys", body)
                made.close()
                _show_secret(session, issued)  # first of all: it is shown this once
                await session.stay_owner()
                await reload()

        with box("dialog-actions"):
            button(t("cancel"), made.close)
            button(t("add"), create, kind="primary")


def _show_secret(session: Session, issued: dict[str, Any]) -> None:
    t = session.t
    with dialog(t("keys.created", name=issued["name"])) as made:
        made.props("persistent")
        text(t("keys.once"), tag="p")
        copyable(session, issued["secret"])
        with box("dialog-actions"):
            button(t("keys.kept"), made.close, kind="primary")


def _settings_panel(session: Session, settings: list[dict[str, Any]]) -> None:
    t = session.t
    with panel(t("settings.instance")):
        text(t("settings.how"), "muted small", tag="p")
        body = table([(t("settings.name"), ""), (t("settings.value"), ""), (t("settings.origin"), "wide")], classes="settings")
        for row in settings:
            with body, box(tag="tr"):
                with box(tag="td"):
                    text(row["name"], "mono", tag="div")
                    told = t.of("setting", row["name"])  # a setting not known here comes back as its name
                    text(row["description"] if told == row["name"] else told, "muted small", tag="div")
                value = row["value"] if isinstance(row["value"], str) else json.dumps(row["value"], ensure_ascii=False)
                text("–" if row["value"] is None else value, "mono", tag="td")
                text(t.of("origin", row["origin"]), "wide muted", tag="td")
