"""The turns of a wheel as a table, each with its report: Markdown and plots as the API makes them."""

from __future__ import annotations

import base64
import re
from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import ui

from noria.console import _format
from noria.console._figures import p_value, percent
from noria.console._markdown import markdown_html
from noria.console._session import Session
from noria.console._widgets import box, button, dialog, empty, table, text
from noria.console.wheel._list import turn_state

__all__ = ["history_rows"]

_PLOT = re.compile(r"^!\[[^\]]*\]\([^)]*\)\s*$", re.MULTILINE)


def history_rows(session: Session, path: str, turns: list[dict[str, Any]]) -> None:
    t = session.t
    if not turns:
        empty(t("wheel.never"))
        return
    columns = [("", ""), (t("turn.outcome"), ""), (t("turn.gain"), ""), (t("turn.candidate"), "wide")]
    body = table([*columns, (t("turn.began"), "when wide"), (t("turn.took"), "num wide"), ("", "num")])
    for turn in turns:
        with body, box(tag="tr"):
            text(t("wheel.turn_number", number=turn["number"]), "strong num-words", tag="td")
            with box(tag="td"):
                turn_state(session, turn)
            compared = ((turn["data"].get("gate") or {}).get("comparisons") or [None])[0]
            with box("num-words", tag="td"):
                if compared:
                    text(percent(compared["difference"], sign=True))
                    text(f" p = {p_value(compared['p'])}", "muted small not-on-phones")
                else:
                    text("–", "muted")
            with box("wide fill", tag="td"):
                if candidate := turn["data"].get("candidate"):
                    ui.link(candidate, f"/lineage?id={quote(candidate, safe='')}").classes("mono")
            text(session.time(turn["created_at"]), "when wide", tag="td")
            ended = turn["ended_at"]
            text(_format.seconds(ended - turn["created_at"]) if ended else "–", "num wide", tag="td")
            with box("num buttons", tag="td"):
                button(t("turn.report"), partial(_report, session, path, turn), icon="o_description", kind="quiet")


async def _report(session: Session, path: str, turn: dict[str, Any]) -> None:
    t, api = session.t, session.api
    address = f"{path}/turns/{turn['id']}"
    with session.reporting():
        _, told = await api.download(f"{address}/report")
        names = (await api.get(f"{address}/report", {"format": "json"}))["plots"]
        plots = [(await api.download(f"{address}/plots/{name}.svg"))[1] for name in names]
        with dialog(t("wheel.turn_number", number=turn["number"]), wide=True) as made:
            ui.html(markdown_html(_PLOT.sub("", told.decode())), sanitize=True).classes("prose")
            for plot in plots:  # as pictures: whatever stands in one, it cannot run
                encoded = base64.b64encode(plot).decode()
                ui.element("img").classes("plot").props(f'src="data:image/svg+xml;base64,{encoded}" alt=""')
            with box("dialog-actions"):
                lineage = f"/lineage?id={turn['id']}"
                button(t("lineage.title"), lambda: ui.navigate.to(lineage), icon="o_hub", kind="quiet")
                button(t("close"), made.close)
