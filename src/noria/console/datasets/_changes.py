"""What changed between two versions: rows added, removed, and given another answer."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, text
from noria.console.datasets._rows import row_box

__all__ = ["ChangeList"]

_PAGE = 20
_KINDS = {"added": "ok", "removed": "warn", "changed": "busy"}


class ChangeList:
    """Made inside the panel that shows it."""

    def __init__(self, session: Session, dataset_id: str, version: int, versions: list[int]) -> None:
        t = session.t
        self._session, self._path, self._version = session, f"/v1/noria/datasets/{dataset_id}", version
        others = [number for number in versions if number != version]
        self._before = version - 1 if version - 1 in others else next(iter(others), None)
        if self._before is None:
            text(t("changes.first"), "muted")
            return
        with box("filters"):
            options = {number: t("prompt.version", number=number) for number in others}
            made = ui.select(options, value=self._before, label=t("changes.from"), on_change=self._chosen)
            made.props("outlined dense options-dense").classes("filter").bind_value_to(self, "_before")
            self._counts = text("", "muted")
        self._pages = Pages(session, self._fetch, self._draw)

    async def load(self) -> None:
        if self._before is not None:
            await self._pages.load()

    async def _chosen(self) -> None:
        await self._pages.restart()

    async def _fetch(self, after: str | None) -> dict[str, Any]:
        query = {"from": self._before, "to": self._version, "limit": _PAGE, "after": after}
        page = await self._session.api.get(f"{self._path}/diff", query)
        counts = {kind: _format.count(page["counts"][kind]) for kind in _KINDS}
        self._counts.set_text(self._session.t("changes.counts", **counts))
        return page

    def _draw(self, changes: list[dict[str, Any]]) -> None:
        t = self._session.t
        for change in changes:
            for side, row in (("removed", change["before"]), ("added", change["after"])):
                if row is not None:
                    kind = change["change"] if change["change"] != "changed" else side
                    row_box(self._session, row, note=t.of("change", kind), kind=f"change-{kind}")
        if not changes:
            text(t("prompt.same"), "muted")
