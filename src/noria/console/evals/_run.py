"""One run: each criterion with its interval, where labels were confused, and every row that was asked."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._figures import interval_bar, interval_words, percent
from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, button, page_head, panel, state, table, text
from noria.console.evals._page import RUN_STATES, source_words
from noria.console.evals._row import row_view
from noria.errors import NoriaError

__all__ = ["run_page"]

_PAGE = 10
_WATCH_S = 2.0
_SHOWN = ("all", "pass", "fail", "error")


async def run_page(session: Session, eval: str, run: str) -> None:
    page = _Run(session, f"/v1/evals/{eval}/runs/{run}")
    await page.load()
    ui.timer(_WATCH_S, page.watch, immediate=False)


class _Run:
    def __init__(self, session: Session, path: str) -> None:
        self._session, self._path = session, path
        self._only = "all"
        self._run: dict[str, Any] = {}
        self._head, self._results = box(), box()
        with panel(session.t("run.items"), actions=self._filter):
            self._items = Pages(session, self._fetch, self._draw_items)

    def _filter(self) -> None:
        t = self._session.t
        made = ui.select({name: t(f"run.only.{name}") for name in _SHOWN}, value="all", on_change=self._filtered)
        made.props("outlined dense options-dense").classes("filter").bind_value_to(self, "_only")

    async def _filtered(self) -> None:
        await self._items.restart()

    async def load(self) -> None:
        found = await self._session.api.get(self._path)
        if found != self._run:
            self._run = found
            self._draw()
        await self._items.load()

    async def watch(self) -> None:
        if self._run["status"] in {"queued", "in_progress"}:
            try:
                await self.load()
            except NoriaError:
                return  # the banner tells

    async def _fetch(self, after: str | None) -> dict[str, Any]:
        status = None if self._only == "all" else self._only
        return await self._session.api.get(f"{self._path}/output_items", {"limit": _PAGE, "after": after, "status": status})

    def _draw(self) -> None:
        t, run = self._session.t, self._run
        self._head.clear()
        with self._head, page_head(run["name"] or run["model"] or run["id"], source_words(self._session, run["data_source"])):
            ui.link(t("evals.runs"), f"/evals/{run['eval_id']}")
            if run["status"] in {"queued", "in_progress"}:
                button(t("run.cancel"), self._cancel, icon="stop")
            else:
                button(t("run.again"), self._again, icon="refresh")
        self._results.clear()
        with self._results:
            self._summary()
            self._confusions()

    def _summary(self) -> None:
        t, run = self._session.t, self._run
        statistics, counts = run["noria"]["statistics"] or {}, run["result_counts"]
        with panel(t("run.results")):
            with box("summary"):
                state(RUN_STATES.get(run["status"], "busy"), t.of("run", run["status"]))
                text(t("evals.of", passed=_format.count(counts.get("passed", 0)), total=_format.count(counts.get("total", 0))))
                if counts.get("errored"):
                    text(t("run.errored", count=counts["errored"]), "problem")
                text(run["model"], "mono muted")
            if run["error"]:
                text(run["error"].get("message") or run["error"], "problem note-box", tag="div")
            if statistics.get("pass_rate"):
                with box("criteria"):
                    self._criterion(t("run.all"), "", statistics["pass_rate"], {})
                    for name, criterion in statistics.get("criteria", {}).items():
                        self._criterion(name, criterion["type"], criterion["pass_rate"], criterion)
            for usage in run["per_model_usage"]:
                tokens = {"given": _format.count(usage["prompt_tokens"]), "made": _format.count(usage["completion_tokens"])}
                with box("fact"):
                    text(usage["model_name"], "name mono")
                    text(t("run.calls", count=_format.count(usage["invocation_count"]), **tokens), "value muted")

    def _criterion(self, name: str, kind: str, rate: dict[str, Any], criterion: dict[str, Any]) -> None:
        t = self._session.t
        judges = (self._run["noria"]["statistics"] or {}).get("judges") or {}
        with box("criterion"):
            with box("criterion-name"):
                text(name, "strong" if not kind else "")
                if kind:
                    text(kind, "muted small mono")
                if name in judges and not judges[name].get("calibrated"):
                    text(t("run.uncalibrated"), "tag warn")
                elif name in judges and judges[name].get("kappa") is not None:
                    kappa = judges[name]["kappa"]
                    text(t("run.calibrated", value=f"{kappa['estimate'] if isinstance(kappa, dict) else kappa:.2f}"), "tag")
            interval_bar(rate)
            text(interval_words(self._session, rate), "criterion-words")
            score = (criterion.get("score") or {}).get("estimate")
            text(t("run.score", value=f"{score:.3f}") if score is not None else "", "muted small")

    def _confusions(self) -> None:
        for name, criterion in ((self._run["noria"]["statistics"] or {}).get("criteria") or {}).items():
            if "classification" in criterion:
                with panel(self._session.t("run.confusion", name=name)):
                    _confusion(self._session, criterion["classification"])

    def _draw_items(self, items: list[dict[str, Any]]) -> None:
        if not items:
            text(self._session.t("run.no_items"), "muted")
        for item in items:
            row_view(self._session, item["datasource_item"], [(self._run["model"], item)])

    async def _cancel(self) -> None:
        with self._session.reporting():
            await self._session.api.post(f"{self._path}/cancel")
            await self.load()

    async def _again(self) -> None:
        run = self._run
        with self._session.reporting():
            options = {k: v for k, v in run["noria"]["options"].items() if k in {"prompt", "cluster"}}
            body = {"name": run["name"], "data_source": run["data_source"], **({"noria": options} if options else {})}
            made = await self._session.api.post(f"/v1/evals/{run['eval_id']}/runs", body)
            ui.navigate.to(f"/evals/{run['eval_id']}/runs/{made['id']}")


def _confusion(session: Session, found: dict[str, Any]) -> None:
    t = session.t
    labels = found["labels"]
    most = max((max(row) for row in found["matrix"]), default=1) or 1
    with box("panes"):
        with box("pane"):
            shown = [label if label is not None else t("run.other") for label in labels]
            body = table([("", ""), *((label, "num") for label in shown)], classes="confusion")
            for label, row in zip(labels[:-1], found["matrix"], strict=True):
                with body, box(tag="tr"):
                    text(label, "strong", tag="td")
                    for other, count in zip(labels, row, strict=True):
                        kind = "hit" if other == label else "miss"
                        cell = text(_format.count(count), f"num cell {kind}", tag="td")
                        cell.style(f"--weight: {count / most * 45:.1f}%")
        with box("pane grow"):
            heads = ("precision", "recall", "f1", "false_positives", "support")
            body = table([("", ""), *((t(f"run.{name}"), "num" if name != "false_positives" else "num wide") for name in heads)])
            for label, facts in found["per_label"].items():
                with body, box(tag="tr"):
                    text(label, "strong", tag="td")
                    for name in ("precision", "recall", "f1"):
                        cell = text(percent(facts[name]["estimate"]), "num", tag="td")
                        cell.tooltip(interval_words(session, facts[name]))
                    text(percent(facts["false_positive_rate"]["estimate"]), "num wide", tag="td")
                    text(_format.count(facts["support"]), "num", tag="td")
            with box("fact"):
                text(t("run.accuracy"), "name")
                text(interval_words(session, found["accuracy"]), "value")
