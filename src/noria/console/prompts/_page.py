"""One prompt: its versions at the left; the chosen one's template, what it changed, and a place to try it at the right."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from noria.console._diff import diff_view
from noria.console._session import Session
from noria.console._widgets import box, button, dialog, page_head, panel, text
from noria.console.prompts._editor import edit_template
from noria.console.prompts._list import label_tags
from noria.console.prompts._try import try_panel
from noria.prompts import BLOCKS

__all__ = ["prompt_page"]

_MOST = 100


async def prompt_page(session: Session, prompt: str, query: dict[str, str]) -> None:
    page = _Page(session, prompt, query.get("version"))
    await page.load()


class _Page:
    """What is shown of one prompt; `load` draws it anew."""

    def __init__(self, session: Session, prompt: str, wanted: str | None) -> None:
        self._session, self._path, self._wanted = session, f"/v1/noria/prompts/{prompt}", wanted
        self._place = box("column")
        self._prompt: dict[str, Any] = {}
        self._versions: list[dict[str, Any]] = []
        self._chosen: dict[str, Any] = {}

    async def load(self) -> None:
        api = self._session.api
        self._prompt = await api.get(self._path)
        self._versions = (await api.get(f"{self._path}/versions", {"limit": _MOST}))["data"]
        wanted = int(self._wanted) if self._wanted and self._wanted.isdigit() else self._prompt["labels"].get("production")
        self._chosen = next((row for row in self._versions if row["version"] == wanted), self._versions[0])
        self._place.clear()
        with self._place:
            self._draw()

    def _draw(self) -> None:
        t, prompt = self._session.t, self._prompt
        with page_head(prompt["name"], prompt["description"]):
            traces = f"/traces?prompt={prompt['id']}&range=all"
            button(t("prompt.traces"), lambda: ui.navigate.to(traces), icon="account_tree", kind="quiet")
            if prompt["labels"].get("production") and len(prompt["label_moves"]) > 1:
                roll = partial(self._roll_back, "production")
                button(t("prompt.rollback", label="production"), roll, icon="undo", kind="quiet")
            button(t("prompt.edit"), self._edit, icon="edit", kind="primary")
        with box("panes"):
            with box("pane list"):
                with panel(t("prompts.versions")):
                    self._list()
                self._moves()
            with box("pane grow") as self._detail:
                pass
        self._show(self._chosen)

    def _list(self) -> None:
        self._rows: dict[int, Any] = {}
        for version in self._versions:
            with box("list-row") as row:
                row.props("tabindex=0 role=button").on("click", partial(self._show, version)).on(
                    "keydown.enter", partial(self._show, version)
                )
                with box("list-row-head"):
                    text(self._session.t("prompt.version", number=version["version"]), "strong")
                    label_tags(self._prompt["labels"], version["version"])
                text(self._session.time(version["created_at"]), "muted small")
                if version["note"]:
                    text(version["note"], "small")
            self._rows[version["version"]] = row

    def _moves(self) -> None:
        t, moves = self._session.t, self._prompt["label_moves"][-8:]
        undo = t("prompt.undo")
        if not moves:
            return
        with panel(t("prompt.moves")):
            for move in reversed(moves):
                words = t("prompt.move_to", label=move["label"], before=move["from"] or "–", after=move["to"] or "–")
                with box("fact"):
                    text(f"{words} · {undo}" if move["undo"] else words, "name")
                    text(self._session.time(move["at"]), "value muted")

    def _show(self, version: dict[str, Any], event: object = None) -> None:
        self._chosen, self._wanted = version, str(version["version"])
        for number, row in self._rows.items():
            row.classes(add="chosen") if number == version["version"] else row.classes(remove="chosen")
        t = self._session.t
        self._detail.clear()
        with self._detail:
            with panel(t("prompt.version", number=version["version"]), actions=self._label_button):
                _template(self._session, version["template"])
            self._changes = panel_box = box()
            with panel_box:
                self._changes_panel(version)
            try_panel(self._session, self._path, version)

    def _label_button(self) -> None:
        button(self._session.t("prompt.label_here"), self._label, icon="o_label", kind="quiet")

    def _changes_panel(self, version: dict[str, Any]) -> None:
        t = self._session.t
        others = [row["version"] for row in self._versions if row["version"] != version["version"]]
        if not others:
            return
        chosen = version["version"] - 1 if version["version"] - 1 in others else others[0]
        options = {number: t("prompt.version", number=number) for number in others}

        async def compare(older: int) -> None:
            with self._session.reporting():
                found = await self._session.api.get(f"{self._path}/diff", {"from": older, "to": version["version"]})
                place.clear()
                with place:
                    diff_view(self._session, found["diff"])

        def choose() -> None:
            made = ui.select(options, value=chosen, label=t("prompt.compare"), on_change=lambda e: compare(e.value))
            made.props("outlined dense options-dense").classes("filter")

        with panel(t("prompt.changes"), actions=choose):
            place = box()
            ui.timer(0.05, partial(compare, chosen), once=True)

    def _edit(self) -> None:
        async def save(body: dict[str, Any]) -> None:
            made = await self._session.api.post(f"{self._path}/versions", body)
            self._session.done(self._session.t("prompt.saved", number=made["version"]))
            self._wanted = str(made["version"])
            await self.load()

        edit_template(self._session, self._prompt["name"], self._chosen["template"], save)

    def _label(self) -> None:
        t = self._session.t
        with dialog(t("prompt.label_here")) as made:
            text(t("prompt.label_hint"), "muted", tag="p")
            known = sorted({"production", *self._prompt["labels"]})
            field = ui.input(t("prompt.label"), value="production", autocomplete=known).props("outlined dense autofocus")

            async def move() -> None:
                with self._session.reporting():
                    body = {"version": str(self._chosen["version"])}
                    await self._session.api.put(f"{self._path}/labels/{(field.value or '').strip() or '-'}", body)
                    made.close()
                    await self.load()

            with box("dialog-actions"):
                button(t("cancel"), made.close)
                button(t("prompt.move"), move, kind="primary")

    async def _roll_back(self, label: str) -> None:
        with self._session.reporting():
            row = await self._session.api.post(f"{self._path}/labels/{label}/rollback")
            self._session.done(self._session.t("prompt.rolled_back", label=label, number=row["labels"][label]))
            self._wanted = None
            await self.load()


def _template(session: Session, template: dict[str, Any]) -> None:
    t = session.t
    for block in BLOCKS:
        if template.get(block):
            text(t(f"prompt.block.{block}"), "section-name", tag="h3")
            text(template[block], "said", tag="div")
    if template.get("examples"):
        text(t("prompt.examples"), "section-name", tag="h3")
        for example in template["examples"]:
            _message("user", example["input"], t.of("role", "user"))
            _message("assistant", example["output"], t.of("role", "assistant"))
    if template.get("messages"):
        text(t("prompt.messages"), "section-name", tag="h3")
        for message in template["messages"]:
            _message(message["role"], message["content"], t.of("role", message["role"]))
    if template.get("model"):
        text(template["model"], "mono muted small", tag="div")


def _message(role: str, content: str, shown: str) -> None:
    with box(f"message {'from-user' if role == 'user' else ''}"):
        text(shown, "role")
        text(content, "said", tag="div")
