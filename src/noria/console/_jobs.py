"""A durable job under way, watched until it ends: its progress, and a way to stop it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from noria.console._model_card import progress_words
from noria.console._session import Session
from noria.console._widgets import box, button, text
from noria.errors import NoriaError

__all__ = ["follow_job", "progress_bar"]

_WATCH_S = 0.7
_ENDED = {"completed", "failed", "cancelled"}


def progress_bar(share: float) -> None:
    with box("progress"):
        box("progress-done").style(f"width: {min(max(share, 0.0), 1.0):.1%}")


def follow_job(session: Session, place: Any, job: dict[str, Any], done: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """Shows a job in `place` until it ends, then calls `done`; a failure is told."""
    path = f"/v1/noria/jobs/{job['id']}"

    async def stop() -> None:
        with session.reporting():
            await session.api.post(f"{path}/cancel")

    def draw(now: dict[str, Any]) -> None:
        place.clear()
        with place, box("progress-row"):
            text(session.t.of("job", now["kind"]), "muted small")
            progress_bar((now.get("done") or 0) / now["total"] if now.get("total") else 0)
            text(progress_words(session, now), "muted small")
            button("", stop, icon="close", kind="quiet", hint=session.t("cancel"))

    async def look() -> None:
        try:
            now = await session.api.get(path)
        except NoriaError:
            return  # the banner tells
        if now["status"] not in _ENDED:
            draw(now)
            return
        timer.deactivate()
        place.clear()
        if now["status"] == "failed":
            ui.notify(session.t("jobs.failed", reason=now["error"] or ""), type="negative", position="top", multi_line=True)
        await done(now)

    draw(job)
    with place.parent_slot.parent if place.parent_slot else place:
        timer = ui.timer(_WATCH_S, look, immediate=False)
