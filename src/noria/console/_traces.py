"""The list of traces: filters, pages, and a toggle that keeps it fresh."""

from __future__ import annotations

import time
from typing import Any

from nicegui import ui

from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._trace_list import trace_rows
from noria.console._widgets import box, empty, page_head

__all__ = ["traces_page"]

_RANGES = {"1h": 3600, "24h": 86400, "7d": 7 * 86400, "30d": 30 * 86400, "all": None}
_PAGE = 50
_LIVE_S = 3.0


async def traces_page(session: Session, query: dict[str, str]) -> None:
    t = session.t
    filters: dict[str, Any] = {
        "range": "24h",
        "order": "newest",
        **{k: v for k, v in query.items() if k in {"model", "status", "text", "prompt"}},
        **({"range": query["range"]} if query.get("range") in _RANGES else {}),
    }
    groups = await session.api.get("/v1/noria/traces/stats", {"group_by": "model", "from": time.time() - 30 * 86400})
    models = [row["group"] for row in groups["data"] if row["group"]]

    async def fetch(after: str | None) -> dict[str, Any]:
        span = _RANGES.get(filters["range"])
        chosen = {k: v for k, v in filters.items() if k != "range"}
        since = time.time() - span if span else None
        return await session.api.get("/v1/noria/traces", {**chosen, "from": since, "limit": _PAGE, "after": after})

    def draw(rows: list[dict[str, Any]]) -> None:
        if rows:
            trace_rows(session, rows)
        else:
            empty(t("traces.no_match"), t("traces.no_match_hint"))

    with page_head(t("traces.title")):
        live = ui.switch(t("traces.live")).props("dense")
    bar = box("filters")
    with box("panel"):
        pages = Pages(session, fetch, draw)
    with bar:
        _filters(session, filters, models, pages)
    await pages.load()
    pages.keep_fresh(_LIVE_S, lambda: bool(live.value) and pages.first)


def _filters(session: Session, filters: dict[str, Any], models: list[str], pages: Pages) -> None:
    t = session.t

    def select(name: str, options: dict[str, str], label: str) -> None:
        made = ui.select(options, label=label, value=filters.get(name, ""), on_change=pages.restart)
        made.props("outlined dense options-dense").classes("filter").bind_value_to(filters, name)

    def entry(name: str, label: str, classes: str = "", kind: str = "text") -> None:
        made = ui.input(label, value=str(filters.get(name, "")), on_change=pages.restart)
        made.props(f"outlined dense debounce=400 clearable type={kind}").classes(f"filter {classes}")
        made.bind_value_to(filters, name)

    entry("text", t("traces.text"), "grow")
    select("range", {name: t(f"range.{name}") for name in _RANGES}, t("traces.range"))
    select("status", {"": t("any"), "ok": t("status.ok"), "error": t("status.error")}, t("traces.status"))
    if filters.get("prompt"):
        entry("prompt", t("traces.prompt"))
    select("model", {"": t("any"), **{model: model for model in models}}, t("traces.model"))
    orders = ("newest", "oldest", "slowest", "costliest", "most_tokens")
    select("order", {name: t(f"order.{name}") for name in orders}, t("traces.order"))
    entry("min_latency_s", t("traces.min_latency"), "short", "number")
    entry("min_cost_usd", t("traces.min_cost"), "short", "number")
