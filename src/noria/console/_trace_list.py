"""Rows of traces, as home and the traces page show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nicegui import ui
from nicegui.element import Element

from noria.console import _format
from noria.console._session import Session
from noria.console._widgets import box, state, table, text

__all__ = ["trace_rows"]


def _table(session: Session) -> Element:
    t = session.t
    return table(
        [
            (t("traces.time"), "when"),
            (t("traces.name"), ""),
            (t("traces.status"), ""),
            (t("traces.model"), "wide"),
            (t("traces.latency"), "num"),
            (t("traces.tokens"), "num wide"),
            (t("traces.cost"), "num wide"),
            (t("traces.input"), "wide fill"),
        ],
        classes="traces",
    )


def trace_rows(session: Session, traces: Sequence[dict[str, Any]]) -> None:
    """A table with a row for each trace. What stands in it came from outside and is only ever text."""
    t, body = session.t, _table(session)
    for trace in traces:
        with body, box(tag="tr"):
            text(session.time(trace["start_ns"] / 1e9), "when", tag="td")
            with box("name", tag="td"):
                ui.link(trace["name"] or trace["id"][:8], f"/traces/{trace['id']}")
            with box(tag="td"):
                failed = trace["status"] == "error"
                state("error" if failed else "ok", t.of("status", trace["status"]))
            text(trace["model"] or "–", "wide mono name", tag="td")
            text(_format.seconds(trace["duration_ns"] / 1e9), "num", tag="td")
            used = bool(trace["total_tokens"])  # without a model's call there is neither a count nor a price
            tokens = f"{_format.count(trace['input_tokens'])} → {_format.count(trace['output_tokens'])}"
            text(tokens if used else "–", "num wide", tag="td")
            text(_format.money(trace["cost_usd"]) if used or trace["cost_usd"] else "–", "num wide", tag="td")
            text((trace["input_preview"] or "")[:200], "wide fill muted", tag="td")
