"""Dialogs that add a model of a provider, and a route over several models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from noria.console._session import Session
from noria.console._widgets import box, button, dialog, text

__all__ = ["add_model_dialog", "add_route_dialog"]

Reload = Callable[[], Awaitable[None]]


def add_model_dialog(session: Session, providers: list[dict[str, Any]], reload: Reload) -> None:
    t = session.t
    titles = {row["id"]: row["title"] for row in providers if row["object"] == "noria.provider"}
    with dialog(t("models.add")) as made:
        provider = ui.select(titles, label=t("models.provider"), value=next(iter(titles))).props("outlined dense options-dense")
        upstream = ui.input(t("models.upstream"), placeholder="gpt-4o-mini").props("outlined dense")
        name = ui.input(t("models.local_id"), placeholder="provider/name").props("outlined dense")
        base_url = ui.input(t("models.base_url"), placeholder="https://…/v1").props("outlined dense")
        task = ui.select({"chat": t("task.chat"), "embedding": t("task.embedding")}, label=t("models.task"), value="chat")
        task.props("outlined dense options-dense")
        with box("pair"):
            given = ui.number(t("models.price_in"), min=0).props("outlined dense")
            answered = ui.number(t("models.price_out"), min=0).props("outlined dense")

        async def add() -> None:
            wanted = (upstream.value or "").strip()
            body: dict[str, Any] = {
                "id": (name.value or "").strip() or f"{provider.value}/{wanted}",
                "source": "provider",
                "provider": provider.value,
                "task": task.value,
            }
            if wanted:
                body["upstream"] = wanted
            if base_url.value:
                body["base_url"] = base_url.value.strip()
            if given.value is not None or answered.value is not None:
                body["price"] = {"input": given.value or 0, "output": answered.value or 0}
            await _save(session, body, made, reload)

        with box("dialog-actions"):
            button(t("cancel"), made.close)
            button(t("add"), add, kind="primary")


async def add_route_dialog(session: Session, reload: Reload) -> None:
    with session.reporting():
        cards = (await session.api.get("/v1/noria/models"))["data"]
        _route_form(session, {card["id"]: card for card in cards if card["source"] != "route"}, reload)


def _route_form(session: Session, models: dict[str, dict[str, Any]], reload: Reload) -> None:
    t = session.t
    with dialog(t("models.add_route")) as made:
        text(t("route.text"), "muted", tag="p")
        name = ui.input(t("models.local_id"), placeholder="my-route").props("outlined dense autofocus")
        strategies = {"weighted": t("route.weighted"), "fallback": t("route.fallback")}
        strategy = ui.select(strategies, label=t("route.strategy"), value="weighted").props("outlined dense options-dense")
        targets: list[dict[str, Any]] = []
        rows = box("targets-form")

        def add_target() -> None:
            target: dict[str, Any] = {"model": None, "weight": 1.0}
            targets.append(target)
            with rows, box("search-row") as row:
                model = ui.select(list(models), label=t("playground.model")).props("outlined dense options-dense")
                model.classes("grow").bind_value_to(target, "model")
                weight = ui.number(t("route.weight"), value=1, min=0, step=0.1).props("outlined dense").classes("most")
                weight.bind_value_to(target, "weight").bind_visibility_from(strategy, "value", value="weighted")

                def remove() -> None:
                    targets.remove(target)
                    row.delete()

                button("", remove, icon="close", kind="quiet", hint=t("delete"))

        add_target()
        add_target()
        button(t("route.add_target"), add_target, icon="add", kind="quiet")
        sticky = ui.checkbox(t("route.sticky")).props("dense")

        async def add() -> None:
            chosen = [{"model": one["model"], "weight": float(one["weight"] or 0)} for one in targets if one["model"]]
            body: dict[str, Any] = {
                "id": (name.value or "").strip(),
                "source": "route",
                "task": models[str(chosen[0]["model"])]["task"] if chosen else "chat",
                "route": {"strategy": strategy.value, "targets": chosen, "sticky": bool(sticky.value)},
            }
            await _save(session, body, made, reload)

        with box("dialog-actions"):
            button(t("cancel"), made.close)
            button(t("add"), add, kind="primary")


async def _save(session: Session, body: dict[str, Any], made: ui.dialog, reload: Reload) -> None:
    with session.reporting():
        await session.api.post("/v1/noria/models", body)
        made.close()
        session.done(session.t("saved"))
        await reload()
