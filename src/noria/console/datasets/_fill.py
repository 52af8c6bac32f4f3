"""Filling a dataset: a file, feedback, traces, stored completions. Long ones are jobs, whose progress is shown."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nicegui import ui
from nicegui.events import UploadEventArguments

from noria.console._jobs import follow_job
from noria.console._session import Session
from noria.console._widgets import box, button, dialog, text
from noria.errors import NoriaError

__all__ = ["fill_menu"]

Changed = Callable[[], Awaitable[None]]
_KINDS = ("feedback", "traces", "completions", "file")
_ICONS = {"feedback": "thumbs_up_down", "traces": "account_tree", "completions": "inventory_2", "file": "upload_file"}


def fill_menu(session: Session, path: str, progress: Any, changed: Changed) -> None:
    """A button with what a dataset can be filled from; jobs are shown in `progress`."""
    t = session.t
    with button(t("dataset.fill"), icon="add", kind="primary"), ui.menu().props("auto-close"):
        for kind in _KINDS:
            opened = partial(_upload if kind == "file" else partial(_collect, kind=kind), session, path, progress, changed)
            with ui.menu_item(on_click=opened), box("menu-line"):
                ui.icon(_ICONS[kind])
                text(t(f"dataset.fill.{kind}"))


async def _finish(session: Session, answer: dict[str, Any], progress: Any, changed: Changed) -> None:
    if answer.get("job"):
        follow_job(session, progress, answer["job"], lambda job: _told(session, job.get("detail") or {}, changed))
    else:
        await _told(session, answer, changed)


async def _told(session: Session, report: dict[str, Any], changed: Changed) -> None:
    """Says what came in, and what did not."""
    t = session.t
    if report.get("added"):
        session.done(t("dataset.added", added=report["added"], duplicates=report.get("duplicates", 0)))
    elif not report.get("errors"):
        ui.notify(t("dataset.nothing"), type="info", position="top")
    if report.get("errors"):
        with dialog(t("dataset.failed_lines", count=report["failed"]), wide=True) as made:
            for error in report["errors"]:
                place = error.get("line", error.get("id"))
                text(t("dataset.line", line=place, message=error["message"]), "small", tag="div")
            with box("dialog-actions"):
                button(t("close"), made.close)
    if report.get("skipped"):
        words = ", ".join(f"{count} {reason}" for reason, count in report["skipped"].items())
        ui.notify(t("dataset.skipped", words=words), type="info", position="top", multi_line=True, timeout=8000)
    await changed()


def _upload(session: Session, path: str, progress: Any, changed: Changed) -> None:
    t = session.t
    with dialog(t("dataset.fill.file")) as made:
        text(t("dataset.file_hint"), "muted", tag="p")

        async def take(event: UploadEventArguments) -> None:
            try:
                file = event.file
                answer = await session.api.upload(file.name, file.content_type, file.iterate(), path=f"{path}/import", fields={})
            except NoriaError as error:
                session.notice(error)
                return
            made.close()
            await _finish(session, answer, progress, changed)

        upload = ui.upload(auto_upload=True, on_upload=take, label=t("dataset.drop")).classes("upload")
        upload.props("flat bordered color=transparent hide-upload-btn")
        with box("dialog-actions"):
            button(t("cancel"), made.close)


def _collect(session: Session, path: str, progress: Any, changed: Changed, *, kind: str) -> None:
    t = session.t
    with dialog(t(f"dataset.fill.{kind}")) as made:
        model = ui.input(t("dataset.model")).props("outlined dense clearable")
        days = ui.number(t("dataset.days"), min=0, precision=1).props("outlined dense clearable")
        words = label = None
        switches: dict[str, ui.switch] = {}
        if kind == "traces":
            words = ui.input(t("dataset.words")).props("outlined dense clearable")
        if kind == "feedback":
            label = ui.input(t("dataset.label")).props("outlined dense clearable")
            for name, on in (("thumbs_up", True), ("corrections", True), ("label_as_expected", False), ("pairs", True)):
                switches[name] = ui.switch(t(f"dataset.{name}"), value=on).props("dense")
        else:
            switches["expect"] = ui.switch(t("dataset.expect"), value=True).props("dense")

        async def collect() -> None:
            wanted: dict[str, Any] = {}
            if model.value:
                wanted |= {"models": [model.value]} if kind == "feedback" else {"model": model.value}
            if days.value:
                wanted["from"] = time.time() - float(days.value) * 86400
            wanted |= {"text": words.value} if words is not None and words.value else {}
            wanted |= {"label": label.value} if label is not None and label.value else {}
            body: dict[str, Any] = {kind: wanted}
            if kind == "feedback":
                body["policy"] = {name: bool(switch.value) for name, switch in switches.items()}
            else:
                body["expect"] = "answer" if switches["expect"].value else "nothing"
            with session.reporting():
                answer = await session.api.post(f"{path}/collect", body)
                made.close()
                await _finish(session, answer, progress, changed)

        with box("dialog-actions"):
            button(t("cancel"), made.close)
            button(t("dataset.collect"), collect, kind="primary")
