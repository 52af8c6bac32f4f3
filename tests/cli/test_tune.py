"""`noria tune`: what is sent, what is shown, and how one leaves a training running."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from noria.cli import _tuning, _watching
from noria.cli._tuning_options import noria_options
from noria.errors import InvalidRequest

from .conftest import Run, Scripted

JOB: dict[str, Any] = {
    "id": "ftjob-1",
    "status": "succeeded",
    "model": "base",
    "fine_tuned_model": "ft:base:noria::1",
    "method": {"type": "supervised"},
    "error": None,
    "trained_tokens": 1234,
    "result_files": ["file-r"],
    "created_at": 1,
    "finished_at": 2,
    "estimated_finish": None,
    "noria": {
        "resolved": {"n_epochs": 3, "lora_rank": 16},
        "data": {"training": {"rows": 12}},
        "forgetting": {"before": 0.9, "after": 0.5, "forgot": True},
    },
}
JOBS = "/v1/fine_tuning/jobs"


def event(number: int, level: str = "info", **data: Any) -> dict[str, Any]:
    return {"id": f"e{number}", "level": level, "message": f"event {number}", "data": data, "created_at": number}


def test_a_file_is_sent_with_what_was_said(run: Run, scripted: Scripted, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}")
    scripted.on("POST", "/v1/files", {"id": "file-a"})
    scripted.on("POST", JOBS, {**JOB, "status": "queued"})
    result = run(
        *("tune", "create", rows, "--model", "base", "--epochs", 2, "--option", "lora_rank=8", "-o", "kind=lora"),
        *("--no-wait", "--url", scripted.url),
    )
    assert result.exit_code == 0 and "noria tune watch ftjob-1" in result.output
    sent = next(body for method, path, body in scripted.asked if (method, path) == ("POST", JOBS))
    assert sent == {
        "model": "base",
        "training_file": "file-a",
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        "noria": {"lora_rank": 8, "kind": "lora"},
    }


def test_a_dataset_brings_its_own_validation_split(run: Run, scripted: Scripted) -> None:
    scripted.on("GET", "/v1/noria/datasets/support", {"id": "ds_1"})
    exported = {"id": "file-d", "bytes": 9, "origin": {"version": 3}}
    scripted.on("POST", "/v1/noria/datasets/support/export", exported)
    scripted.on("POST", JOBS, {**JOB, "status": "queued"})
    result = run("tune", "create", "support@3", "--model", "base", "--method", "dpo", "--no-wait", "--url", scripted.url)
    assert result.exit_code == 0
    asked = [body for _, path, body in scripted.asked if path.endswith("/export")]
    assert asked == [
        {"format": "dpo", "version": 3, "split": "train"},
        {"format": "dpo", "version": 3, "split": "validation"},
    ]


def test_watching_shows_the_loss_and_warns_once(run: Run, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watching, "_POLL_S", 0.0)
    told = [event(2, train_loss=0.5, step=3, total_steps=9, tokens_per_s=10.0), event(1, "warn")]
    scripted.on("GET", f"{JOBS}/ftjob-1/events", {"data": told, "has_more": False})
    scripted.on("GET", f"{JOBS}/ftjob-1", {**JOB, "status": "failed", "error": {"message": "no room"}})
    result = run("tune", "watch", "ftjob-1", "--url", scripted.url)
    assert result.exit_code == 1 and "no room" in result.output and "it has forgotten" in result.output
    running = {**JOB, "status": "running"}
    assert _tuning._state(running, told) == {"completed": 3, "total": 9, "detail": "loss 0.500  10 tokens/s"}


def test_lists_and_verbs(run: Run, scripted: Scripted) -> None:
    scripted.on("GET", JOBS, {"data": [JOB], "has_more": False})
    scripted.on("GET", f"{JOBS}/ftjob-1", JOB)
    checkpoint = {"step_number": 4, "metrics": {"full_valid_loss": 0.25}, "fine_tuned_model_checkpoint": "ft:x:ckpt-step-4"}
    scripted.on("GET", f"{JOBS}/ftjob-1/checkpoints", {"data": [checkpoint], "has_more": False})
    scripted.on("GET", f"{JOBS}/ftjob-1/events", {"data": [event(2), event(1)], "has_more": False})
    assert "ft:base:noria::1" in run("tune", "list", "--url", scripted.url).output
    assert "1,234" in run("tune", "show", "ftjob-1", "--url", scripted.url).output
    assert "0.2500" in run("tune", "checkpoints", "ftjob-1", "--url", scripted.url).output
    shown = run("tune", "events", "ftjob-1", "--url", scripted.url).output
    assert shown.index("event 1") < shown.index("event 2")
    for verb in ("pause", "resume", "cancel"):
        scripted.on("POST", f"{JOBS}/ftjob-1/{verb}", JOB)
        result = run("tune", verb, "ftjob-1", "--json", "--url", scripted.url)
        assert json.loads(result.output)["id"] == "ftjob-1"


def test_options_are_json_where_they_are_some() -> None:
    assert noria_options(["a=8", "b=true", "c=cosine", 'd=["q_proj"]']) == {"a": 8, "b": True, "c": "cosine", "d": ["q_proj"]}
    with pytest.raises(InvalidRequest, match="NAME=VALUE"):
        noria_options(["rank"])
