"""One trace: its spans as a waterfall, and what the chosen span took in, gave out and cost."""

from __future__ import annotations

import json
from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._feedback import feedback_panel, said_of
from noria.console._session import Session
from noria.console._span_detail import span_detail
from noria.console._waterfall import Waterfall, flatten
from noria.console._widgets import box, button, confirm, copyable, dialog, page_head, panel, state, text

__all__ = ["trace_page"]

_RAW_CHARS = 400_000


async def trace_page(session: Session, trace: str) -> None:
    t = session.t
    found: dict[str, Any] = await session.api.get(f"/v1/noria/traces/{trace}")

    def copy_id() -> None:
        ui.clipboard.write(found["id"])
        session.done(t("copied"))

    async def delete() -> None:
        await session.api.delete(f"/v1/noria/traces/{found['id']}")
        session.done(t("deleted"))
        ui.navigate.to("/traces")

    def ask() -> None:
        confirm(session, t("trace.delete"), t("trace.delete_text"), delete, verb=t("delete"))

    with page_head(found["name"] or found["id"], session.time(found["start_ns"] / 1e9)):
        lineage = f"/lineage?id={found['id']}"
        button(t("lineage.title"), lambda: ui.navigate.to(lineage), icon="o_hub", kind="quiet")
        button(t("trace.copy_id"), copy_id, icon="tag", kind="quiet")
        button(t("trace.raw"), lambda: _raw(session, found), icon="data_object", kind="quiet")
        button(t("delete"), ask, icon="delete_outline", kind="quiet")
    _summary(session, found)
    with box("trace"):
        with box("column"):
            with box("panel falls"):
                waterfall = Waterfall(session, found)
            with panel(t("feedback.title")):
                await feedback_panel(session, found["id"], _answer(found))
        with box("panel detail") as place:
            pass

    def show(span: dict[str, Any]) -> None:
        place.clear()
        with place:
            span_detail(session, span)

    waterfall.on_choose(show)


def _answer(trace: dict[str, Any]) -> str:
    """What the request answered, where a correction begins."""
    for _, span in flatten(trace["spans"]):
        if isinstance(span["output"], list) and span["output"] and isinstance(span["output"][-1], dict):
            return said_of(span["output"][-1])
    return ""


def _summary(session: Session, trace: dict[str, Any]) -> None:
    t = session.t
    failed = trace["status"] == "error"
    with box("summary"):
        state("error" if failed else "ok", trace["error_type"] or t.of("status", trace["status"]))
        for name, value in (
            (t("traces.latency"), _format.seconds(trace["duration_ns"] / 1e9)),
            (t("trace.ttft"), _format.seconds(trace["ttft_s"])),
            (t("traces.tokens"), f"{_format.count(trace['input_tokens'])} → {_format.count(trace['output_tokens'])}"),
            (t("traces.cost"), _format.money(trace["cost_usd"])),
            (t("traces.model"), trace["model"] or "–"),
            (t("trace.spans"), trace["span_count"]),
            (t("trace.key"), trace["key_id"]),
            (t("trace.session"), trace["session_id"]),
            (t("trace.user"), trace["user_id"]),
        ):
            if value is not None:
                with box(tag="span"):
                    text(name, "muted")
                    text(value)
        text(trace["id"], "mono muted")


def _raw(session: Session, trace: dict[str, Any]) -> None:
    content = json.dumps(trace, ensure_ascii=False, indent=1)
    with dialog(session.t("trace.raw"), wide=True) as made:
        cut = content[:_RAW_CHARS]
        copyable(session, cut if len(cut) == len(content) else f"{cut}\n…")
        with box("dialog-actions"):
            button(session.t("close"), made.close)
