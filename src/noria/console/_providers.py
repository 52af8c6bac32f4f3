"""Remote providers and whether they have a key. A key goes in and is never shown again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nicegui import ui

from noria.console._session import Session
from noria.console._widgets import box, button, confirm, dialog, panel, state, table, text

__all__ = ["providers_panel"]

_STATES = {"environment": "ok", "stored": "ok", "not needed": "off", "missing": "off"}
Reload = Callable[[], Awaitable[None]]


def providers_panel(session: Session, providers: list[dict[str, Any]], changed: Reload) -> None:
    t = session.t
    with panel(t("providers.title"), classes="providers"):
        text(t("providers.text"), "muted small", tag="p")
        place = box()

    async def reload() -> None:
        fresh = (await session.api.get("/v1/noria/providers"))["data"]
        place.clear()
        with place:
            _table(session, fresh, reload)
        await changed()

    with place:
        _table(session, providers, reload)


def _table(session: Session, providers: list[dict[str, Any]], reload: Reload) -> None:
    t = session.t
    body = table([(t("models.provider"), ""), (t("providers.address"), "wide"), (t("providers.key"), ""), ("", "num")])
    for provider in providers:
        with body, box(tag="tr"):
            text(provider["title"], tag="td")
            text(provider["base_url"] or provider["base_url_env"] or "–", "mono muted wide", tag="td")
            with box(tag="td"):
                key = provider["key"]
                word = t.of("key", key.replace(" ", "_"))
                state(_STATES.get(key, "off"), f"{word} {provider['key_hint'] or ''}".strip())
            with box("num buttons", tag="td"):
                if not provider["keyless"]:
                    button(t("providers.set"), partial(_set, session, provider, reload), kind="quiet")
                if key == "stored":
                    hint = t("providers.forget")
                    button("", partial(_forget, session, provider, reload), icon="delete_outline", kind="quiet", hint=hint)


def _set(session: Session, provider: dict[str, Any], reload: Reload) -> None:
    t = session.t
    with dialog(t("providers.set_of", name=provider["title"])) as made:
        text(t("providers.set_text", variable=provider["key_env"] or "–"), "muted", tag="p")
        field = ui.input(t("providers.key"), password=True).props("outlined dense autofocus autocomplete=off")

        async def save() -> None:
            with session.reporting():
                await session.api.put(f"/v1/noria/providers/{provider['id']}/credential", {"value": field.value or ""})
                made.close()
                session.done(t("saved"))
                await reload()

        field.on("keydown.enter", save)
        with box("dialog-actions"):
            button(t("cancel"), made.close)
            button(t("save"), save, kind="primary")


def _forget(session: Session, provider: dict[str, Any], reload: Reload) -> None:
    t = session.t

    async def go() -> None:
        await session.api.delete(f"/v1/noria/providers/{provider['id']}/credential")
        session.done(t("deleted"))
        await reload()

    confirm(session, t("providers.forget"), t("providers.forget_text", name=provider["title"]), go, verb=t("delete"))
