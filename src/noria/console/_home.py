"""Home: the state of the instance at a glance, and how to connect a program to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._model_card import progress_words
from noria.console._offers import Offer, offer
from noria.console._session import Session
from noria.console._trace_list import trace_rows
from noria.console._widgets import box, copyable, empty, fact, page_head, panel, state, table, text
from noria.errors import NoriaError

__all__ = ["home_page"]

_DAYS = 14
_STATES = {"loaded": "ok", "ready": "ok", "missing_weights": "warn", "missing_key": "off"}
_ENGINES = {"ready": "ok", "starting": "busy", "restarting": "warn", "stopped": "off", "failed": "error"}


async def home_page(session: Session) -> None:
    t, api = session.t, session.api
    with page_head(t("home.title"), api.endpoint().url):
        pass
    body = box()
    shown: list[Any] = []

    async def load() -> None:
        now = time.time()
        status, models, stores, jobs, days, recent = await asyncio.gather(
            api.get("/v1/noria/status"),
            api.get("/v1/noria/models"),
            offer(api, "/v1/vector_stores", pages=1),
            api.get("/v1/noria/jobs", {"status": "running"}),
            api.get("/v1/noria/traces/stats", {"group_by": "day", "from": now - _DAYS * 86400}),
            api.get("/v1/noria/traces", {"limit": 12}),
        )
        # Redrawn only when something is new: a page kept open stays still.
        fresh = [{**status, "uptime_s": status["uptime_s"] // 60, "spans": None}, models, stores, jobs, days, recent]
        if fresh == shown:
            return
        shown[:] = fresh
        body.clear()
        with body:
            _figures(session, days["data"], now)
            with box("panes"):
                with box("pane grow"):
                    _recent(session, recent["data"])
                    _jobs(session, jobs["data"])
                with box("pane side"):
                    _instance(session, status, models["data"], stores)
                    _connect(session, status)

    async def refresh() -> None:
        try:
            await load()
        except NoriaError:
            return  # the banner tells; what is shown stays

    await load()
    ui.timer(10.0, refresh, immediate=False)


def _figures(session: Session, days: list[dict[str, Any]], now: float) -> None:
    t = session.t
    names = [time.strftime("%Y-%m-%d", time.gmtime(now - back * 86400)) for back in range(_DAYS - 1, -1, -1)]
    by_day = {row["group"]: row for row in days}
    rows = [by_day.get(name, {}) for name in names]
    today = rows[-1]
    tokens = [row.get("input_tokens", 0) + row.get("output_tokens", 0) for row in rows]
    with box("figures"):
        errors = today.get("errors", 0)
        note = t("home.errors", count=errors) if errors else ""
        _figure(t("home.requests"), _format.count(today.get("requests", 0)), note, names, [r.get("requests", 0) for r in rows])
        _figure(t("home.tokens"), _format.count(tokens[-1]), "", names, tokens)
        cost = _format.money(today.get("cost_usd", 0))
        _figure(t("home.cost"), cost, "", names, [r.get("cost_usd", 0) for r in rows])
        p50 = t("home.median", value=_format.seconds(today.get("latency_p50_s"))) if today else ""
        p95 = _format.seconds(today.get("latency_p95_s"))
        _figure(t("home.latency"), p95, p50, names, [r.get("latency_p95_s") for r in rows], line=True)


def _figure(name: str, value: str, note: str, days: Sequence[str], data: Sequence[float | None], *, line: bool = False) -> None:
    with box("figure"):
        text(name, "name")
        with box("value-row"):
            text(value, "value")
            text(note, "muted")
        ui.echart(_chart(name, days, data, line=line)).classes("spark")


def _chart(name: str, days: Sequence[str], data: Sequence[float | None], *, line: bool) -> dict[str, Any]:
    series: dict[str, Any] = {"name": name, "data": [None if v is None else round(v, 6) for v in data], "color": "#2b8ca6"}
    if line:
        series |= {"type": "line", "symbolSize": 4, "connectNulls": True, "lineStyle": {"width": 1.5}}
    else:
        series |= {"type": "bar", "barCategoryGap": "35%", "itemStyle": {"borderRadius": [1, 1, 0, 0]}}
    return {
        "animation": False,
        "grid": {"left": 0, "right": 2, "top": 4, "bottom": 2},
        "xAxis": {
            "type": "category",
            "data": [day[5:] for day in days],
            "axisLabel": {"show": False},
            "axisTick": {"show": False},
            "axisLine": {"lineStyle": {"color": "#8a949e55"}},
        },
        "yAxis": {"type": "value", "show": False, "min": 0},
        "tooltip": {"trigger": "axis", "confine": True, "textStyle": {"fontSize": 12}, "padding": [3, 8]},
        "series": [series],
    }


def _recent(session: Session, traces: list[dict[str, Any]]) -> None:
    t = session.t
    with panel(t("home.recent"), actions=lambda: ui.link(t("home.all_traces"), "/traces")):
        if not traces:
            empty(t("traces.none"), t("traces.none_hint"), (t("traces.try"), "/playground"))
            return
        trace_rows(session, traces)


def _jobs(session: Session, jobs: list[dict[str, Any]]) -> None:
    t = session.t
    if not jobs:
        return
    with panel(t("home.jobs")):
        body = table([(t("job.kind"), ""), (t("job.subject"), ""), (t("job.progress"), "num")])
        for job in jobs:
            with body, box(tag="tr"):
                text(t.of("job", job["kind"]), tag="td")
                text(job["subject"], "mono name", tag="td")
                text(progress_words(session, job), "num", tag="td")


def _instance(session: Session, status: dict[str, Any], models: list[dict[str, Any]], stores: Offer) -> None:
    t = session.t
    usable = [model for model in models if model["state"] in {"ready", "loaded"}]
    engines = {engine["name"]: engine["state"] for engine in status["engines"]}
    with panel(t("home.instance")):
        for model in usable[:8]:
            with box("fact"):
                text(model["id"], "name mono")
                kind = engines.get(model["id"])
                if kind:
                    state(_ENGINES.get(kind, "busy"), t.of("engine", kind))
                else:
                    state(_STATES.get(model["state"], "off"), t.of("state", model["state"]))
        files = f"{sum(store['file_counts']['total'] for store in stores.rows)}{'+' if stores.more else ''}"
        fact(t("home.stores"), t("home.stores_value", stores=stores.count, files=files))
        fact(t("home.version"), status["version"])
        fact(t("home.uptime"), _format.seconds(status["uptime_s"]))
        fact(t("home.database"), status["database"])
        if status["spans"]["lost"] or status["spans"]["error"]:
            fact(t("home.spans"), status["spans"]["error"] or t("home.lost", count=status["spans"]["lost"]), "problem")


def _connect(session: Session, status: dict[str, Any]) -> None:
    t = session.t
    url, model = session.api.endpoint().url + "/v1", status["chat_model"]
    key = "$OPENAI_API_KEY" if status["keys_required"] else "none"
    curl = (
        f"curl {url}/chat/completions \\\n  -H 'content-type: application/json' \\\n"
        + (f'  -H "authorization: Bearer {key}" \\\n' if status["keys_required"] else "")
        + f'''  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}\''''
    )
    given = "" if status["keys_required"] else ', api_key="none"'
    python = (
        f'from openai import OpenAI\nclient = OpenAI(base_url="{url}"{given})\n'
        f'print(client.responses.create(model="{model}", input="Hello").output_text)'
    )
    with panel(t("home.connect")):
        text(t("home.base_url"), "muted label")
        copyable(session, url)
        text("curl", "muted label")
        copyable(session, curl)
        text("Python", "muted label")
        copyable(session, python)
        text(t("home.key_needed" if status["keys_required"] else "home.key_free"), "muted", tag="p")
