"""The list of fine-tuning jobs, and a new one from a dataset or from files."""

from __future__ import annotations

import asyncio
from typing import Any

from nicegui import ui

from noria.console import _format
from noria.console._offers import chosen, offer
from noria.console._pages import Pages
from noria.console._session import Session
from noria.console._widgets import box, button, dialog, empty, page_head, state, table, text

__all__ = ["STATES", "tuning_page"]

STATES = {
    "validating_files": "busy", "queued": "busy", "running": "busy", "paused": "warn", "succeeded": "ok", "failed": "error",
    "cancelled": "off",
}  # fmt: skip
_PAGE = 25
_WATCH_S = 3.0


async def tuning_page(session: Session, query: dict[str, str]) -> None:
    t = session.t
    with page_head(t("tuning.title")):
        button(t("tuning.create"), lambda: _create(session, query.get("dataset")), icon="add", kind="primary")

    async def fetch(after: str | None) -> dict[str, Any]:
        return await session.api.get("/v1/fine_tuning/jobs", {"limit": _PAGE, "after": after})

    with box("panel"):
        pages = Pages(session, fetch, lambda rows: _draw(session, rows))
    await pages.load()
    pages.keep_fresh(_WATCH_S, lambda: any(STATES.get(row["status"]) == "busy" for row in pages.shown or ()))
    if query.get("dataset"):
        await _create(session, query["dataset"])


def _draw(session: Session, jobs: list[dict[str, Any]]) -> None:
    t = session.t
    if not jobs:
        empty(t("tuning.none"), t("tuning.none_hint"))
        return
    columns = [(t("tuning.model"), ""), (t("traces.status"), ""), (t("tuning.from"), "wide"), (t("tuning.method"), "wide")]
    body = table([*columns, (t("tuning.created"), "when"), (t("tuning.took"), "num wide")])
    for job in jobs:
        with body, box(tag="tr"):
            with box("name", tag="td"):
                ui.link(job["fine_tuned_model"] or job["user_provided_suffix"] or job["id"], f"/tuning/{job['id']}")
            with box(tag="td"):
                state(STATES.get(job["status"], "off"), t.of("tuned", job["status"]))
            text(job["model"], "wide mono name", tag="td")
            text(t.of("tuning.method", job["method"]["type"]), "wide", tag="td")
            text(session.time(job["created_at"]), "when", tag="td")
            took = job["finished_at"] - job["created_at"] if job["finished_at"] else None
            text(_format.seconds(took), "num wide", tag="td")


async def _create(session: Session, wanted: str | None) -> None:
    t, api = session.t, session.api
    with session.reporting():
        models, datasets, files = await asyncio.gather(
            api.get("/v1/noria/models"),
            offer(api, "/v1/noria/datasets", [wanted]),
            offer(api, "/v1/files", params={"purpose": "fine-tune"}),
        )
        cards = [card["id"] for card in models["data"] if card["engine"] == "openvino"]
        sets = {row["id"]: row["name"] for row in datasets.rows if row["head"]}
        known = {row["id"]: row["filename"] for row in files.rows}
        with dialog(t("tuning.create"), wide=True) as made:
            form = _Form(session, cards, sets, known, wanted)

            async def start() -> None:
                with session.reporting():
                    job = await api.post("/v1/fine_tuning/jobs", await form.body(), timeout_s=120)
                    made.close()
                    ui.navigate.to(f"/tuning/{job['id']}")

            with box("dialog-actions"):
                button(t("cancel"), made.close)
                button(t("tuning.start"), start, kind="primary").set_enabled(bool(cards and (sets or known)))


class _Form:
    """The fields of a new job."""

    def __init__(
        self, session: Session, models: list[str], sets: dict[str, str], files: dict[str, str], wanted: str | None
    ) -> None:
        t = session.t
        self._session = session
        with box("pair"):
            self._model = ui.select(models, label=t("tuning.from"), value=next(iter(models), None))
            methods = {kind: t(f"tuning.method.{kind}") for kind in ("supervised", "dpo")}
            self._method = ui.select(methods, label=t("tuning.method"), value="supervised")
        sources = {kind: t(f"tuning.source.{kind}") for kind in ("dataset", "file")}
        self._source = ui.select(sources, label=t("tuning.source"), value="dataset" if sets or not files else "file")
        label = t("tuning.dataset") if sets else t("tuning.no_datasets")
        self._dataset = ui.select(sets, label=label, value=chosen(sets, wanted), with_input=True)
        note = text(t("tuning.splits_hint"), "muted small", tag="p")
        self._file = ui.select(files, label=t("tuning.file"), value=next(iter(files), None), with_input=True)
        held_out = {"": t("tuning.no_file"), **files}
        self._validation = ui.select(held_out, label=t("tuning.validation_file"), value="", with_input=True)
        for field, kind in ((self._dataset, "dataset"), (note, "dataset"), (self._file, "file"), (self._validation, "file")):
            field.bind_visibility_from(self._source, "value", value=kind)
        self._suffix = ui.input(t("tuning.suffix")).props("outlined dense maxlength=64")
        with box("fields tight"):
            self._numbers = {
                name: ui.number(t(f"tuning.{name}"), min=0, precision=precision).props("outlined dense clearable")
                for name, precision in (("epochs", 0), ("batch", 0), ("rate", 3), ("rank", 0), ("minutes", 1), ("seed", 0))
            }
        text(t("tuning.auto_hint"), "muted small", tag="p")
        for field in (self._model, self._method, self._source, self._dataset, self._file, self._validation):
            field.props("outlined dense options-dense")

    async def body(self) -> dict[str, Any]:
        """The job's body; a dataset's splits are kept as files first."""
        given = {name: field.value for name, field in self._numbers.items() if field.value is not None}
        parameters: dict[str, Any] = {
            **({"n_epochs": int(given["epochs"])} if "epochs" in given else {}),
            **({"batch_size": int(given["batch"])} if "batch" in given else {}),
            **({"learning_rate_multiplier": float(given["rate"])} if "rate" in given else {}),
        }
        options: dict[str, Any] = {
            **({"lora_rank": int(given["rank"])} if "rank" in given else {}),
            **({"max_minutes": float(given["minutes"])} if "minutes" in given else {}),
        }
        kind = str(self._method.value)
        body: dict[str, Any] = {"model": self._model.value, "method": {"type": kind, kind: {"hyperparameters": parameters}}}
        body |= {"suffix": self._suffix.value.strip()} if self._suffix.value else {}
        body |= {"seed": int(given["seed"])} if "seed" in given else {}
        body |= {"noria": options} if options else {}
        if self._source.value == "dataset":
            return body | await self._exported("dpo" if kind == "dpo" else "openai")
        return body | {"training_file": self._file.value, "validation_file": self._validation.value or None}

    async def _exported(self, kind: str) -> dict[str, str]:
        api, path = self._session.api, f"/v1/noria/datasets/{self._dataset.value}"
        counts = (await api.get(path))["newest"]["counts"]
        body = {"training_file": (await api.post(f"{path}/export", {"split": "train", "format": kind}))["id"]}
        if counts.get("validation"):
            body["validation_file"] = (await api.post(f"{path}/export", {"split": "validation", "format": kind}))["id"]
        return body
