"""What curation found in a dataset, each for a person to accept or reject; accepting removes the rows in a new version."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nicegui import ui

from noria.console._jobs import follow_job
from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, button, empty, state, text
from noria.console.datasets._rows import row_box
from noria.errors import NotFound

__all__ = ["FindingList"]

_PAGE = 10
_MOST_ROWS = 4
_KINDS = (
    "exact_duplicate", "near_duplicate", "contradiction", "leakage", "personal_data", "oversize", "one_class", "trigger",
)  # fmt: skip
_DECISIONS = {"open": "busy", "accepted": "ok", "rejected": "off"}


class FindingList:
    """Made inside the panel that shows it; `changed` is called after findings made a version."""

    def __init__(
        self, session: Session, dataset_id: str, version: int, progress: Any, changed: Callable[[], Awaitable[None]]
    ) -> None:
        t = session.t
        self._session, self._path = session, f"/v1/noria/datasets/{dataset_id}"
        self._version, self._progress, self._changed = version, progress, changed
        self._wanted: dict[str, Any] = {"version": version, "kind": "", "decision": "open"}
        with box("filters"):
            kinds = {"": t("any"), **{kind: t(f"finding.{kind}") for kind in _KINDS}}
            decisions = {"": t("any"), **{name: t(f"decision.{name}") for name in _DECISIONS}}
            for name, options, label in (("kind", kinds, t("findings.kind")), ("decision", decisions, t("findings.decision"))):
                made = ui.select(options, value=self._wanted[name], label=label, on_change=self._filtered)
                made.props("outlined dense options-dense").classes("filter").bind_value_to(self._wanted, name)
            with box("actions"):
                button(t("findings.look"), self._look, icon="search")
                button(t("findings.accept_all"), partial(self._decide_all, "accepted"), icon="done_all", kind="quiet")
                button(t("findings.reject_all"), partial(self._decide_all, "rejected"), icon="remove_done", kind="quiet")
                button(t("findings.apply"), self._apply, icon="cleaning_services", kind="quiet")
        self._pages = Pages(session, self._fetch, self._draw)

    async def load(self) -> None:
        await self._pages.load()

    async def _filtered(self) -> None:
        await self._pages.restart()

    async def _fetch(self, after: str | None) -> dict[str, Any]:
        """A page of findings, with the first rows of each."""
        page = await self._session.api.get(f"{self._path}/findings", {**self._wanted, "limit": _PAGE, "after": after})

        async def row(row_id: str) -> dict[str, Any] | None:
            try:
                return await self._session.api.get(f"{self._path}/rows/{row_id}")
            except NotFound:  # gone since
                return None

        async def whole(finding: dict[str, Any]) -> dict[str, Any]:
            ids = sorted(finding["row_ids"], key=lambda each: each in finding["remove_ids"])[:_MOST_ROWS]
            return {**finding, "rows": [found for found in await asyncio.gather(*map(row, ids)) if found]}

        return {**page, "data": list(await asyncio.gather(*map(whole, page["data"])))}

    def _draw(self, findings: list[dict[str, Any]]) -> None:
        t = self._session.t
        if not findings:
            empty(t("findings.none"), t("findings.none_hint"))
        for finding in findings:
            with box("finding"):
                self._head(finding)
                for row in finding["rows"]:
                    goes = row["id"] in finding["remove_ids"]
                    row_box(self._session, row, note=t("findings.goes") if goes else "", kind="warn" if goes else "")

    def _head(self, finding: dict[str, Any]) -> None:
        t = self._session.t
        with box("finding-head"):
            text(t.of("finding", finding["kind"]), "strong")
            state(_DECISIONS.get(finding["decision"], "off"), t.of("decision", finding["decision"]))
            text(t("findings.removes", removed=len(finding["remove_ids"]), rows=len(finding["row_ids"])), "muted small")
            text(_detail_words(finding["detail"]), "muted small mono")
            with box("actions"):
                for decision, verb, icon in (
                    ("accepted", t("findings.accept"), "done"),
                    ("rejected", t("findings.reject"), "close"),
                ):
                    if finding["decision"] != decision:
                        button(verb, partial(self._decide, finding, decision), icon=icon, kind="quiet")

    async def _decide(self, finding: dict[str, Any], decision: str) -> None:
        with self._session.reporting():
            await self._session.api.post(f"{self._path}/findings/{finding['id']}", {"decision": decision})
            await self._pages.load()

    async def _decide_all(self, decision: str) -> None:
        with self._session.reporting():
            body = {"decision": decision, "version": self._version, "kind": self._wanted["kind"] or None}
            await self._session.api.post(f"{self._path}/findings", {**body, "current": self._wanted["decision"] or None})
            await self._pages.load()

    async def _look(self) -> None:
        with self._session.reporting():
            answer = await self._session.api.post(f"{self._path}/curate", {"version": self._version}, timeout_s=120)
            if answer.get("job"):
                follow_job(self._session, self._progress, answer["job"], lambda job: self._looked(job.get("detail") or {}))
            else:
                await self._looked(answer)

    async def _looked(self, answer: dict[str, Any]) -> None:
        t, found = self._session.t, answer.get("findings") or {}
        words = ", ".join(f"{count} {t.of('finding', kind)}" for kind, count in found.items())
        self._session.done(t("findings.found", words=words) if words else t("findings.clean"))
        await self._pages.restart()

    async def _apply(self) -> None:
        t = self._session.t
        with self._session.reporting():
            done = await self._session.api.post(f"{self._path}/findings/apply")
            if done["removed"]:
                self._session.done(t("findings.applied", version=done["version"], removed=done["removed"]))
                await self._changed()
            else:
                ui.notify(t("findings.nothing_to_apply"), type="info", position="top")


def _detail_words(detail: dict[str, Any]) -> str:
    words = (
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}" for name, value in detail.items()
    )
    return " · ".join(words)[:300]
