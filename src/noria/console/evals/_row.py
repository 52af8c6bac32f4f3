"""One row of an eval: what was asked, what was expected, and what each model answered, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from nicegui import ui

from noria.console._session import Session
from noria.console._widgets import box, state, text

__all__ = ["asked_words", "row_view"]

_STATES = {"pass": "ok", "fail": "error", "error": "warn"}
_LONG = 6000


def row_view(
    session: Session, item: dict[str, Any], answers: Sequence[tuple[str, dict[str, Any]]], outcome: str | None = None
) -> None:
    """`answers` are a title and an output item each; `outcome` is who won, where two are compared."""
    t = session.t
    with box("eval-row"):
        with box("eval-asked"):
            if outcome:
                text(t(f"compare.outcome.{outcome}"), f"outcome {outcome}")
            text(asked_words(item)[:_LONG], "said", tag="div")
            if item.get("expected") not in (None, ""):
                text(t("run.expected"), "section-name", tag="h3")
                text(_plain(item["expected"])[:_LONG], "said", tag="div")
        with box(f"answers n{len(answers)}"):
            for title, answer in answers:
                _answer(session, title, answer)


def _answer(session: Session, title: str, item: dict[str, Any]) -> None:
    t = session.t
    with box("answer"):
        with box("answer-head"):
            text(title, "mono strong")
            state(_STATES.get(item["status"], "off"), t.of("item", item["status"]))
            trace = (item.get("noria") or {}).get("trace_id")
            if trace:
                ui.link(t("run.trace"), f"/traces/{trace}")
        text(_output(item)[:_LONG], "said", tag="div")
        with box("metrics"):
            for result in item["results"]:
                score = result.get("score")
                shown = f"{result['name']} {score:.3f}" if isinstance(score, int | float) else str(result["name"])
                text(shown, "" if result.get("passed") else "problem").tooltip(
                    str(result.get("error") or result.get("type") or "")
                )
                if result.get("error"):
                    text(_plain(result["error"])[:300], "problem small")


def asked_words(item: dict[str, Any]) -> str:
    """The question of a row, however the row spells it."""
    for name in ("input", "question", "prompt", "text"):
        if item.get(name):
            return _plain(item[name])
    messages = item.get("messages")
    if isinstance(messages, list) and messages:
        return _plain(messages[-1].get("content") if isinstance(messages[-1], dict) else messages[-1])
    return json.dumps({name: value for name, value in item.items() if name != "expected"}, ensure_ascii=False, indent=1)


def _output(item: dict[str, Any]) -> str:
    sample = item.get("sample") or {}
    if error := sample.get("error"):
        return _plain(error.get("message") if isinstance(error, dict) else error)
    output = sample.get("output")
    if isinstance(output, list):
        return "\n".join(_plain(part.get("content")) for part in output if isinstance(part, dict))
    return _plain(output)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
