"""A fine-tuning job as one watches it from a terminal: what is trained on, the bar with the live loss, the card at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from noria.errors import InvalidRequest, NotFound

from ._api import Api
from ._show import clock, count, facts, note
from ._watching import Work, follow

__all__ = ["card", "training_files", "watch"]

_ENDED = {"succeeded", "failed", "cancelled"}


def training_files(api: Api, data: str, validation: str | None, method: str) -> tuple[str, str | None]:
    """The ids of the files to train and to validate on: uploaded, exported from a dataset, or there already."""
    checked = _file_of(api, validation) if validation is not None else None
    if data.startswith("file-") or Path(data).is_file():
        return _file_of(api, data), checked
    name, _, version = data.partition("@")
    base = f"/v1/noria/datasets/{quote(name, safe='')}"
    dataset = api.find(base)
    if dataset is None or (version and not version.isdigit()):
        raise NotFound(f"{data!r} is neither a file nor a dataset.", hint="`noria datasets list` shows datasets.")
    wanted: dict[str, Any] = {"format": "dpo" if method == "dpo" else "openai"}
    if version:
        wanted["version"] = int(version)
    training = api.post(f"{base}/export", {**wanted, "split": "train"})
    if checked is None:
        held_out = api.post(f"{base}/export", {**wanted, "split": "validation", "version": training["origin"]["version"]})
        checked = held_out["id"] if held_out["bytes"] else None
    return training["id"], checked


def _file_of(api: Api, name: str) -> str:
    if name.startswith("file-"):
        return name
    path = Path(name).expanduser()
    if not path.is_file():
        raise InvalidRequest(f"{name} is not a file.")
    return api.send_file("/v1/files", path, purpose="fine-tune")["id"]


def watch(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    """The job when it has ended. Ctrl-C leaves it running."""
    path = f"/v1/fine_tuning/jobs/{quote(job['id'], safe='')}"
    back = f"noria tune watch {job['id']} (or stop it: noria tune cancel {job['id']})"
    said: set[str] = set()

    def bar(row: dict[str, Any]) -> dict[str, Any]:
        events = api.get(f"{path}/events", limit=50)["data"]
        _tell(events, said)
        return _state(row, events)

    return follow(api, Work(path, "Fine-tuning", back), job, going=lambda row: row["status"] not in _ENDED, bar=bar)


def _tell(events: list[dict[str, Any]], said: set[str]) -> None:
    """Warnings and errors as they come, each once."""
    for event in reversed(events):
        if event["level"] != "info" and event["id"] not in said:
            said.add(event["id"])
            note(event["message"])


def _state(job: dict[str, Any], events: list[dict[str, Any]]) -> dict[str, Any]:
    latest = next((event["data"] for event in events if "train_loss" in event["data"]), None)
    if job["status"] != "running" or latest is None:
        return {"detail": job["status"].replace("_", " ")}
    valid = next((event["data"]["full_valid_loss"] for event in events if "full_valid_loss" in event["data"]), None)
    parts = [f"loss {latest['train_loss']:.3f}", f"valid {valid:.3f}" if valid is not None else ""]
    parts.append(f"{latest['tokens_per_s']:.0f} tokens/s" if latest.get("tokens_per_s") else "")
    return {"completed": latest["step"], "total": latest["total_steps"], "detail": "  ".join(filter(None, parts))}


def card(job: dict[str, Any]) -> None:
    """What there is to know of a job."""
    own, error = job["noria"], job["error"] or {}
    resolved, data, forgetting = own["resolved"], own["data"] or {}, own["forgetting"]
    training = data.get("training") or {}
    shown = ("n_epochs", "batch_size", "steps", "learning_rate", "lora_rank", "max_length", "precision", "device")
    facts(
        (
            ("model", job["fine_tuned_model"]),
            ("id", job["id"]),
            ("status", job["status"]),
            ("error", error.get("message")),
            ("base", job["model"]),
            ("method", job["method"]["type"]),
            ("rows", count(training.get("rows"))),
            ("tokens learned", count(job["trained_tokens"])),
            ("resolved", ", ".join(f"{name} {resolved[name]}" for name in shown if resolved.get(name) is not None)),
            ("general set", _forgetting(forgetting)),
            ("result file", ", ".join(job["result_files"])),
            ("created", clock(job["created_at"])),
            ("finished", clock(job["finished_at"])),
            ("expected end", clock(job["estimated_finish"])),
        )
    )


def _forgetting(found: dict[str, Any] | None) -> str | None:
    if found is None:
        return None
    told = f"{found['before']:.0%} known before, {found['after']:.0%} after"
    return f"{told}: it has forgotten" if found["forgot"] else told
