"""A turn's state: each step with what it made, and what a person may ask of it now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from noria.console import _format
from noria.console._figures import p_value, percent
from noria.console._jobs import progress_bar
from noria.console._session import Session
from noria.console._widgets import box, button, confirm, panel, text
from noria.console.wheel._list import turn_state

__all__ = ["made_words", "turn_panel"]

_ICONS = {"done": "check", "stopped": "close", "current": "more_horiz", "ahead": "", "not needed": ""}
_ALLOWED = {
    "approve": ("approve",),
    "reject": ("approve",),
    "rollback": ("canary", "watch"),
    "cancel": ("collect", "curate", "split", "train", "evaluate", "gate", "approve"),
}
"""What may be asked of a turn, by its step."""
_VERBS = {
    "approve": ("check", "primary"),
    "reject": ("close", "danger"),
    "rollback": ("undo", "danger"),
    "cancel": ("stop", "quiet"),
}


def turn_panel(session: Session, path: str, turn: dict[str, Any], reload: Callable[[], Awaitable[None]]) -> None:
    t = session.t
    title = t("wheel.turn_number", number=turn["number"])
    with panel(title, actions=lambda: turn_state(session, turn)):
        if turn["data"].get("reason"):
            kind = "problem note-box" if turn["outcome"] in {"failed", "rolled_back"} else "muted"
            text(turn["data"]["reason"], kind, tag="p")
        with box("steps"):
            for step in turn["steps"]:
                _step(session, turn, step)
        asked = [what for what, steps in _ALLOWED.items() if turn["step"] in steps]
        if asked:
            with box("dialog-actions"):
                for what in reversed(asked):
                    _button(session, f"{path}/turns/{turn['id']}/{what}", what, reload)


def _step(session: Session, turn: dict[str, Any], step: dict[str, str]) -> None:
    t = session.t
    with box(f"step {step['state'].replace(' ', '-')}"):
        text(_ICONS.get(step["state"], ""), "step-icon material-icons")
        text(t(f"turn.step.{step['step']}"), "step-name")
        progress = turn["progress"] if step["state"] == "current" else None
        if progress and progress["total"]:
            with box("progress-row"):
                progress_bar(progress["done"] / progress["total"])
                text(f"{_format.count(progress['done'])} / {_format.count(progress['total'])}", "muted small")
        else:
            text(made_words(session, turn, step["step"], current=step["state"] == "current"), "muted small")


def made_words(session: Session, turn: dict[str, Any], step: str, *, current: bool = False) -> str:
    """What a step made, in a few words."""
    t, data, count = session.t, turn["data"], _format.count
    made: dict[str, Any] = data.get(step) or {}
    match step:
        case "collect" if made:
            return t("turn.collected", rows=count(made.get("new_rows")), feedback=count(made.get("feedback")))
        case "curate" if made:
            return t("turn.removed", count=count(sum((made.get("removed") or {}).values())))
        case "split" if made:
            return t("turn.split", train=count(made.get("train_rows")), test=count(made.get("test_rows")))
        case "train" if made:
            return str(made.get("model") or made.get("job_id") or "")
        case "evaluate" if "candidate" in made and "base" in made:
            return ""
        case "gate" if made.get("comparisons"):
            main = made["comparisons"][0]
            figures = {"base": percent(main["base"]), "candidate": percent(main["candidate"]), "p": p_value(main["p"])}
            return t("turn.gated", **figures)
        case "approve" if current:
            return t("turn.waits")
        case "canary" if made.get("share"):
            return t("turn.share", share=percent(made["share"]))
        case _:
            return ""


def _button(session: Session, path: str, what: str, reload: Callable[[], Awaitable[None]]) -> None:
    t = session.t
    icon, kind = _VERBS[what]

    async def ask() -> None:
        await session.api.post(path, {"by": "console"})
        await reload()

    async def at_once() -> None:
        with session.reporting():
            await ask()

    if what in {"rollback", "cancel"}:
        message = t("turn.sure") if what == "rollback" else t("turn.sure_cancel")
        button(
            t(f"turn.{what}"),
            partial(confirm, session, t(f"turn.{what}"), message, ask, verb=t(f"turn.{what}")),
            icon=icon,
            kind=kind,
        )
    else:
        button(t(f"turn.{what}"), at_once, icon=icon, kind=kind)
