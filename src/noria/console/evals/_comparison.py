"""Two runs on the same rows: who wins how often, whether that could be chance, and each row side by side."""

from __future__ import annotations

import asyncio
from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._figures import bar, interval_bar, interval_words, p_value
from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, page_head, panel, text
from noria.console.evals._row import row_view
from noria.errors import NotFound

__all__ = ["comparison_page"]

_PAGE = 10
_ALPHA = 0.05
_SHOWN = ("all", "win", "loss", "tie")


async def comparison_page(session: Session, eval: str, query: dict[str, str]) -> None:
    page = _Comparison(session, eval, query)
    await page.load()


class _Comparison:
    def __init__(self, session: Session, eval_id: str, query: dict[str, str]) -> None:
        if not query.get("a") or not query.get("b"):
            raise NotFound("Two runs are needed to compare: ?a=RUN&b=RUN.")
        self._session, self._eval_id = session, eval_id
        self._asked: dict[str, Any] = {"run_a": query["a"], "run_b": query["b"]}
        self._only = query.get("only") if query.get("only") in _SHOWN else "all"
        self._runs: dict[str, dict[str, Any]] = {}
        self._summary = box()

    async def load(self) -> None:
        t, api = self._session.t, self._session.api
        paths = [f"/v1/evals/{self._eval_id}/runs/{self._asked[name]}" for name in ("run_a", "run_b")]
        self._runs = dict(zip(("a", "b"), await asyncio.gather(*(api.get(path) for path in paths)), strict=True))
        titles = [run["name"] or run["model"] for run in self._runs.values()]
        with self._summary, page_head(t("compare.title")):
            ui.link(t("evals.runs"), f"/evals/{self._eval_id}")
        with box() as self._figures:
            pass
        with panel(t("run.items"), actions=self._filters):
            self._rows = Pages(self._session, self._fetch, self._draw)
        found = await api.post("/v1/noria/evals/compare", {**self._asked, "limit": 1})
        self._show(found, titles)
        await self._rows.load()

    def _filters(self) -> None:
        t = self._session.t
        made = ui.select({name: t(f"compare.only.{name}") for name in _SHOWN}, value=self._only, on_change=self._filtered)
        made.props("outlined dense options-dense").classes("filter").bind_value_to(self, "_only")

    async def _filtered(self) -> None:
        await self._rows.restart()

    def _show(self, found: dict[str, Any], titles: list[str]) -> None:
        t, session = self._session.t, self._session
        with self._figures, panel():
            with box("versus"):
                for name, title, rate in (
                    (t("compare.first"), titles[0], found["pass_rate_a"]),
                    (t("compare.second"), titles[1], found["pass_rate_b"]),
                ):
                    with box("criterion"):
                        with box("criterion-name"):
                            text(name, "muted small")
                            text(title, "strong")
                        run = self._runs["a" if name == t("compare.first") else "b"]
                        measured = (run["noria"]["statistics"] or {}).get("pass_rate") or {
                            "estimate": rate,
                            "low": rate,
                            "high": rate,
                        }
                        interval_bar(measured)
                        text(interval_words(session, measured), "criterion-words")
            wins, losses, ties = found["wins"], found["losses"], found["ties"]
            parts = [("win", wins, t("compare.wins")), ("tie", ties, t("compare.ties")), ("loss", losses, t("compare.losses"))]
            bar(t("compare.title"), [(kind, count, f"{title}: {_format.count(count)}") for kind, count, title in parts])
            with box("summary tight"):
                for kind, count, title in parts:
                    with box(f"outcome-count {kind}", tag="span"):
                        text(title)
                        text(_format.count(count), "strong")
            self._verdict(found)

    def _verdict(self, found: dict[str, Any]) -> None:
        t, difference = self._session.t, found["difference"]
        sure = found["p_value"] is not None and found["p_value"] < _ALPHA
        better = sure and (difference["estimate"] or 0) > 0
        words = t("compare.better" if better else "compare.worse") if sure else t("compare.same")
        text(words, "strong", tag="p")
        with box("summary tight"):
            text(t("compare.difference", value=interval_words(self._session, difference, sign=True)))
            text(t("compare.p", value=p_value(found["p_value"]), test=found["test"]), "muted")
            if left := found["only_a"] + found["only_b"]:
                text(t("compare.left_out", count=left), "muted")
            if not found["can_gate"]:
                text(t("compare.cannot_gate"), "problem")

    async def _fetch(self, after: str | None) -> dict[str, Any]:
        """A page of pairs, with what each run answered."""
        outcome = None if self._only == "all" else self._only
        body = {**self._asked, "limit": _PAGE, "outcome": outcome, "after": -1 if after is None else int(after)}
        found = await self._session.api.post("/v1/noria/evals/compare", body)

        async def both(pair: dict[str, Any]) -> dict[str, Any]:
            paths = [
                f"/v1/evals/{self._eval_id}/runs/{self._asked[run]}/output_items/{pair[item]}"
                for run, item in (("run_a", "item_a"), ("run_b", "item_b"))
            ]
            first, second = await asyncio.gather(*(self._session.api.get(path) for path in paths))
            return {**pair, "first": first, "second": second}

        pairs = list(await asyncio.gather(*(both(pair) for pair in found["data"])))
        return {"data": pairs, "has_more": found["has_more"], "next_cursor": str(found["next_after"])}

    def _draw(self, pairs: list[dict[str, Any]]) -> None:
        if not pairs:
            text(self._session.t("run.no_items"), "muted")
        models = [run["model"] for run in self._runs.values()]
        for pair in pairs:
            answers = [(models[0], pair["first"]), (models[1], pair["second"])]
            row_view(self._session, pair["first"]["datasource_item"], answers, pair["outcome"])
