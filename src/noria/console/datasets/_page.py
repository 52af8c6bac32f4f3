"""One dataset: its versions at the left; rows, findings or changes of the chosen one at the right."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._session import Session
from noria.console._widgets import box, button, empty, page_head, panel, text
from noria.console.datasets._changes import ChangeList
from noria.console.datasets._fill import fill_menu
from noria.console.datasets._findings import FindingList
from noria.console.datasets._rows import RowList

__all__ = ["dataset_page"]

_MOST = 100
_FORMATS = ("openai", "dpo", "alpaca", "sharegpt", "csv", "parquet", "noria")
_TABS = ("rows", "findings", "changes")


async def dataset_page(session: Session, dataset: str, query: dict[str, str]) -> None:
    page = _Page(session, dataset, query)
    await page.load()


class _Page:
    """What is shown of one dataset; `load` draws it anew, at its newest version."""

    def __init__(self, session: Session, dataset: str, query: dict[str, str]) -> None:
        self._session, self._path = session, f"/v1/noria/datasets/{dataset}"
        self._tab = query.get("tab") if query.get("tab") in _TABS else "rows"
        self._wanted = int(query["version"]) if query.get("version", "").isdigit() else None
        self._place = box("column")

    async def load(self) -> None:
        api = self._session.api
        self._dataset: dict[str, Any] = await api.get(self._path)
        self._versions: list[dict[str, Any]] = (await api.get(f"{self._path}/versions", {"limit": _MOST}))["data"]
        self._path = f"/v1/noria/datasets/{self._dataset['id']}"
        chosen = [row for row in self._versions if row["version"] == self._wanted] or self._versions
        self._wanted = None
        self._place.clear()
        with self._place:
            self._draw()
        if chosen:
            await self._show(chosen[0])

    def _draw(self) -> None:
        t, dataset = self._session.t, self._dataset
        with page_head(dataset["name"], dataset["description"]):
            if self._versions:
                lineage = f"/lineage?id={dataset['id']}"
                button(t("lineage.title"), lambda: ui.navigate.to(lineage), icon="o_hub", kind="quiet")
                tune = f"/tuning?dataset={dataset['id']}"
                button(t("dataset.tune"), lambda: ui.navigate.to(tune), icon="model_training", kind="quiet")
                self._export_menu()
            actions = box("actions")
        self._progress = box()
        with actions:
            fill_menu(self._session, self._path, self._progress, self.load)
        if not self._versions:
            with box("panel"):
                empty(t("dataset.empty"), t("dataset.empty_hint"))
            return
        with box("panes"):
            with box("pane list"), panel(t("dataset.versions")):
                self._list()
            with box("pane grow") as self._detail:
                pass

    def _list(self) -> None:
        t = self._session.t
        self._rows: dict[int, Any] = {}
        for version in self._versions:
            with box("list-row") as row:
                chosen = partial(self._show, version)
                row.props("tabindex=0 role=button").on("click", chosen).on("keydown.enter", chosen)
                with box("list-row-head"):
                    text(t("prompt.version", number=version["version"]), "strong")
                    text(_format.count(version["counts"]["total"]), "muted")
                origin = t.of("origin", version["origin"]["kind"])
                text(f"{origin} · {self._session.time(version['created_at'])}", "muted small")
                if version["note"]:
                    text(version["note"], "small")
            self._rows[version["version"]] = row

    async def _show(self, version: dict[str, Any], event: object = None) -> None:
        self._chosen = version
        for number, row in self._rows.items():
            row.classes(add="chosen") if number == version["version"] else row.classes(remove="chosen")
        await self._open(self._tab or "rows")

    async def _open(self, tab: str) -> None:
        t, version = self._session.t, self._chosen
        self._tab = tab
        self._detail.clear()
        with self._detail, panel(classes="tabbed"):
            with box("tabs").props("role=tablist"):
                for name in _TABS:
                    made = button(t(f"dataset.tab.{name}"), partial(self._open, name), kind="quiet")
                    made.classes("tab on" if name == tab else "tab").props(
                        f"role=tab aria-selected={'true' if name == tab else 'false'}"
                    )
            counts = {name: _format.count(version["counts"].get(name, 0)) for name in ("total", "train", "validation", "test")}
            text(t("dataset.total", **counts), "muted small", tag="p")
            number = version["version"]
            if tab == "rows":
                shown: RowList | FindingList | ChangeList = RowList(self._session, self._dataset["id"], number, self.load)
            elif tab == "findings":
                shown = FindingList(self._session, self._dataset["id"], number, self._progress, self.load)
            else:
                shown = ChangeList(self._session, self._dataset["id"], number, [row["version"] for row in self._versions])
        with self._session.reporting():
            await shown.load()

    def _export_menu(self) -> None:
        t = self._session.t

        async def export(kind: str) -> None:
            with self._session.reporting():
                query = {"version": self._chosen["version"], "format": kind}
                name, content = await self._session.api.download(f"{self._path}/export", query)
                ui.download.content(content, name)

        with button(t("dataset.export"), icon="download", kind="quiet"), ui.menu().props("auto-close"):
            for kind in _FORMATS:
                ui.menu_item(kind, partial(export, kind))
