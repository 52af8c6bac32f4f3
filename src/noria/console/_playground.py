"""The playground: one prompt to one or two models, with or without documents, streamed side by side."""

from __future__ import annotations

import asyncio

from nicegui import app, ui

from noria.console._answer import AnswerView
from noria.console._choices import choices_panel
from noria.console._conversation import Conversation, Turn
from noria.console._offers import offer
from noria.console._session import Session
from noria.console._widgets import box, button, empty, page_head, text
from noria.errors import NotFound

__all__ = ["playground_page"]

_REFRESH_S = 0.12
_TO_END = "setTimeout(() => { const e = document.querySelector('.turns'); if (e) e.scrollTop = e.scrollHeight; }, 30)"


async def playground_page(session: Session, query: dict[str, str]) -> None:
    t = session.t
    await ui.context.client.connected()
    conversation = _conversation()
    wanted = [query["store"]] if query.get("store") else conversation.choices.stores
    models, stores = await asyncio.gather(session.api.get("/v1/noria/models"), offer(session.api, "/v1/vector_stores", wanted))
    if stores.missing:
        session.notice(NotFound(t("playground.store_gone", id=", ".join(stores.missing))))
    usable = [card for card in models["data"] if card["task"] == "chat" and card["state"] in {"ready", "loaded"}]
    with page_head(t("playground.title")):
        options = button(t("playground.options"), icon="tune", kind="quiet")
        options.classes("phone-only")
        clear = button(t("playground.clear"), icon="delete_sweep", kind="quiet")
    if not usable:
        empty(t("playground.no_model"), t("playground.no_model_hint"), (t("nav.models"), "/models"))
        return
    _choose_defaults(conversation, [card["id"] for card in usable], query)
    with box("playground"):
        with box("talk"):
            page = _Page(session, conversation, query.get("prompt", ""))
            clear.on_click(page.clear)
        with box("choices") as side:
            options.on_click(lambda: side.classes(toggle="open"))
            choices_panel(session, conversation.choices, usable, stores.rows)


def _conversation() -> Conversation:
    """This tab's, which outlives a visit to another page."""
    found = app.storage.tab.get("conversation")
    if not isinstance(found, Conversation):
        found = app.storage.tab["conversation"] = Conversation()
    return found


def _choose_defaults(conversation: Conversation, usable: list[str], query: dict[str, str]) -> None:
    choices = conversation.choices
    if query.get("model") in usable:
        choices.models = [query["model"]]
    choices.models = [model for model in choices.models if model in usable] or [usable[0]]
    if query.get("store"):
        choices.stores = [query["store"]]


class _Page:
    """The turns and the box to write in. Answers under way are drawn by one timer."""

    def __init__(self, session: Session, conversation: Conversation, prompt: str) -> None:
        self._session, self._conversation = session, conversation
        self._views: list[AnswerView] = []
        self._turns = box("turns")
        self._turns.props("role=log aria-live=polite")
        self._compose(prompt)
        self._draw()
        ui.timer(_REFRESH_S, self._tick)

    def _compose(self, prompt: str) -> None:
        t = self._session.t
        with box("compose"):
            self._input = ui.textarea(placeholder=t("playground.placeholder"), value=prompt)
            self._input.props("outlined dense autogrow autofocus input-style='max-height: 220px'").classes("prompt")
            # Enter sends, Shift+Enter is a new line, and an Enter that ends the input of a Chinese word is neither.
            self._input.on(
                "keydown.enter",
                self.send,
                js_handler="(e) => { if (!e.shiftKey && !e.isComposing && e.keyCode !== 229) { e.preventDefault(); emit(); } }",
            )
            with box("compose-buttons"):
                self._again = button("", self.again, icon="refresh", kind="quiet", hint=t("playground.again"))
                self._stop = button(t("playground.stop"), self._conversation.stop, icon="stop")
                self._send = button(t("playground.send"), self.send, icon="arrow_upward", kind="primary")

    def _draw(self) -> None:
        self._turns.clear()
        self._views = []
        with self._turns:
            if not self._conversation.turns:
                empty(self._session.t("playground.empty"), self._session.t("playground.empty_hint"))
            for turn in self._conversation.turns:
                self._show(turn)

    def _show(self, turn: Turn) -> None:
        with box("turn"):
            text(turn.prompt, "prompt-text", tag="div")
            with box(f"answers n{len(turn.answers)}"):
                self._views += [AnswerView(self._session, answer) for answer in turn.answers]

    def send(self) -> None:
        prompt = (self._input.value or "").strip()
        if not prompt or self._conversation.running:
            return
        self._input.value = ""
        if not self._conversation.turns:
            self._turns.clear()
        turn = self._conversation.ask(self._session.api, prompt)
        with self._turns:
            self._show(turn)
        self._scroll()

    def again(self) -> None:
        if self._conversation.running:
            return
        self._conversation.again(self._session.api)
        self._draw()
        self._scroll()

    def clear(self) -> None:
        self._conversation.stop()
        self._conversation.turns.clear()
        self._draw()

    def _scroll(self) -> None:
        ui.run_javascript(_TO_END)

    def _tick(self) -> None:
        running = self._conversation.running
        self._stop.set_visibility(running)
        self._send.set_visibility(not running)
        self._again.set_enabled(bool(self._conversation.turns) and not running)
        if [view.update() for view in self._views].count(True) and running:
            ui.run_javascript(
                "{ const e = document.querySelector('.turns');"
                " if (e && e.scrollHeight - e.scrollTop - e.clientHeight < 160) e.scrollTop = e.scrollHeight; }"
            )
