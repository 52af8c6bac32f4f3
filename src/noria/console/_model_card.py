"""One card of the catalogue, with what can be done with the model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from noria.console import _format
from noria.console._session import Session
from noria.console._widgets import box, button, confirm, state, text

__all__ = ["model_card", "progress_words"]

_STATES = {"loaded": "ok", "ready": "ok", "missing_weights": "warn", "missing_key": "off"}
Reload = Callable[[], Awaitable[None]]


def model_card(session: Session, card: dict[str, Any], pull: dict[str, Any] | None, reload: Reload) -> None:
    t = session.t
    with box("card", "article"):
        with box("card-head"):
            text(card["title"] or card["id"], "strong")
            state(_STATES.get(card["state"], "off"), t.of("state", card["state"]))
        text(card["id"], "mono muted")
        if card["description"]:
            text(card["description"], "small", tag="p")
        text(" · ".join(_facts(session, card)), "muted small")
        if card["route"]:
            _targets(session, card["route"])
        if card["aliases"]:
            text(t("models.aliases", names=", ".join(card["aliases"])), "muted small aliases")
        if pull is not None:
            _progress(session, pull)
        with box("card-actions"):
            _actions(session, card, pull, reload)


def _facts(session: Session, card: dict[str, Any]) -> list[str]:
    t = session.t
    price = card["price"]
    found = [
        t.of("task", card["task"]),
        card["provider"] or t.of("source", card["source"]),
        card["licence"],
        " ".join(card["languages"]) or None,
        _format.size(card["size_bytes"]) if card["size_bytes"] else None,
        t("models.context", count=_format.count(card["context_tokens"])) if card["context_tokens"] else None,
        t("models.dimensions", count=card["dimensions"]) if card["dimensions"] else None,
        t("models.price", given=_format.money(price["input"]), made=_format.money(price["output"])) if price else None,
    ]
    return [fact for fact in found if fact]


def _targets(session: Session, route: dict[str, Any]) -> None:
    total = sum(target["weight"] for target in route["targets"]) or 1
    weighted = route["strategy"] == "weighted"
    with box("targets"):
        text(session.t(f"route.{route['strategy']}"), "muted small")
        for target in route["targets"]:
            share = f"{target['weight'] / total:.0%}  " if weighted else "→ "
            text(f"{share}{target['model']}", "mono")


def progress_words(session: Session, job: dict[str, Any]) -> str:
    done, total = job.get("done") or 0, job.get("total")
    if job["status"] == "queued":
        return session.t("job.queued")
    if job.get("unit") == "bytes":
        return f"{_format.size(done)} / {_format.size(total)}" if total else _format.size(done)
    return f"{done:g} / {total:g} {job.get('unit') or ''}".strip() if total else session.t("job.running")


def _progress(session: Session, job: dict[str, Any]) -> None:
    if job["status"] == "failed":
        error: Any = job["error"] or {}
        text(error.get("message", session.t("job.failed")) if isinstance(error, dict) else error, "problem small", tag="p")
        return
    share = (job.get("done") or 0) / job["total"] if job.get("total") else 0
    with box("progress-row"):
        with box("progress"):
            box("progress-done").style(f"width: {min(share, 1):.1%}")
        text(progress_words(session, job), "muted small")
        stop = partial(_call, session, f"/v1/noria/jobs/{job['id']}/cancel", None, None)
        button("", stop, icon="close", kind="quiet", hint=session.t("cancel"))


def _actions(session: Session, card: dict[str, Any], pull: dict[str, Any] | None, reload: Reload) -> None:
    t = session.t
    pulling = pull is not None and pull["status"] != "failed"
    if card["state"] in {"ready", "loaded"} and card["task"] == "chat":
        query = urlencode({"model": card["id"], "prompt": card["sample_prompt"] or ""})
        button(t("models.try"), lambda: ui.navigate.to(f"/playground?{query}"), icon="play_arrow")
    if card["state"] == "missing_weights" and not pulling:
        start = partial(_call, session, "/v1/noria/pulls", {"model": card["id"]}, reload)
        button(t("models.pull"), start, icon="download")
    if card["state"] == "missing_key":
        text(t("models.needs_key"), "muted small")
    if card["state"] == "loaded" and card["source"] == "engine":
        button(t("models.stop"), partial(_call, session, f"/v1/noria/engines/{card['id']}/stop", {}, reload), kind="quiet")
    if card.get("base") or card["id"].startswith("ft:"):
        lineage = f"/lineage?{urlencode({'id': card['id']})}"
        button("", lambda: ui.navigate.to(lineage), icon="o_hub", kind="quiet", hint=t("lineage.title"))
    if card["weights"] and card["state"] in {"ready", "loaded"}:
        remove = partial(_remove, session, card, reload, weights=True)
        button("", remove, icon="delete_outline", kind="quiet", hint=t("models.remove_weights"))
    if card["added"]:
        button("", partial(_remove, session, card, reload, weights=False), icon="close", kind="quiet", hint=t("models.remove"))


async def _call(session: Session, path: str, body: dict[str, Any] | None, reload: Reload | None) -> None:
    with session.reporting():
        await session.api.post(path, body)
        if reload is not None:
            await reload()


def _remove(session: Session, card: dict[str, Any], reload: Reload, *, weights: bool) -> None:
    t = session.t

    async def go() -> None:
        await session.api.delete(f"/v1/noria/models/{card['id']}", {"weights": "true"} if weights else None)
        session.done(t("deleted"))
        await reload()

    title = t("models.remove_weights" if weights else "models.remove")
    detail = t("models.remove_weights_text" if weights else "models.remove_text", model=card["id"])
    confirm(session, title, detail, go, verb=t("delete"))
