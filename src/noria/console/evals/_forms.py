"""A new eval by what a good answer is, and a new run of one. What the forms do not know, JSON says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from noria.console._offers import offer
from noria.console._session import Session
from noria.console._widgets import box, button, dialog, text

__all__ = ["criteria_of", "new_eval", "start_run"]

_METRICS = ("fuzzy_match", "rouge_l", "bleu", "gleu", "meteor", "cosine")
_KINDS = ("same", "contains", "similar", "judge", "json")
_ITEM = {
    "type": "object",
    "properties": {"input": {"type": "string"}, "expected": {"type": "string"}, "messages": {"type": "array"}},
    "required": ["input"],
}
_JUDGE = (
    "You grade answers. Score how well the answer agrees with the expected one, from 0 (not at all) to 1 (fully).\n"
    "Question: {{item.input}}\nExpected: {{item.expected}}\nAnswer: {{sample.output_text}}"
)
_SPLITS = ("test", "validation", "train")


def criteria_of(kind: str, *, metric: str = "fuzzy_match", threshold: float = 0.8, judge: str = "", told: str = "") -> Any:
    """OpenAI's testing criteria for a kind of good answer. Raises ValueError for JSON that is not a list."""
    both = {"input": "{{sample.output_text}}", "reference": "{{item.expected}}"}
    if kind in {"same", "contains"}:
        operation = "eq" if kind == "same" else "ilike"
        return [{"type": "string_check", "name": kind, "operation": operation, **both}]
    if kind == "similar":
        return [{"type": "text_similarity", "name": metric, "evaluation_metric": metric, "pass_threshold": threshold, **both}]
    if kind == "judge":
        asked = [{"role": "user", "content": told}]
        judged = {"type": "score_model", "name": "judge", "model": judge, "input": asked, "range": [0, 1]}
        return [{**judged, "pass_threshold": threshold}]
    found = json.loads(told)
    if not isinstance(found, list):
        raise ValueError("it is not a list")
    return found


async def new_eval(session: Session) -> None:
    t = session.t
    with session.reporting():
        models = await _chat_models(session)
        with dialog(t("evals.create")) as made:
            name = ui.input(t("evals.name")).props("outlined dense autofocus maxlength=256")
            kind = ui.select({each: t(f"evals.kind.{each}") for each in _KINDS}, label=t("evals.kind"), value="same")
            metric = ui.select(list(_METRICS), label=t("evals.metric"), value="fuzzy_match")
            judge = ui.select(models, label=t("evals.judge_model"), value=next(iter(models), None))
            for field in (kind, metric, judge):
                field.props("outlined dense options-dense")
            threshold = ui.number(t("evals.threshold"), value=0.8, min=0, max=1, step=0.05).props("outlined dense")
            told = ui.textarea(t("evals.judge_prompt"), value=_JUDGE).props("outlined dense autogrow")
            note = text(t("evals.judge_note"), "muted small")
            raw = ui.textarea(t("evals.criteria_json"), value=json.dumps(criteria_of("same"), indent=1))
            raw.props("outlined dense autogrow input-class=mono input-style='max-height: 300px'")
            for field, kinds in ((metric, {"similar"}), (judge, {"judge"}), (told, {"judge"}), (raw, {"json"})):
                field.bind_visibility_from(kind, "value", backward=lambda value, kinds=kinds: value in kinds)
            threshold.bind_visibility_from(kind, "value", backward=lambda value: value in {"similar", "judge"})
            note.bind_visibility_from(kind, "value", backward=lambda value: value == "judge")

            async def create() -> None:
                given = raw.value if kind.value == "json" else told.value
                least, by = float(threshold.value or 0), str(judge.value or "")
                try:
                    criteria = criteria_of(str(kind.value), metric=str(metric.value), threshold=least, judge=by, told=given or "")
                except ValueError as error:
                    ui.notify(t("evals.bad_json", reason=error), type="negative", position="top")
                    return
                config = {"type": "custom", "item_schema": _ITEM, "include_sample_schema": True}
                body = {"name": (name.value or "").strip(), "data_source_config": config, "testing_criteria": criteria}
                with session.reporting():
                    row = await session.api.post("/v1/evals", body)
                    made.close()
                    ui.navigate.to(f"/evals/{row['id']}")

            with box("dialog-actions"):
                button(t("cancel"), made.close)
                button(t("add"), create, kind="primary")


async def start_run(session: Session, eval_id: str, done: Callable[[], Awaitable[None]]) -> None:
    """A run of a model over a dataset's rows."""
    t, api = session.t, session.api
    with session.reporting():
        models, datasets, prompts = await asyncio.gather(
            _chat_models(session),
            offer(api, "/v1/noria/datasets"),
            offer(api, "/v1/noria/prompts"),
        )
        names = {row["id"]: row["name"] for row in datasets.rows}
        with dialog(t("evals.start")) as made:
            if not names:
                text(t("evals.no_datasets"), "muted", tag="p")
                ui.link(t("nav.datasets"), "/datasets")
                return
            model = ui.select(models, label=t("evals.model"), value=next(iter(models), None))
            dataset = ui.select(names, label=t("evals.dataset"), value=next(iter(names)), with_input=True)
            with box("pair"):
                splits = {"": t("any"), **{split: t.of("split", split) for split in _SPLITS}}
                split = ui.select(splits, label=t("evals.split"), value="test")
                limit = ui.number(t("evals.limit"), min=1, precision=0).props("outlined dense clearable")
            with box("pair"):
                temperature = ui.number(t("evals.temperature"), value=0, min=0, max=2, step=0.1)
                tokens = ui.number(t("evals.max_tokens"), value=256, min=1, precision=0)
            chosen = {"": t("evals.no_prompt"), **{row["id"]: row["name"] for row in prompts.rows}}
            prompt = ui.select(chosen, label=t("evals.prompt"), value="", with_input=True)
            for field in (model, dataset, split, temperature, tokens, prompt):
                field.props("outlined dense options-dense")

            async def start() -> None:
                source: dict[str, Any] = {"type": "noria_dataset", "dataset": dataset.value}
                source |= {"split": split.value} if split.value else {}
                source |= {"limit": int(limit.value)} if limit.value else {}
                sampling: dict[str, Any] = {"max_completion_tokens": int(tokens.value or 256)}
                sampling |= {} if temperature.value is None else {"temperature": float(temperature.value)}
                asked = {"type": "completions", "model": model.value, "source": source, "sampling_params": sampling}
                body: dict[str, Any] = {"name": f"{model.value} · {names[str(dataset.value)]}", "data_source": asked}
                body |= {"noria": {"prompt": {"id": prompt.value}}} if prompt.value else {}
                with session.reporting():
                    await api.post(f"/v1/evals/{eval_id}/runs", body)
                    made.close()
                    await done()

            with box("dialog-actions"):
                button(t("cancel"), made.close)
                button(t("evals.start"), start, kind="primary")


async def _chat_models(session: Session) -> list[str]:
    cards = (await session.api.get("/v1/noria/models"))["data"]
    return [card["id"] for card in cards if card["task"] == "chat" and card["state"] in {"ready", "loaded"}]
