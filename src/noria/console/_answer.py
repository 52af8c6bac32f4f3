"""One answer of the playground: its text as it grows, its figures, its citations."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

from nicegui import ui
from nicegui.events import GenericEventArguments

from noria.console import _format
from noria.console._conversation import Answer, Citation
from noria.console._feedback import FeedbackBar
from noria.console._markdown import answer_html
from noria.console._session import Session
from noria.console._widgets import box, button, dialog, state, text

__all__ = ["AnswerView", "place_words"]

# Only the number travels; which passage it is, this side knows.
_ON_CITE = "(e) => { const a = e.target.closest('[data-cite]'); if (a) { e.preventDefault(); emit(a.dataset.cite); } }"
_CHARS_PER_S = 50_000  # of one growing answer; rendering them takes about a twentieth of the time
_STATES = {"waiting": "busy", "writing": "busy", "done": "ok", "stopped": "warn", "failed": "error"}


class AnswerView:
    """Shows one answer; `update` redraws what has changed since the last call."""

    def __init__(self, session: Session, answer: Answer) -> None:
        self._session, self._answer = session, answer
        self._version = -1
        self._next_s = 0.0
        self._rated = False
        with box("answer"):
            self._head = box("answer-head")
            self._text = ui.html("", sanitize=True).classes("prose")
            self._text.on("click", self._clicked, js_handler=_ON_CITE)
            self._foot = box("answer-foot")
            self._opinion = box()
        self.update()

    def update(self) -> bool:
        answer = self._answer
        if self._version == answer.version or (answer.running and time.monotonic() < self._next_s):
            return False
        self._version = answer.version
        # The whole text is rendered and sent each time: the longer it is, the more seldom, so that all of it stays linear.
        self._next_s = time.monotonic() + len(answer.text) / _CHARS_PER_S
        self._text.set_content(self._html())
        self._draw_head()
        if not answer.running:
            self._draw_foot()
            self._draw_opinion()
        return True

    def _draw_opinion(self) -> None:
        answer = self._answer
        if answer.trace_id and answer.text and not self._rated:
            self._rated = True
            with self._opinion:
                FeedbackBar(self._session, answer.trace_id, answer.feedback, lambda: answer.text)

    def _html(self) -> str:
        answer = self._answer
        if answer.is_json and answer.text:
            return answer_html(f"```json\n{_pretty(answer.text)}\n```", ())
        return answer_html(answer.text, ((c.index, c.number) for c in answer.citations))

    def _draw_head(self) -> None:
        t, answer = self._session.t, self._answer
        self._head.clear()
        with self._head:
            text(answer.model, "mono strong")
            if answer.state != "done":
                state(_STATES[answer.state], t(f"answer.{answer.state}"))
            if answer.mode in {"extract", "absent"}:
                text(t(f"answer.mode.{answer.mode}"), "tag")
            if answer.finish == "length":
                text(t("answer.cut"), "tag warn")

    def _draw_foot(self) -> None:
        t, answer = self._session.t, self._answer
        self._foot.clear()
        with self._foot:
            if answer.error is not None:
                text(self._session.explain(answer.error), "problem", tag="div")
            self._sources()
            with box("metrics"):
                text(t("answer.ttft", value=_format.seconds(answer.ttft_s)))
                text(t("answer.latency", value=_format.seconds(answer.latency_s)))
                if answer.output_tokens is not None:
                    text(t("answer.tokens", given=answer.input_tokens, made=answer.output_tokens))
                    if answer.latency_s and answer.ttft_s is not None and answer.output_tokens > 1:
                        rate = (answer.output_tokens - 1) / max(answer.latency_s - answer.ttft_s, 1e-3)
                        text(t("answer.rate", value=f"{rate:.0f}"))
                if answer.cost_usd is not None:
                    text(_format.money(answer.cost_usd))
                if answer.trace_id:
                    ui.link(t("answer.trace"), f"/traces/{answer.trace_id}")
                button("", self._copy, icon="content_copy", kind="quiet", hint=t("copy"))

    def _sources(self) -> None:
        cited = {citation.number: citation for citation in self._answer.citations}
        if not cited:
            return
        with box("sources"):
            for number, citation in sorted(cited.items()):
                with ui.element("button").classes("source").on("click", partial(self._open, citation)):
                    text(number, "cite")
                    text(citation.filename)
                    text(place_words(self._session, citation.place), "muted")

    def _copy(self) -> None:
        ui.clipboard.write(self._answer.text)
        self._session.done(self._session.t("copied"))

    def _clicked(self, event: GenericEventArguments) -> None:
        for citation in self._answer.citations:
            if str(citation.number) == str(event.args):
                self._open(citation)
                return

    def _open(self, citation: Citation) -> None:
        with dialog(f"[{citation.number}] {citation.filename}", wide=True) as made:
            text(place_words(self._session, citation.place), "muted")
            quote = str(citation.place.get("quote") or "")
            before, _, after = citation.passage.partition(quote) if quote else (citation.passage, "", "")
            with box("passage"):
                text(before or ("" if quote else self._session.t("answer.no_passage")))
                if quote:
                    text(quote, tag="mark")
                text(after)
            with box("dialog-actions"):
                button(self._session.t("close"), made.close)


def place_words(session: Session, place: dict[str, Any]) -> str:
    """`page 3 · Handbook › Holidays · characters 120–340`, as far as it is known."""
    t = session.t
    parts: list[str] = []
    if page := place.get("page"):
        last = place.get("last_page")
        parts.append(t("place.page", page=f"{page}–{last}" if last and last != page else page))
    if path := place.get("heading_path"):
        parts.append(" › ".join(path))
    if place.get("end") is not None:
        parts.append(t("place.span", start=place.get("start"), end=place["end"]))
    return " · ".join(parts)


def _pretty(content: str) -> str:
    try:
        return json.dumps(json.loads(content), ensure_ascii=False, indent=2)
    except ValueError:  # not whole yet
        return content
