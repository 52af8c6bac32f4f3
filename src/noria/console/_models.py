"""The catalogue of models: what there is, what is ready, pulling, adding, trying; and the providers' keys."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from nicegui import ui

from noria.console._model_card import model_card
from noria.console._model_forms import add_model_dialog, add_route_dialog
from noria.console._providers import providers_panel
from noria.console._session import Session
from noria.console._widgets import box, button, empty, page_head
from noria.errors import NoriaError, PermissionDenied

__all__ = ["models_page"]

_WATCH_S = 1.5


async def models_page(session: Session) -> None:
    t, api = session.t, session.api
    try:
        providers: list[dict[str, Any]] | None = (await api.get("/v1/noria/providers"))["data"]
    except PermissionDenied:  # a key for inference may look at models, not at keys
        providers = None
    page = _Catalogue(session)
    with page_head(t("models.title")):
        if providers is not None:
            button(t("models.add_route"), partial(add_route_dialog, session, page.load), icon="alt_route")
            button(t("models.add"), lambda: add_model_dialog(session, providers, page.load), icon="add", kind="primary")
    with box("filters"):
        page.filters()
    page.place = box("cards")
    await page.load()
    if providers is not None:
        providers_panel(session, providers, page.load)
    ui.timer(_WATCH_S, page.watch, immediate=False)


class _Catalogue:
    """The cards that the filters leave, and the pulls under way by model."""

    place: Any

    def __init__(self, session: Session) -> None:
        self._session = session
        self._filters: dict[str, Any] = {}
        self._pulls: dict[str, dict[str, Any]] = {}
        self.cards: list[dict[str, Any]] = []

    def filters(self) -> None:
        t = self._session.t
        query = ui.input(t("models.query"), on_change=self._again).props("outlined dense debounce=300 clearable")
        query.classes("filter grow").bind_value_to(self._filters, "query")
        options = {
            "task": {"": t("any"), "chat": t("task.chat"), "embedding": t("task.embedding")},
            "source": {"": t("any"), **{name: t(f"source.{name}") for name in ("engine", "provider", "route")}},
            "language": {"": t("any"), "en": "English", "zh": "中文"},
        }
        for name, choices in options.items():
            made = ui.select(choices, label=t(f"models.{name}"), value="", on_change=self._again)
            made.props("outlined dense options-dense").classes("filter").bind_value_to(self._filters, name)
        size = ui.number(t("models.max_size"), min=1, precision=0, on_change=self._again)
        size.props("outlined dense debounce=300 clearable").classes("filter short")
        size.bind_value_to(self._filters, "max_size_mb", forward=lambda v: int(v) if v else None)

    async def _again(self) -> None:
        with self._session.reporting():
            await self.load()

    async def load(self) -> None:
        api = self._session.api
        found, self._pulls = await asyncio.gather(api.get("/v1/noria/models", self._filters), self._running())
        self.cards = found["data"]
        self._draw()

    def _draw(self) -> None:
        self.place.clear()
        with self.place:
            if not self.cards:
                empty(self._session.t("models.none"), self._session.t("models.none_hint"))
            for card in self.cards:
                model_card(self._session, card, self._pulls.get(card["id"]), self.load)

    async def _running(self) -> dict[str, dict[str, Any]]:
        """Pulls by model: what runs or waits, and the last one of each that failed."""
        try:
            jobs = (await self._session.api.get("/v1/noria/jobs", {"kind": "pull", "limit": 20}))["data"]
        except PermissionDenied:
            return {}
        latest: dict[str, dict[str, Any]] = {}
        for job in jobs:  # newest first
            latest.setdefault(job["subject"], job)
        return {subject: job for subject, job in latest.items() if job["status"] in {"queued", "running", "failed"}}

    async def watch(self) -> None:
        if not any(job["status"] != "failed" for job in self._pulls.values()):
            return
        try:
            pulls = await self._running()
            if pulls.keys() != self._pulls.keys() or any(pulls[m]["status"] != self._pulls[m]["status"] for m in pulls):
                await self.load()
            elif pulls != self._pulls:
                self._pulls = pulls
                self._draw()
        except NoriaError:
            return  # the banner tells
