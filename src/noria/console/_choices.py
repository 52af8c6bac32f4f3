"""The playground's side: which models, with which parameters, from which documents."""

from __future__ import annotations

import json
from typing import Any

from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from noria.console._conversation import Choices
from noria.console._session import Session
from noria.console._widgets import box, text

__all__ = ["choices_panel"]


def choices_panel(session: Session, choices: Choices, models: list[dict[str, Any]], stores: list[dict[str, Any]]) -> None:
    t = session.t
    _models(session, choices, [model["id"] for model in models])
    known = {store["id"]: store["name"] or store["id"] for store in stores}
    choices.stores = [store for store in choices.stores if store in known]
    if known:
        made = ui.select(
            known, multiple=True, label=t("playground.stores"), value=choices.stores, clearable=True, with_input=True
        )
        made.props("outlined dense options-dense use-chips").bind_value_to(choices, "stores", forward=lambda v: list(v or ()))
    else:
        with box("note"):
            text(t("playground.no_stores"), "muted")
            ui.link(t("nav.knowledge"), "/knowledge")
    system = ui.textarea(t("playground.system"), value=choices.system).props("outlined dense autogrow")
    system.bind_value_to(choices, "system", forward=lambda v: (v or "").strip())
    with box("pair"):
        _number(choices, "temperature", t("playground.temperature"), 0, 2, 0.1)
        _number(choices, "top_p", t("playground.top_p"), 0, 1, 0.05)
    with box("pair"):
        _number(choices, "max_tokens", t("playground.max_tokens"), 1, 1_000_000, 1, whole=True)
        seed = _number(choices, "seed", t("playground.seed"), -(2**53), 2**53, 1, whole=True)
        # The Responses API, which answers from documents, has no seed.
        seed.bind_enabled_from(choices, "stores", backward=lambda stores: not stores)
    _schema(session, choices)


def _models(session: Session, choices: Choices, names: list[str]) -> None:
    t = session.t
    off = {"": t("playground.one_model")}

    def choose(_: ValueChangeEventArguments[Any] | None = None) -> None:
        choices.models = [first.value, *([second.value] if second.value else [])]

    first = ui.select(names, label=t("playground.model"), value=choices.models[0], on_change=choose)
    first.props("outlined dense options-dense")
    beside = choices.models[1] if len(choices.models) > 1 else ""
    second = ui.select({**off, **{n: n for n in names}}, label=t("playground.beside"), value=beside, on_change=choose)
    second.props("outlined dense options-dense")


def _number(choices: Choices, name: str, label: str, low: float, high: float, step: float, *, whole: bool = False) -> ui.number:
    made = ui.number(label, value=getattr(choices, name), min=low, max=high, step=step, precision=0 if whole else None)
    made.props("outlined dense clearable")

    def forward(value: float | None) -> float | int | None:
        return None if value is None else int(value) if whole else float(value)

    return made.bind_value_to(choices, name, forward=forward)


def _schema(session: Session, choices: Choices) -> None:
    t = session.t

    def check(given: str | None) -> str | None:
        if not (given or "").strip():
            choices.schema = None
            return None
        try:
            found = json.loads(given or "")
        except ValueError as error:
            choices.schema = None
            return t("playground.bad_json", reason=str(error))
        if not isinstance(found, dict):
            choices.schema = None
            return t("playground.not_object")
        choices.schema = found
        return None

    shown = json.dumps(choices.schema, ensure_ascii=False, indent=2) if choices.schema else ""
    field = ui.textarea(
        t("playground.schema"), value=shown, validation=check, placeholder='{"type": "object", "properties": {…}}'
    )
    field.props("outlined dense autogrow input-class=mono input-style='max-height: 240px'")
