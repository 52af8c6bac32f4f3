"""Saying what one thinks of an answer: thumbs, a correction, a label, a comment; and what was said of it before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nicegui import ui

from noria.console._session import Session
from noria.console._widgets import box, button, confirm, dialog, text

__all__ = ["FeedbackBar", "feedback_panel", "said_of"]

_PATH = "/v1/noria/feedback"
_SAID = ("rating", "score", "label", "correction", "comment")
_MOST = 50


class FeedbackBar:
    """Two thumbs and a way to say more. `kept` holds what this visitor has said, so that it outlives the bar.

    `answer` gives the text that was answered, where a correction begins.
    """

    def __init__(
        self,
        session: Session,
        trace_id: str,
        kept: dict[str, Any],
        answer: Callable[[], str],
        changed: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._session, self._trace_id, self._kept, self._answer, self._changed = session, trace_id, kept, answer, changed
        t = session.t
        with box("feedback-bar"):
            self._thumbs = {
                rating: button(
                    "", partial(self._rate, rating), icon="thumb_up_off_alt", kind="quiet", hint=t(f"feedback.{rating}")
                )
                for rating in ("up", "down")
            }
            button("", self._open, icon="o_rate_review", kind="quiet", hint=t("feedback.more"))
            self._words = text("", "muted small")
        self._draw()

    def _draw(self) -> None:
        given = self._kept.get("rating")
        for rating, thumb in self._thumbs.items():
            on = given == rating
            thumb.props(f"icon=thumb_{rating}{'' if on else '_off_alt'} aria-pressed={'true' if on else 'false'}")
            thumb.classes(add=f"on-{rating}") if on else thumb.classes(remove=f"on-{rating}")
        t = self._session.t
        said = [self._kept.get("label"), t("feedback.corrected") if self._kept.get("correction") else None]
        said.append(self._kept.get("comment"))
        self._words.set_text(" · ".join(str(word) for word in said if word))

    async def _rate(self, rating: str) -> None:
        await self._say({"rating": None if self._kept.get("rating") == rating else rating})

    async def _say(self, changes: dict[str, Any]) -> bool:
        """Keeps it, changes what was kept, or takes the last of it back."""
        api, kept = self._session.api, self._kept
        with self._session.reporting():
            after = {name: changes.get(name, kept.get(name)) for name in (*_SAID, "author")}
            if not any(after[name] not in (None, "") for name in _SAID):
                if kept.get("id"):
                    await api.delete(f"{_PATH}/{kept['id']}")
                kept.clear()
            elif kept.get("id"):
                self._keep(await api.patch(f"{_PATH}/{kept['id']}", changes))
            else:
                given = {name: value for name, value in changes.items() if value is not None}
                self._keep(await api.post(_PATH, {"trace_id": self._trace_id, "source": "console", **given}))
            self._draw()
            if self._changed is not None:
                await self._changed()
            return True
        return False

    def _keep(self, row: dict[str, Any]) -> None:
        self._kept.clear()
        self._kept.update({name: row[name] for name in ("id", *_SAID, "author")})

    def _open(self) -> None:
        t, kept = self._session.t, self._kept
        with dialog(t("feedback.more"), wide=True) as made:
            began = correction_words(kept.get("correction")) or self._answer()
            correction = ui.textarea(t("feedback.correction"), value=began)
            correction.props("outlined dense autogrow autofocus input-style='max-height: 300px'")
            with box("pair"):
                label = ui.input(t("feedback.label"), value=kept.get("label") or "").props("outlined dense maxlength=256")
                score = ui.number(t("feedback.score"), value=kept.get("score")).props("outlined dense clearable")
            comment = ui.textarea(t("feedback.comment"), value=kept.get("comment") or "").props("outlined dense autogrow")
            author = ui.input(t("feedback.author"), value=kept.get("author") or self._session.store.get("author") or "")
            author.props("outlined dense maxlength=256")

            async def save() -> None:
                right = (correction.value or "").strip()
                changes: dict[str, Any] = {
                    "correction": right if right and right != self._answer().strip() else None,
                    "label": (label.value or "").strip() or None,
                    "score": score.value,
                    "comment": (comment.value or "").strip() or None,
                    "author": (author.value or "").strip() or None,
                }
                self._session.store["author"] = changes["author"] or ""
                if await self._say(changes):
                    made.close()
                    self._session.done(t("feedback.saved"))

            with box("dialog-actions"):
                button(t("cancel"), made.close)
                button(t("save"), save, kind="primary")


async def feedback_panel(session: Session, trace_id: str, answer: str) -> None:
    """What has been said of a trace, and the bar to say more. Made inside the panel that shows it."""
    kept: dict[str, Any] = {}
    place = box()

    async def load() -> None:
        found = (await session.api.get(_PATH, {"trace_id": trace_id, "limit": _MOST}))["data"]
        place.clear()
        with place:
            for row in found:
                if row["id"] != kept.get("id"):
                    _row(session, row, load)
            if not found:
                text(session.t("feedback.nothing"), "muted")

    FeedbackBar(session, trace_id, kept, lambda: answer, load)
    await load()


def _row(session: Session, row: dict[str, Any], reload: Callable[[], Awaitable[None]]) -> None:
    t = session.t

    async def delete() -> None:
        await session.api.delete(f"{_PATH}/{row['id']}")
        await reload()

    def ask() -> None:
        confirm(session, t("feedback.delete"), t("feedback.delete_text"), delete, verb=t("delete"))

    with box("said-row"):
        with box("said-head"):
            if row["rating"]:
                ui.icon(f"thumb_{row['rating']}").classes(f"on-{row['rating']}").tooltip(t(f"feedback.{row['rating']}"))
            if row["label"]:
                text(row["label"], "tag")
            if row["score"] is not None:
                text(f"{row['score']:g}", "tag")
            who = row["author"] or t.of("feedback.source", row["source"])
            text(t("feedback.by", author=who, time=session.time(row["created_at"])), "muted small")
            button("", ask, icon="delete_outline", kind="quiet", hint=t("delete"))
        if row["correction"]:
            text(t("feedback.corrected"), "section-name", tag="h3")
            text(correction_words(row["correction"]), "said", tag="div")
        if row["comment"]:
            text(row["comment"], "said", tag="div")


def correction_words(correction: Any) -> str:
    """The text of a correction, an assistant's message."""
    return said_of(correction) if isinstance(correction, dict) else str(correction or "")


def said_of(message: dict[str, Any]) -> str:
    """The text of a message whose content is text or parts."""
    content = message.get("content", message.get("parts"))
    if isinstance(content, list):
        parts = (part.get("text") or part.get("content") if isinstance(part, dict) else part for part in content)
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
