"""The list of wheels, and a new one: what is trained and what counts as good; the rest has defaults, or is TOML."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, button, dialog, empty, page_head, state, table, text

__all__ = ["OUTCOMES", "turn_state", "wheels_page"]

OUTCOMES = {
    "promoted": "ok", "rolled_back": "warn", "rejected": "off", "skipped": "off", "failed": "error", "cancelled": "off",
}  # fmt: skip
_PAGE = 20
_GOOD = ("thumbs_up", "corrections", "labels")


async def wheels_page(session: Session) -> None:
    t = session.t
    with page_head(t("wheels.title")):
        button(t("wheels.create"), partial(_create, session), icon="add", kind="primary")

    async def fetch(after: str | None) -> dict[str, Any]:
        page = await session.api.get("/v1/noria/wheels", {"limit": _PAGE, "after": after})
        details = (session.api.get(f"/v1/noria/wheels/{row['id']}") for row in page["data"])
        return {**page, "data": list(await asyncio.gather(*details))}

    with box("panel"):
        pages = Pages(session, fetch, lambda rows: _draw(session, rows, pages))
    await pages.load()


def turn_state(session: Session, turn: dict[str, Any] | None) -> None:
    """Where a turn stands, in a word."""
    t = session.t
    if turn is None:
        text("–", "muted")
    elif turn["outcome"] and turn["step"] == "end":
        state(OUTCOMES.get(turn["outcome"], "off"), t.of("outcome", turn["outcome"]))
    else:
        state("busy", t(f"turn.step.{turn['step']}"))


def _draw(session: Session, wheels: list[dict[str, Any]], pages: Pages) -> None:
    t = session.t
    if not wheels:
        empty(t("wheels.none"), t("wheels.none_hint"))
        return
    columns = [(t("wheels.name"), ""), (t("wheels.latest"), ""), (t("wheels.base"), "wide"), (t("station.traffic"), "num wide")]
    body = table([*columns, (t("wheels.turns"), "num"), (t("station.promote"), "num wide"), ("", "num")])
    for wheel in wheels:
        with body, box(tag="tr"):
            with box("name", tag="td"):
                ui.link(wheel["name"], f"/wheels/{wheel['name']}")
            with box(tag="td"):
                turn_state(session, wheel["latest_turn"])
            text(wheel["spec"]["base_model"], "wide mono", tag="td")
            text(_format.count(wheel["counts"]["traffic"]), "num wide", tag="td")
            text(_format.count(wheel["counts"]["turns"]), "num", tag="td")
            text(_format.count(wheel["counts"]["promoted"]), "num wide", tag="td")
            with box("num", tag="td"):
                pages.delete_button(
                    f"/v1/noria/wheels/{wheel['id']}", t("wheels.delete", name=wheel["name"]), t("wheels.delete_text")
                )


async def _create(session: Session) -> None:
    t = session.t
    with session.reporting():
        cards = (await session.api.get("/v1/noria/models"))["data"]
        models = [card["id"] for card in cards if card["engine"] == "openvino"]  # what can be trained here
        with dialog(t("wheels.create"), wide=True) as made:
            with box("pair"):
                name = ui.input(t("wheels.name")).props("outlined dense autofocus maxlength=64")
                base = ui.select(models, label=t("wheels.base"), value=next(iter(models), None))
                base.props("outlined dense options-dense")
            text(t("wheels.route_hint"), "muted small", tag="p")
            text(t("wheels.good"), "section-name", tag="h3")
            good = {kind: ui.checkbox(t(f"wheels.good.{kind}"), value=kind != "labels").props("dense") for kind in _GOOD}
            manual = ui.switch(t("wheels.manual"), value=True).props("dense")
            toml = ui.textarea(t("wheels.toml")).props("outlined dense autogrow input-class=mono input-style='max-height: 280px'")

            async def create() -> None:
                body: dict[str, Any] = {"toml": toml.value}
                if not (toml.value or "").strip():
                    spec = {"name": (name.value or "").strip(), "base_model": base.value}
                    counts = {kind: bool(field.value) for kind, field in good.items()}
                    body = {"spec": {**spec, "good": counts, "approval": {"mode": "manual" if manual.value else "auto"}}}
                with session.reporting():
                    wheel = await session.api.post("/v1/noria/wheels", body)
                    made.close()
                    ui.navigate.to(f"/wheels/{wheel['name']}")

            with box("dialog-actions"):
                button(t("cancel"), made.close)
                button(t("add"), create, kind="primary")
