"""One eval: what it asks of an answer, and its runs with how sure each pass rate is. Two of them can be compared."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._figures import interval_bar, interval_words, percent
from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, button, confirm, copyable, empty, page_head, panel, state, table, text
from noria.console.evals._forms import start_run

__all__ = ["RUN_STATES", "eval_page", "source_words"]

RUN_STATES = {"queued": "busy", "in_progress": "busy", "completed": "ok", "failed": "error", "canceled": "off"}
_PAGE = 20
_WATCH_S = 2.0


async def eval_page(session: Session, eval: str) -> None:
    t = session.t
    found: dict[str, Any] = await session.api.get(f"/v1/evals/{eval}")
    runs = _Runs(session, found["id"])
    with page_head(found["name"] or found["id"]):
        runs.compare = button(t("evals.compare"), runs.open_comparison, icon="compare_arrows", hint=t("evals.compare_hint"))
        button(t("evals.start"), partial(start_run, session, found["id"], runs.load), icon="play_arrow", kind="primary")
    with panel(t("evals.runs")):
        runs.pages = Pages(session, runs.fetch, runs.draw)
    with panel(t("evals.criteria")):
        copyable(session, json.dumps(found["testing_criteria"], ensure_ascii=False, indent=1))
    await runs.load()
    runs.pages.keep_fresh(_WATCH_S, runs.going)


class _Runs:
    """The runs of one eval, and which of them are chosen to be compared."""

    pages: Pages
    compare: ui.button

    def __init__(self, session: Session, eval_id: str) -> None:
        self._session, self._eval_id = session, eval_id
        self._chosen: list[str] = []

    async def fetch(self, after: str | None) -> dict[str, Any]:
        query = {"limit": _PAGE, "order": "desc", "after": after}
        return await self._session.api.get(f"/v1/evals/{self._eval_id}/runs", query)

    async def load(self) -> None:
        await self.pages.load()
        self.compare.set_enabled(len(self._chosen) == 2)

    def going(self) -> bool:
        return any(run["status"] in {"queued", "in_progress"} for run in self.pages.shown or ())

    def draw(self, runs: list[dict[str, Any]]) -> None:
        t = self._session.t
        if not runs:
            empty(t("evals.no_runs"), t("evals.no_runs_hint"))
            return
        columns = [("", ""), (t("evals.model"), ""), (t("evals.data"), "wide"), (t("traces.status"), "")]
        body = table([*columns, (t("evals.passed"), ""), ("", "wide fill"), (t("evals.created"), "when wide"), ("", "num")])
        for run in runs:
            with body, box(tag="tr"):
                self._row(run)

    def _row(self, run: dict[str, Any]) -> None:
        t, counts = self._session.t, run["result_counts"]
        with box("check", tag="td"):
            ended = run["status"] not in {"queued", "in_progress"}
            box_ = ui.checkbox(value=run["id"] in self._chosen, on_change=lambda e: self._choose(run["id"], bool(e.value)))
            box_.props(f'dense aria-label="{t("evals.compare")}"').set_enabled(ended)
        with box("name", tag="td"):
            ui.link(run["name"] or run["model"] or run["id"], f"/evals/{self._eval_id}/runs/{run['id']}")
        text(source_words(self._session, run["data_source"]), "wide muted small", tag="td")
        with box(tag="td"):
            state(RUN_STATES.get(run["status"], "busy"), t.of("run", run["status"]))
        rate = (run["noria"]["statistics"] or {}).get("pass_rate")
        with box("num-words", tag="td"):
            if rate:
                text(interval_words(self._session, rate), "not-on-phones")
                text(percent(rate["estimate"]), "phones-only")
            else:
                done = sum(counts.get(name, 0) for name in ("passed", "failed", "errored"))
                text(f"{_format.count(done)} / {_format.count(run['noria']['num_items'] or counts.get('total'))}", "muted")
        with box("wide fill", tag="td"):
            interval_bar(rate)
        text(self._session.time(run["created_at"]), "when wide", tag="td")
        with box("num buttons", tag="td"):
            if not ended:
                button("", partial(self._cancel, run), icon="stop", kind="quiet", hint=t("run.cancel"))
            else:
                button("", partial(self._ask_delete, run), icon="delete_outline", kind="quiet", hint=t("delete"))

    def _choose(self, run_id: str, wanted: bool) -> None:
        self._chosen = [each for each in self._chosen if each != run_id] + ([run_id] if wanted else [])
        self.compare.set_enabled(len(self._chosen) == 2)

    def open_comparison(self) -> None:
        """The older run first: the newer one wins or loses against it."""
        if len(self._chosen) == 2:
            first, second = sorted(self._chosen)
            ui.navigate.to(f"/evals/{self._eval_id}/compare?a={first}&b={second}")

    async def _cancel(self, run: dict[str, Any]) -> None:
        with self._session.reporting():
            await self._session.api.post(f"/v1/evals/{self._eval_id}/runs/{run['id']}/cancel")
            await self.load()

    def _ask_delete(self, run: dict[str, Any]) -> None:
        t = self._session.t

        async def delete() -> None:
            await self._session.api.delete(f"/v1/evals/{self._eval_id}/runs/{run['id']}")
            self._chosen = [each for each in self._chosen if each != run["id"]]
            await self.load()

        confirm(self._session, t("run.delete"), run["name"] or run["id"], delete, verb=t("delete"))


def source_words(session: Session, data_source: dict[str, Any]) -> str:
    """`ds_… · version 3 · test`, as far as it is known."""
    source = data_source.get("source") or {}
    named = source.get("dataset") or source.get("id") or source.get("type") or data_source.get("type") or ""
    parts = [str(named)]
    if source.get("version"):
        parts.append(session.t("prompt.version", number=source["version"]))
    if source.get("split"):
        parts.append(session.t.of("split", source["split"]))
    return " · ".join(parts)
