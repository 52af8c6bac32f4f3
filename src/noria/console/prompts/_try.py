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
_FIELD = "outlined dense autogrow input-style='max-height: 160px'"


def try_panel(session: Session, path: str, version: dict[str, Any]) -> None:
    with panel(session.t("prompt.try")) as place:
        trial = _Trial(session, path, version, place)
        ui.timer(0.05, trial.load_models, once=True)


class _Trial:
    """The panel's fields, and what they lead to below them."""

    def __init__(self, session: Session, path: str, version: dict[str, Any], place: Any) -> None:
        t = session.t
        self._session, self._path, self._version, self._place = session, path, version, place
        with box("fields"):
            self._fields = {name: ui.textarea(name).props(_FIELD) for name in version["variables"]}
        with box("fields"):
            self._message = ui.textarea(t("prompt.message")).props(_FIELD)
        with box("search-row"):
            self._model = ui.select([], label=t("playground.model")).props("outlined dense options-dense").classes("filter grow")
            with box("search-row tight"):
                button(t("prompt.preview"), self._preview, icon="visibility")
                button(t("prompt.ask"), self._ask, icon="arrow_upward", kind="primary")
        self._shown = box()

    async def load_models(self) -> None:
        with self._session.reporting():
            cards = (await self._session.api.get("/v1/noria/models"))["data"]
            usable = [card["id"] for card in cards if card["task"] == "chat" and card["state"] in {"ready", "loaded"}]
            wanted = self._version["template"].get("model")
            self._model.set_options(usable, value=wanted if wanted in usable else next(iter(usable), None))

    def _reference(self) -> dict[str, Any]:
        return {
            "version": str(self._version["version"]),
            "variables": {name: field.value or "" for name, field in self._fields.items()},
        }

    async def _preview(self) -> None:
        t = self._session.t
        with self._session.reporting():
            found = await self._session.api.post(f"{self._path}/render", self._reference())
            self._shown.clear()
            with self._shown:
                text(t("prompt.becomes"), "section-name", tag="h3")
                for said in found["messages"]:
                    with box(f"message {'from-user' if said['role'] == 'user' else ''}"):
                        text(t.of("role", said["role"]), "role")
                        text(said["content"], "said", tag="div")

    def _ask(self) -> None:
        if not self._model.value:
            return
        body: dict[str, Any] = {
            "model": self._model.value,
            "stream": True,
            "stream_options": {"include_usage": True},
            "prompt": {"id": self._version["prompt_id"], **self._reference()},
            "messages": [{"role": "user", "content": self._message.value}] if self._message.value else [],
        }
        answer = Answer(self._model.value)
        self._shown.clear()
        with self._shown:
            view = AnswerView(self._session, answer)
        start(self._session.api, body, answer)

        def tick() -> None:
            if view.update() and not answer.running and answer.cost_usd is not None:
                timer.deactivate()

        with self._place:
            timer = ui.timer(_REFRESH_S, tick)
