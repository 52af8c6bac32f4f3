"""What the server and the training process tell each other: a plan as a file, reports as lines of JSON.

A training has a folder: `plan.json`, the files, the tokens made of them, checkpoints, the result. Everything that a try needs
is in it, so that the next try goes on where the last one was. Knows nothing about databases or torch.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import orjson

__all__ = [
    "ADAPTER",
    "CHECKPOINTS",
    "Attempts",
    "DataFacts",
    "Facts",
    "FileFacts",
    "Hyper",
    "Plan",
    "Report",
    "adapter_shape",
    "read_json",
    "write_json",
]

CHECKPOINTS, ADAPTER = "checkpoints", "result"
FileRole = Literal["training_file", "validation_file"]


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What preparing found in one file. `learned_tokens` are those of the answers; `left_out` rows were too long."""

    rows: int
    tokens: int
    learned_tokens: int
    longest: int
    left_out: int
    duplicates: int
    distinct_answers: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What resolving needs to know of the model."""

    parameters: int
    context_tokens: int
    hidden_size: int
    num_layers: int
    intermediate_size: int


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What `prepare` leaves in `prepared.json`."""

    checkpoint: str
    model: Facts
    training: FileFacts
    validation: FileFacts | None

    @classmethod
    def read(cls, folder: Path) -> DataFacts | None:
        found = read_json(folder / "prepared.json")
        if found is None:
            return None
        validation = found["validation"]
        return cls(
            found["checkpoint"],
            Facts(**found["model"]),
            FileFacts(**found["training"]),
            FileFacts(**validation) if validation else None,
        )


@dataclass(frozen=True, slots=True)
class Hyper:
    """Every number of a training, `auto` resolved. Rates are of AdamW; `micro_tokens` bounds what is computed at once."""

    n_epochs: int
    batch_size: int
    learning_rate: float
    learning_rate_multiplier: float
    warmup: float
    scheduler: str
    weight_decay: float
    max_length: int
    micro_tokens: int
    steps: int
    eval_every: int
    early_stopping_patience: int | None
    packing: bool
    gradient_checkpointing: bool
    precision: Literal["bf16", "f32"]
    device: Literal["cpu", "cuda"]
    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ()
    """Empty: all linear layers."""
    beta: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One training. `model_folder` holds the prepared base model; `start_adapter` an adapter to go on from."""

    job_id: str
    method: Literal["supervised", "dpo"]
    kind: Literal["lora", "full"]
    base_model: str
    model_folder: str
    seed: int
    threads: int
    memory_mb: int
    start_adapter: str | None = None
    max_length: int | None = None
    forgetting_check: bool = True
    max_minutes: float | None = None
    validation: bool = False
    hyper: Hyper | None = None

    def write(self, folder: Path) -> None:
        write_json(folder / "plan.json", asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        found = read_json(folder / "plan.json")
        assert found is not None, f"{folder} has no plan.json"
        hyper = found.pop("hyper")
        if hyper is not None:
            hyper["lora_targets"] = tuple(hyper["lora_targets"])
        return cls(**found, hyper=Hyper(**hyper) if hyper else None)


class Report(TypedDict, total=False):
    """One line of the training process. `type` decides which other fields are there; the trainer's modules say more.

    progress: done, total, what · problem: file, line, reason · note: message, level · prepared · invalid: file, count
    started: step, steps, device, precision · metrics: step, data · checkpoint: step, folder, metrics · forgetting: data
    stopped: step · done: step, folder, data · error: code, message
    """

    type: str
    done: int
    total: int
    what: str
    file: FileRole
    line: int
    reason: str
    message: str
    level: Literal["info", "warn", "error"]
    count: int
    step: int
    steps: int
    device: str
    precision: str
    folder: str
    code: str
    data: dict[str, Any]
    metrics: dict[str, Any]


@dataclass(slots=True)
class Attempts:
    """How often a training was begun, kept in its folder: the server may be killed in between."""

    failures: int = 0
    micro_tokens: int | None = None
    reasons: list[str] = field(default_factory=list[str])

    @classmethod
    def read(cls, folder: Path) -> Attempts:
        return cls(**(read_json(folder / "attempts.json") or {}))

    def write(self, folder: Path) -> None:
        write_json(folder / "attempts.json", asdict(self))


def adapter_shape(adapter: Path) -> dict[str, Any] | None:
    """What an adapter that PEFT wrote keeps when it is trained further, by the options' names; None where it has no files."""
    config = read_json(adapter / "adapter_config.json")
    if config is None:
        return None
    targets = config.get("target_modules")
    return {
        "lora_rank": config["r"],
        "lora_alpha": config["lora_alpha"],
        "lora_dropout": config.get("lora_dropout", 0.0),
        "lora_targets": sorted(targets) if isinstance(targets, list) else [],
    }


def read_json(path: Path) -> Any | None:
    """What a file holds; None where it is absent or torn."""
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("wb") as out:
        out.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
        out.flush()
        os.fsync(out.fileno())
    scratch.replace(path)
