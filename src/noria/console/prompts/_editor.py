"""Writing a template: its blocks, examples and messages, with the variables found so far. The API has the last word on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from noria.console._session import Session
from noria.console._widgets import box, button, dialog, text
from noria.errors import NoriaError
from noria.prompts import BLOCKS, names_in

__all__ = ["edit_template"]

Save = Callable[[dict[str, Any]], Awaitable[None]]
_ROLES = ("system", "developer", "user", "assistant")


def edit_template(session: Session, title: str, template: dict[str, Any], save: Save, *, named: bool = False) -> None:
    """Opens the editor; `save` gets `{template, note}`, with `named` also a name and a description."""
    t = session.t
    with dialog(title, wide=True) as made:
        name = description = None
        if named:
            with box("pair"):
                name = ui.input(t("prompts.name")).props("outlined dense autofocus maxlength=128")
                description = ui.input(t("prompts.description")).props("outlined dense maxlength=4000")
        form = _Form(session, template)
        note = ui.input(t("prompt.note")).props("outlined dense maxlength=4000")

        async def go() -> None:
            body: dict[str, Any] = {"template": form.value(), "note": note.value or ""}
            if name is not None and description is not None:
                body |= {"name": (name.value or "").strip(), "description": description.value or ""}
            with session.reporting():
                await save(body)
                made.close()

        with box("dialog-actions"):
            button(t("cancel"), made.close)
            button(t("save"), go, kind="primary")


class _Form:
    """The fields of one template."""

    def __init__(self, session: Session, template: dict[str, Any]) -> None:
        self._t = t = session.t
        self._blocks: dict[str, ui.textarea] = {}
        for block in BLOCKS:
            self._blocks[block] = self._area(
                t(f"prompt.block.{block}"), template.get(block) or "", t(f"prompt.block_hint.{block}")
            )
        self._examples: list[tuple[ui.textarea, ui.textarea]] = []
        self._messages: list[tuple[ui.select, ui.textarea]] = []
        self._example_rows, self._message_rows = box("rows"), box("rows")
        for example in template.get("examples") or ():
            self._add_example(example)
        for message in template.get("messages") or ():
            self._add_message(message)
        with box("search-row"):
            button(t("prompt.add_example"), lambda: self._add_example({}), icon="add", kind="quiet")
            button(t("prompt.add_message"), lambda: self._add_message({}), icon="add", kind="quiet")
        self._model = ui.input(t("prompt.model"), value=template.get("model") or "").props("outlined dense maxlength=256")
        with box("tags"):
            self._found = text("", "muted small")
        self._look()

    def value(self) -> dict[str, Any]:
        found: dict[str, Any] = {block: field.value or "" for block, field in self._blocks.items() if field.value}
        pairs = [{"input": asked.value or "", "output": said.value or ""} for asked, said in self._examples]
        said = [{"role": role.value, "content": content.value or ""} for role, content in self._messages]
        found |= {"examples": [pair for pair in pairs if pair["input"] or pair["output"]]} if pairs else {}
        found |= {"messages": [message for message in said if message["content"]]} if said else {}
        if self._model.value:
            found["model"] = self._model.value.strip()
        return found

    def _area(self, label: str, value: str, hint: str = "") -> ui.textarea:
        made = ui.textarea(label, value=value, on_change=self._look, placeholder=hint)
        return made.props("outlined dense autogrow debounce=300 input-style='max-height: 240px'")

    def _add_example(self, example: dict[str, Any]) -> None:
        with self._example_rows, box("row-fields"):
            asked = self._area(self._t("prompt.example_input"), example.get("input", ""))
            said = self._area(self._t("prompt.example_output"), example.get("output", ""))
        self._examples.append((asked, said))

    def _add_message(self, message: dict[str, Any]) -> None:
        with self._message_rows, box("row-fields role"):
            role = ui.select({name: self._t(f"role.{name}") for name in _ROLES}, value=message.get("role", "user"))
            role.props("outlined dense options-dense")
            content = self._area(self._t("prompt.messages"), message.get("content", ""))
        self._messages.append((role, content))

    def _look(self) -> None:
        """Says which variables there are, or what is wrong with one."""
        if not hasattr(self, "_found"):
            return
        fields = [*self._blocks.values(), *(f for pair in self._examples for f in pair), *(m[1] for m in self._messages)]
        try:
            names = list(dict.fromkeys(name for field in fields for name in names_in(field.value or "")))
        except NoriaError as error:
            self._found.set_text(str(error))
            self._found.classes(add="problem", remove="muted")
            return
        self._found.classes(add="muted", remove="problem")
        hint = self._t("prompt.variables_hint", example="{{name}}")
        self._found.set_text(self._t("prompt.variables", names=", ".join(names)) if names else hint)
