"""Trying a version: values for its variables, a message, and a model that answers with it."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from noria.console._answer import AnswerView
from noria.console._conversation import Answer, start
from noria.console._session import Session
from noria.console._widgets import box, button, panel, text

__all__ = ["try_panel"]

_REFRESH_S = 0.15


def try_panel(session: Session, path: str, version: dict[str, Any]) -> None:
    t = session.t
    with panel(t("prompt.try")) as place:
        fields: dict[str, ui.textarea] = {}
        with box("fields"):
            for name in version["variables"]:
                fields[name] = ui.textarea(name).props("outlined dense autogrow input-style='max-height: 160px'")
        with box("fields"):
            message = ui.textarea(t("prompt.message")).props("outlined dense autogrow input-style='max-height: 160px'")
        with box("search-row"):
            model = ui.select([], label=t("playground.model")).props("outlined dense options-dense").classes("filter grow")
            buttons = box("search-row tight")
        shown = box()

    async def models() -> None:
        with session.reporting():
            cards = (await session.api.get("/v1/noria/models"))["data"]
            usable = [card["id"] for card in cards if card["task"] == "chat" and card["state"] in {"ready", "loaded"}]
            wanted = version["template"].get("model")
            model.set_options(usable, value=wanted if wanted in usable else next(iter(usable), None))

    def values() -> dict[str, str]:
        return {name: field.value or "" for name, field in fields.items()}

    async def preview() -> None:
        with session.reporting():
            body = {"version": str(version["version"]), "variables": values()}
            found = await session.api.post(f"{path}/render", body)
            shown.clear()
            with shown:
                text(t("prompt.becomes"), "section-name", tag="h3")
                for said in found["messages"]:
                    with box(f"message {'from-user' if said['role'] == 'user' else ''}"):
                        text(t.of("role", said["role"]), "role")
                        text(said["content"], "said", tag="div")

    def ask() -> None:
        if not model.value:
            return
        reference = {"id": version["prompt_id"], "version": str(version["version"]), "variables": values()}
        body: dict[str, Any] = {
            "model": model.value,
            "stream": True,
            "stream_options": {"include_usage": True},
            "prompt": reference,
        }
        body["messages"] = [{"role": "user", "content": message.value}] if message.value else []
        answer = Answer(model.value)
        shown.clear()
        with shown:
            view = AnswerView(session, answer)
        start(session.api, body, answer)

        def tick() -> None:
            if view.update() and not answer.running and answer.cost_usd is not None:
                timer.deactivate()

        with place:
            timer = ui.timer(_REFRESH_S, tick)

    with buttons:
        button(t("prompt.preview"), preview, icon="visibility")
        button(t("prompt.ask"), ask, icon="arrow_upward", kind="primary")
    with place:
        ui.timer(0.05, models, once=True)
