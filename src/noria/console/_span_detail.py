"""What one span was: figures, error, input and output (as a conversation where it was one), attributes, events.

All of it came from outside; only Markdown that has passed `markdown_html` is more than plain text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._markdown import markdown_html, squeezed
from noria.console._session import Session
from noria.console._widgets import box, button, copyable, state, table, text

__all__ = ["span_detail"]

_PART = 30  # messages, calls or events drawn at once
_LONG = 20_000  # characters shown of one value; the raw JSON has it all
_SHOWN_APART = ("gen_ai.input.messages", "gen_ai.output.messages")


def span_detail(session: Session, span: dict[str, Any]) -> None:
    t = session.t
    with box("detail-head"):
        text(span["name"], tag="h2")
        state("error" if span["status"] == "error" else "ok", t.of("status", span["status"]))
    _figures(session, span)
    if span["status"] == "error" and (span["status_message"] or span["error_type"]):
        text(": ".join(filter(None, (span["error_type"], span["status_message"]))), "problem note-box", tag="div")
    for name, value in (("input", span["input"]), ("output", span["output"])):
        if value is not None and value != []:
            text(t(f"trace.{name}"), "section-name", tag="h3")
            _content(session, value)
    _events(session, span["events"])
    attributes = {name: value for name, value in span["attributes"].items() if name not in _SHOWN_APART}
    _pairs(t("trace.attributes"), attributes)
    _pairs(t("trace.resource"), span["resource"])


def _figures(session: Session, span: dict[str, Any]) -> None:
    t = session.t
    tokens = None
    if span["input_tokens"] is not None or span["output_tokens"] is not None:
        tokens = f"{_format.count(span['input_tokens'])} → {_format.count(span['output_tokens'])}"
    with box("summary tight"):
        for name, value in (
            (t("traces.latency"), _format.seconds(span["duration_ns"] / 1e9)),
            (t("trace.ttft"), None if span["ttft_s"] is None else _format.seconds(span["ttft_s"])),
            (t("traces.tokens"), tokens),
            (t("traces.cost"), None if span["cost_usd"] is None else _format.money(span["cost_usd"])),
            (t("traces.model"), span["model"]),
            (t("trace.provider"), span["provider"]),
            (t("trace.service"), span["service"]),
            (t("trace.started"), session.time(span["start_ns"] / 1e9)),
        ):
            if value is not None:
                with box(tag="span"):
                    text(name, "muted")
                    text(value)


def _content(session: Session, value: Any) -> None:
    if isinstance(value, list) and value and all(isinstance(item, dict) and ("role" in item or "type" in item) for item in value):
        _in_parts(session, value, partial(_item, session))
        return
    if isinstance(value, dict) and isinstance(value.get("passages"), list):
        _passages(session, value["passages"])
        value = {name: rest for name, rest in value.items() if name != "passages"}
    if value not in ({}, []):
        _block(session, value)


def _in_parts(session: Session, items: list[Any], draw: Callable[[Any], None]) -> None:
    """The first and the last of many; those between are drawn on demand, a part at a time, for drawing holds every page up."""
    between = items[_PART:-_PART]
    for item in items[:_PART]:
        draw(item)
    if between:
        place = box("parts")

        def more() -> None:
            with place:
                for item in between[:_PART]:
                    draw(item)
            del between[:_PART]
            ask.set_text(session.t("trace.between", count=len(between)))
            ask.set_visibility(bool(between))

        ask = button(session.t("trace.between", count=len(between)), more, icon="unfold_more", kind="quiet")
    for item in items[max(len(items) - _PART, _PART) :]:
        draw(item)


def _item(session: Session, item: Mapping[str, Any]) -> None:
    if "role" in item or item["type"] == "message":
        _message(session, item)
        return
    with ui.element("details").classes("item"):  # a call or its result, folded away: results are long
        text(item["type"], tag="summary")
        _block(session, item)


def _passages(session: Session, passages: list[Any]) -> None:
    """What a retrieval found."""
    for number, passage in enumerate(passages, 1):
        if not isinstance(passage, dict):
            _block(session, passage)
            continue
        with box("message"):
            score = passage.get("score")
            shown = f" · {score:.3f}" if isinstance(score, int | float) else ""
            text(f"{number} · {passage.get('filename') or passage.get('file_id') or ''}{shown}", "role")
            text(squeezed(str(passage.get("text") or ""))[:_LONG], "said small", tag="div")


def _message(session: Session, item: Mapping[str, Any]) -> None:
    role = str(item.get("role") or item.get("type"))
    with box(f"message {'from-user' if role == 'user' else ''}"):
        text(session.t.of("role", role), "role")
        said = _said(item)
        if said and role == "assistant":
            ui.html(markdown_html(said[:_LONG]), sanitize=True).classes("prose")
        elif said:
            text(said[:_LONG], "said", tag="div")
        rest = {k: v for k, v in item.items() if k not in {"role", "type", "content", "parts", "id", "status"} and v}
        if rest:
            _block(session, rest)


def _said(item: Mapping[str, Any]) -> str:
    """The text of a message, in the shapes of chat, Responses and OpenTelemetry."""
    content = item.get("content", item.get("parts"))
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return "" if content is None else json.dumps(content, ensure_ascii=False)
    said: list[str] = []
    for part in content:
        found = part.get("text") or part.get("content") if isinstance(part, dict) else part
        said.append(found if isinstance(found, str) else json.dumps(part, ensure_ascii=False))
    return "\n".join(said)


def _block(session: Session, value: Any) -> None:
    content = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    copyable(session, content if len(content) <= _LONG else f"{content[:_LONG]}\n…")


def _events(session: Session, events: list[dict[str, Any]]) -> None:
    if not events:
        return
    text(session.t("trace.events"), "section-name", tag="h3")
    _in_parts(session, events, _event)


def _event(event: Mapping[str, Any]) -> None:
    with box("message"):
        text(event.get("name", ""), "role")
        for name, value in (event.get("attributes") or {}).items():
            text(f"{name}: {_short(value)}", "said mono", tag="div")


def _pairs(title: str, values: Mapping[str, Any]) -> None:
    if not values:
        return
    text(title, "section-name", tag="h3")
    body = table([], classes="pairs")
    for name, value in sorted(values.items()):
        with body, box(tag="tr"):
            text(name, "mono muted", tag="td")
            text(_short(value), "mono", tag="td")


def _short(value: Any) -> str:
    content = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return content if len(content) <= 2000 else f"{content[:2000]}…"
