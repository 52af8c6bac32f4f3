"""One wheel: drawn with what flows along its arrows, the turn under way with what a person may ask of it, and its history."""

from __future__ import annotations

import json
from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._figures import percent
from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, button, dialog, empty, fact, page_head, panel, text
from noria.console.wheel._drawing import STATIONS, Flow, draw, states_of
from noria.console.wheel._history import history_rows
from noria.console.wheel._turn import turn_panel
from noria.errors import NoriaError

__all__ = ["flows_of", "wheel_page"]

_WATCH_S = 2.0
_PAGE = 10


async def wheel_page(session: Session, wheel: str) -> None:
    page = _Page(session, wheel)
    await page.load()
    ui.timer(_WATCH_S, page.watch, immediate=False)


class _Page:
    """What is shown of one wheel; redrawn where something has changed."""

    def __init__(self, session: Session, wheel: str) -> None:
        self._session, self._path = session, f"/v1/noria/wheels/{wheel}"
        self._wheel: dict[str, Any] = {}
        self._head = box()
        with box("panes wheel-panes"):
            with box("pane grow"), panel(classes="wheel-panel"):
                self._drawing = ui.html("", sanitize=False)  # made here, every text escaped
            self._turn = box("pane grow")
        with panel(session.t("turn.history")):
            self._history = Pages(session, self._fetch, lambda rows: history_rows(session, self._path, rows))

    async def _fetch(self, after: str | None) -> dict[str, Any]:
        return await self._session.api.get(f"{self._path}/turns", {"limit": _PAGE, "after": after})

    async def load(self) -> None:
        found = await self._session.api.get(self._path)
        if found != self._wheel:
            before, self._wheel = self._wheel, found
            if _head_of(before) != _head_of(found):
                self._draw_head()
            self._draw_wheel()
            self._draw_turn()
        await self._history.load()

    async def watch(self) -> None:
        try:
            await self.load()
        except NoriaError:
            return  # the banner tells

    def _draw_head(self) -> None:
        t, wheel = self._session.t, self._wheel
        self._head.clear()
        with self._head, page_head(wheel["name"], wheel["spec"].get("description", "")):
            if wheel["paused"]:
                text(t("wheel.paused"), "tag warn")
            if wheel["spec"].get("trigger"):
                verb = t("wheel.resume") if wheel["paused"] else t("wheel.pause")
                icon = "play_circle_outline" if wheel["paused"] else "pause_circle_outline"
                button(verb, self._pause, icon=icon, kind="quiet")
            if wheel["dataset_id"]:
                dataset = f"/datasets/{wheel['dataset_id']}"
                button(t("wheel.dataset"), lambda: ui.navigate.to(dataset), icon="dataset", kind="quiet")
            button(t("wheel.spec"), self._edit, icon="tune", kind="quiet")
            start = button(t("wheel.turn"), self._start, icon="autorenew", kind="primary")
            start.set_enabled(wheel["open_turn_id"] is None)

    def _draw_wheel(self) -> None:
        t, wheel = self._session.t, self._wheel
        turn: dict[str, Any] = wheel["latest_turn"] or {"steps": [], "outcome": None}
        open_turn = wheel["open_turn_id"] is not None
        words = {name: t(f"station.{name}") for name in STATIONS}
        states = states_of(turn["steps"], turn["outcome"])
        self._drawing.set_content(
            draw(t("wheel.drawing"), words, flows_of(self._session, wheel["counts"]), states, turning=open_turn)
        )

    def _draw_turn(self) -> None:
        t, wheel = self._session.t, self._wheel
        self._turn.clear()
        with self._turn:
            if wheel["latest_turn"] is None:
                with box("panel"):
                    empty(
                        t("wheel.never"),
                        t("wheel.never_hint", route=wheel["route"]),
                        (t("nav.playground"), f"/playground?model={wheel['route']}"),
                    )
            else:
                turn_panel(self._session, self._path, wheel["latest_turn"], self.load)
            with panel(t("share.title")):
                for model, share in sorted(wheel["counts"]["shares"].items(), key=lambda pair: -pair[1]):
                    with box("share-row"):
                        text(model, "mono")
                        with box("progress"):
                            box("progress-done").style(f"width: {share:.1%}")
                        text(percent(share), "num-words")
                fact(t("wheels.route"), wheel["route"], "mono")
                fact(t("wheels.base"), wheel["spec"]["base_model"], "mono")

    async def _start(self) -> None:
        with self._session.reporting():
            await self._session.api.post(f"{self._path}/turns", {"by": "console"})
            await self.load()

    async def _pause(self) -> None:
        with self._session.reporting():
            await self._session.api.post(self._path, {"paused": not self._wheel["paused"]})
            await self.load()

    def _edit(self) -> None:
        t = self._session.t
        with dialog(t("wheel.spec"), wide=True) as made:
            text(t("wheel.spec_hint"), "muted", tag="p")
            field = ui.textarea(value=json.dumps(self._wheel["spec"], ensure_ascii=False, indent=1))
            field.props("outlined dense autogrow input-class=mono input-style='max-height: 480px'")

            async def save() -> None:
                try:
                    spec = json.loads(field.value or "")
                except ValueError as error:
                    ui.notify(t("playground.bad_json", reason=error), type="negative", position="top")
                    return
                with self._session.reporting():
                    await self._session.api.post(self._path, {"spec": spec})
                    made.close()
                    await self.load()

            with box("dialog-actions"):
                button(t("cancel"), made.close)
                button(t("save"), save, kind="primary")


def flows_of(session: Session, counts: dict[str, Any]) -> dict[str, Flow]:
    """What leaves each station, in words."""
    t, count = session.t, _format.count
    fresh = t("flow.new", count=count(counts["new_feedback"])) if counts["new_feedback"] else ""
    back = t("flow.rolled_back", count=count(counts["rolled_back"])) if counts["rolled_back"] else ""
    passed = t("flow.passed", passed=count(counts["passed"]), gated=count(counts["gated"]))
    return {
        "traffic": Flow(count(counts["feedback"]), t("flow.feedback"), fresh),
        "feedback": Flow(count(counts["rows"]), t("flow.rows")),
        "dataset": Flow(count(counts["trained"]), t("flow.trained")),
        "train": Flow("", passed) if counts["gated"] else Flow("–", ""),
        "gate": Flow(percent(counts["canary_share"]), t("flow.canary")),
        "canary": Flow(count(counts["promoted"]), t("flow.promoted"), back),
        "promote": Flow(count(counts["traffic"]), t("flow.traffic")),
    }


def _head_of(wheel: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(wheel.get(name) for name in ("name", "paused", "dataset_id", "open_turn_id", "spec"))
