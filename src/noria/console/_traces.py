"""The list of traces: filters, pages, and a toggle that keeps it fresh."""

from __future__ import annotations

import time
from typing import Any

from nicegui import ui

from noria.console._session import Session
from noria.console._trace_list import fill_traces, trace_table
from noria.console._widgets import box, button, empty, page_head
from noria.errors import NoriaError

__all__ = ["traces_page"]

_RANGES = {"1h": 3600, "24h": 86400, "7d": 7 * 86400, "30d": 30 * 86400, "all": None}
_PAGE = 50
_LIVE_S = 3.0


class _TraceList:
    """The filters, the pages passed, and the rows of the page shown."""

    def __init__(self, session: Session, query: dict[str, str]) -> None:
        self.session = session
        self.filters: dict[str, Any] = {
            "range": "24h",
            "order": "newest",
            **{k: v for k, v in query.items() if k in {"model", "status", "text", "prompt"}},
            **({"range": query["range"]} if query.get("range") in _RANGES else {}),
        }
        self.cursors: list[str | None] = [None]  # of the pages up to the one shown
        self.next: str | None = None
        self.shown: list[dict[str, Any]] | None = None
        self.models: list[str] = []

    def params(self) -> dict[str, Any]:
        chosen = {k: v for k, v in self.filters.items() if k != "range"}
        span = _RANGES.get(self.filters["range"])
        return {**chosen, "from": time.time() - span if span else None, "limit": _PAGE, "after": self.cursors[-1]}

    async def fetch(self) -> list[dict[str, Any]]:
        page = await self.session.api.get("/v1/noria/traces", self.params())
        self.next = page["next_cursor"]
        return page["data"]


async def traces_page(session: Session, query: dict[str, str]) -> None:
    t = session.t
    traces = _TraceList(session, query)
    groups = await session.api.get("/v1/noria/traces/stats", {"group_by": "model", "from": time.time() - 30 * 86400})
    traces.models = [row["group"] for row in groups["data"] if row["group"]]
    with page_head(t("traces.title")):
        live = ui.switch(t("traces.live")).props("dense")

    with box("filters"):
        refresh = _Refresh(traces)
        _filters(session, traces, refresh)
    refresh.place = box("panel")
    with box("pager"):
        refresh.back = button(t("traces.newer"), lambda: refresh.turn(-1), icon="chevron_left", kind="quiet")
        refresh.forth = button(t("traces.older"), lambda: refresh.turn(1), icon="chevron_right", kind="quiet")
    await refresh.load()

    async def tick() -> None:
        if live.value and len(traces.cursors) == 1 and session.backend.reachable:
            try:
                await refresh.load()
            except NoriaError:
                return  # the banner tells

    ui.timer(_LIVE_S, tick, immediate=False)


class _Refresh:
    """Shows what the filters leave."""

    place: Any
    back: ui.button
    forth: ui.button

    def __init__(self, traces: _TraceList) -> None:
        self._traces = traces

    async def load(self) -> None:
        traces, session = self._traces, self._traces.session
        rows = await traces.fetch()
        if rows == traces.shown:
            return
        traces.shown = rows
        self.place.clear()
        with self.place:
            if rows:
                fill_traces(session, trace_table(session), rows)
            else:
                empty(session.t("traces.no_match"), session.t("traces.no_match_hint"))
        self.back.set_enabled(len(traces.cursors) > 1)
        self.forth.set_enabled(traces.next is not None)

    async def restart(self) -> None:
        self._traces.cursors = [None]
        with self._traces.session.reporting():
            await self.load()

    async def turn(self, step: int) -> None:
        traces = self._traces
        if step > 0 and traces.next:
            traces.cursors.append(traces.next)
        elif step < 0 and len(traces.cursors) > 1:
            traces.cursors.pop()
        with traces.session.reporting():
            await self.load()


def _filters(session: Session, traces: _TraceList, refresh: _Refresh) -> None:
    t, filters = session.t, traces.filters

    def select(name: str, options: dict[str, str], label: str) -> None:
        made = ui.select(options, label=label, value=filters.get(name, ""), on_change=refresh.restart)
        made.props("outlined dense options-dense").classes("filter").bind_value_to(filters, name)

    def entry(name: str, label: str, classes: str = "", kind: str = "text") -> None:
        made = ui.input(label, value=str(filters.get(name, "")), on_change=refresh.restart)
        made.props(f"outlined dense debounce=400 clearable type={kind}").classes(f"filter {classes}")
        made.bind_value_to(filters, name)

    entry("text", t("traces.text"), "grow")
    select("range", {name: t(f"range.{name}") for name in _RANGES}, t("traces.range"))
    select("status", {"": t("any"), "ok": t("status.ok"), "error": t("status.error")}, t("traces.status"))
    if filters.get("prompt"):
        entry("prompt", t("traces.prompt"))
    select("model", {"": t("any"), **{model: model for model in traces.models}}, t("traces.model"))
    orders = ("newest", "oldest", "slowest", "costliest", "most_tokens")
    select("order", {name: t(f"order.{name}") for name in orders}, t("traces.order"))
    entry("min_latency_s", t("traces.min_latency"), "short", "number")
    entry("min_cost_usd", t("traces.min_cost"), "short", "number")
