"""One fine-tuning job: its loss as it falls, what was chosen, events, checkpoints, and what may be asked of it."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import ui

from noria.console import _format
from noria.console._figures import percent
from noria.console._jobs import progress_bar
from noria.console._session import Session
from noria.console._widgets import box, button, confirm, fact, page_head, panel, state, table, text
from noria.console.tuning._list import STATES
from noria.console.tuning._loss import loss_chart, loss_points
from noria.errors import NoriaError

__all__ = ["job_page"]

_WATCH_S = 2.0
_EVENTS = 1000
_SHOWN = 60
_MOST_PAGES = 10


async def job_page(session: Session, job: str) -> None:
    page = _Job(session, f"/v1/fine_tuning/jobs/{quote(job, safe='')}")
    await page.load()
    ui.timer(_WATCH_S, page.watch, immediate=False)


class _Job:
    """What is shown of one job; while it runs only what is new is fetched."""

    def __init__(self, session: Session, path: str) -> None:
        self._session, self._path = session, path
        self._job: dict[str, Any] = {}
        self._events: list[dict[str, Any]] = []  # oldest first
        self._checkpoints: list[dict[str, Any]] | None = None
        self._head = box()
        with box("panes"):
            with box("pane grow"):
                with panel(session.t("tuning.loss")):
                    self._progress = box()
                    self._none = text(session.t("tuning.no_loss"), "muted")
                    self._chart = ui.echart(loss_chart(session, [])).classes("loss")
                with panel(session.t("tuning.events")):
                    self._event_rows = box()
            with box("pane side"):
                self._facts, self._saved = box(), box()

    async def load(self) -> None:
        job, fresh = await asyncio.gather(self._session.api.get(self._path), self._fresh_events())
        if job != self._job:
            self._job = job
            self._draw_head()
            self._draw_facts()
        if fresh or not self._events:
            self._events += fresh
            self._draw_events()
        found = (await self._session.api.get(f"{self._path}/checkpoints", {"limit": 100}))["data"]
        if found != self._checkpoints:
            self._checkpoints = found
            self._draw_checkpoints()

    async def watch(self) -> None:
        if STATES.get(self._job.get("status", "")) != "busy":
            return
        try:
            await self.load()
        except NoriaError:
            return  # the banner tells

    async def _fresh_events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after = self._events[-1]["id"] if self._events else None
        for _ in range(_MOST_PAGES):
            page = await self._session.api.get(f"{self._path}/events", {"limit": _EVENTS, "order": "asc", "after": after})
            found += page["data"]
            if not page["has_more"] or not page["data"]:
                break
            after = page["data"][-1]["id"]
        return found

    def _draw_head(self) -> None:
        t, job = self._session.t, self._job
        self._head.clear()
        with self._head, page_head(job["fine_tuned_model"] or job["user_provided_suffix"] or job["id"], job["model"]):
            status = job["status"]
            if job["fine_tuned_model"]:
                named = quote(job["fine_tuned_model"], safe="")
                button(t("tuning.try"), lambda: ui.navigate.to(f"/playground?model={named}"), icon="chat_bubble_outline")
            button(t("lineage.title"), lambda: ui.navigate.to(f"/lineage?id={job['id']}"), icon="o_hub", kind="quiet")
            if status == "paused":
                button(t("tuning.resume"), partial(self._ask, "resume"), icon="play_arrow", kind="primary")
            elif STATES.get(status) == "busy":
                button(t("tuning.pause"), partial(self._ask, "pause"), icon="pause")
            if status == "paused" or STATES.get(status) == "busy":
                button(t("tuning.cancel"), self._ask_cancel, icon="stop", kind="danger")

    def _draw_facts(self) -> None:
        t, job = self._session.t, self._job
        self._facts.clear()
        with self._facts, panel(t("tuning.resolved")):
            with box("summary"):
                state(STATES.get(job["status"], "off"), t.of("tuned", job["status"]))
                text(t.of("tuning.method", job["method"]["type"]), "muted")
                if job["estimated_finish"] and STATES.get(job["status"]) == "busy":
                    text(t("tuning.finish", time=self._session.time(job["estimated_finish"])), "muted")
                if job["trained_tokens"]:
                    text(t("tuning.trained", count=_format.count(job["trained_tokens"])), "muted")
            if (error := job.get("error")) and error.get("message"):
                text(error["message"], "problem note-box", tag="div")
            self._forgetting(job["noria"]["forgetting"])
            resolved = {**job["hyperparameters"], **(job["noria"]["resolved"] or {}), "seed": job["seed"]}
            for name, value in resolved.items():
                if value not in (None, [], {}):
                    fact(name, f"{value:g}" if isinstance(value, float) else _written(value), "mono")
            for name in ("training_file", "validation_file"):
                if job[name]:
                    with box("fact"):
                        text(name, "name")
                        ui.link(job[name], f"/lineage?id={job[name]}").classes("value mono")

    def _forgetting(self, found: dict[str, Any] | None) -> None:
        """How the general set came out before and after, where both are known."""
        if not found:
            return
        t = self._session.t
        text(t("tuning.forgetting"), "section-name", tag="h3")
        with box("fact"):
            text(f"{percent(found['before'])} → {percent(found['after'])}")
            text(t("tuning.forgot") if found["forgot"] else t("tuning.kept"), "problem" if found["forgot"] else "muted")

    def _draw_events(self) -> None:
        t, points = self._session.t, loss_points(self._events)
        self._none.set_visibility(not points)
        self._chart.set_visibility(bool(points))
        self._chart.options.clear()
        self._chart.options.update(loss_chart(self._session, points))
        self._chart.update()
        self._progress.clear()
        total = next(
            (event["data"].get("total_steps") for event in reversed(self._events) if event["data"].get("total_steps")), None
        )
        if points and total and STATES.get(self._job["status"]) == "busy":
            with self._progress, box("progress-row"):
                progress_bar(points[-1]["step"] / total)
                text(t("tuning.steps", step=points[-1]["step"], total=total), "muted small")
        self._event_rows.clear()
        with self._event_rows:
            said = [event for event in self._events if event["type"] != "metrics"]  # those are the chart
            for event in said[: -_SHOWN - 1 : -1]:
                with box("event-row"):
                    text(self._session.time(event["created_at"]), "muted small num-words")
                    kind = {"error": "problem", "warn": "warned"}.get(event["level"], "")
                    text(event["message"], kind)

    def _draw_checkpoints(self) -> None:
        t = self._session.t
        self._saved.clear()
        if not self._checkpoints:
            return
        with self._saved, panel(t("tuning.checkpoints")):
            body = table([("", ""), (t("tuning.loss.valid"), "num"), ("", "num")])
            for row in self._checkpoints:
                with body, box(tag="tr"):
                    text(t("tuning.step", step=row["step_number"]), "num-words", tag="td")
                    loss = row["metrics"].get("full_valid_loss") or row["metrics"].get("valid_loss")
                    text(f"{loss:.4f}" if isinstance(loss, float) else "–", "num", tag="td")
                    with box("num", tag="td"):
                        named = quote(row["fine_tuned_model_checkpoint"], safe="")
                        ui.link(t("tuning.try"), f"/playground?model={named}").tooltip(row["fine_tuned_model_checkpoint"])

    async def _ask(self, what: str) -> None:
        with self._session.reporting():
            await self._session.api.post(f"{self._path}/{what}")
            await self.load()

    def _ask_cancel(self) -> None:
        t = self._session.t

        async def cancel() -> None:
            await self._session.api.post(f"{self._path}/cancel")
            await self.load()

        confirm(self._session, t("tuning.cancel"), t("tuning.cancel_text"), cancel, verb=t("tuning.cancel"))


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
