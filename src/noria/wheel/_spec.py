"""What a wheel is told: which traffic, what counts as good, how to train, when to trust the result. TOML or JSON.

Every field is acted on; one that is not known is refused. Knows nothing about how a turn runs.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from noria.errors import InvalidRequest
from noria.fields import faults

__all__ = [
    "Approval",
    "Budget",
    "Canary",
    "CanaryStep",
    "Data",
    "Gate",
    "Good",
    "Guard",
    "Traffic",
    "Train",
    "Trigger",
    "WheelSpec",
    "check_spec",
    "parse_duration_s",
    "parse_toml",
]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Handling = Literal["remove", "keep", "stop"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Traffic(_Part):
    """Whose answers are collected."""

    models: tuple[str, ...] = Field(
        default=(), max_length=64, description="Models whose answers count, however they were asked; default: the route's."
    )
    metadata: dict[str, str] = Field(default_factory=dict[str, str], description="Only requests with all of this metadata.")
    since_days: float | None = Field(
        default=None, gt=0, description="A turn collects no feedback that is older; rows collected before stay. Default: all."
    )


class Good(_Part):
    """Which feedback says what the answer should have been."""

    thumbs_up: bool = Field(default=True, description="A thumb up: the answer as given is what is expected.")
    corrections: bool = Field(default=True, description="A correction is what is expected.")
    labels: bool = Field(default=False, description="A label is what is expected, for models that classify.")
    min_agreement: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="Of the labels that one answer was given, the share that must agree; else they do not count.",
    )


class Data(_Part):
    """How rows are curated and split. `remove` accepts what curation finds, `keep` rejects it, `stop` ends the turn."""

    exact_duplicates: Handling = "remove"
    near_duplicates: Handling = "keep"
    contradictions: Handling = "remove"
    leakage: Handling = "remove"
    personal_data: Handling = "remove"
    oversize: Handling = "remove"
    validation_share: float = Field(default=0.05, ge=0.0, le=0.5, description="For early stopping, never for the gate.")
    test_share: float = Field(default=0.15, ge=0.0, le=0.5, description="For the gate, never trained on.")
    min_rows: int = Field(default=50, ge=1, description="Fewer rows to train on end the turn.")
    max_rows: int | None = Field(default=None, ge=1, description="At most so many rows are trained on, the newest.")
    min_new_rows: int = Field(default=1, ge=0, description="Fewer new rows since the last turn end this one as skipped.")


class Train(_Part):
    """How the candidate is trained. `hyperparameters` are OpenAI's, `options` Noria's own of a fine-tuning job."""

    method: Literal["supervised", "dpo"] = "supervised"
    hyperparameters: dict[str, Any] = Field(default_factory=dict[str, Any])
    options: dict[str, Any] = Field(default_factory=dict[str, Any], description="rank, alpha, kind, max_length, …")
    minutes: float | None = Field(default=None, gt=0, description="Training stops after so long, with what it has learned.")
    seed: int = Field(default=42, ge=0, le=2**31)


class Gate(_Part):
    """When a candidate is better. The first grader decides by a paired test; the others must not get significantly worse."""

    graders: tuple[dict[str, Any], ...] = Field(
        default=(
            {
                "type": "string_check",
                "name": "exact",
                "operation": "eq",
                "input": "{{sample.output_text}}",
                "reference": "{{item.expected}}",
            },
        ),
        min_length=1,
        max_length=8,
    )
    dataset: str | None = Field(default=None, description="Test on this dataset instead of the held-out split.")
    split: Literal["train", "validation", "test"] | None = Field(
        default=None, description="Of that dataset; default: all its rows."
    )
    min_rows: int = Field(default=30, ge=1)
    max_rows: int = Field(default=500, ge=1, le=500)
    alpha: float = Field(default=0.01, gt=0, le=0.2, description="The gain must be significant at this level.")
    min_gain: float = Field(default=0.0, ge=0.0, le=1.0)
    max_forgetting: float = Field(default=0.1, ge=0.0, le=1.0, description="Largest drop on the general set of the training job.")
    sampling: dict[str, Any] = Field(default_factory=lambda: {"temperature": 0.0, "max_completion_tokens": 256})


class CanaryStep(_Part):
    """The step ends well when so many requests were answered by the candidate and so much time has passed."""

    share: float = Field(gt=0, le=1)
    min_requests: int = Field(default=100, ge=0)
    minutes: float = Field(default=30.0, ge=0)


class Canary(_Part):
    steps: tuple[CanaryStep, ...] = Field(default=(CanaryStep(share=0.1), CanaryStep(share=0.5)), max_length=16)
    max_hours: float = Field(default=72.0, gt=0, description="A canary that has seen too little by then is rolled back.")

    @model_validator(mode="after")
    def _rising(self) -> Canary:
        shares = [step.share for step in self.steps]
        if shares != sorted(shares):
            raise ValueError("the shares of the steps must not fall: a user who has the candidate would lose it again")
        return self


class Guard(_Part):
    """Bounds on the live figures, candidate beside base. Each is tested at every look so that looking often errs no more."""

    errors: bool = Field(default=True, description="Significantly more errors than the base roll back.")
    negatives: bool = Field(
        default=True,
        description="Significantly more negative feedback than the base rolls back: thumbs down, corrections, low scores, and, "
        "where labels count as good, labels that are not what was answered.",
    )
    max_error_rate: float | None = Field(default=None, gt=0, lt=1)
    max_negative_rate: float | None = Field(default=None, gt=0, lt=1)
    max_latency_p95_s: float | None = Field(default=None, gt=0)
    max_latency_ratio: float | None = Field(default=2.0, gt=1, description="Of the candidate's p95 latency to the base's.")
    score_below: float | None = Field(default=None, description="Feedback whose score is below this counts as negative.")
    alpha: float = Field(default=0.01, gt=0, le=0.2, description="Chance of rolling back a candidate that is as good.")
    every_s: float = Field(default=10.0, ge=0.05, le=3600)
    watch_hours: float = Field(default=24.0, ge=0, description="How long the guard watches after promotion.")


class Approval(_Part):
    mode: Literal["auto", "manual"] = "auto"


class Trigger(_Part):
    """When turns start by themselves; none by default."""

    every: str | None = Field(default=None, description="For example 24h, 30m, 7d.")
    at: str | None = Field(default=None, pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="Daily at this time, UTC.")
    new_feedback: int | None = Field(default=None, ge=1, description="When so much feedback came since the last turn.")

    @model_validator(mode="after")
    def _readable(self) -> Trigger:
        if self.every is not None:
            parse_duration_s(self.every)
        return self


class Budget(_Part):
    minutes: float = Field(default=180.0, gt=0, description="Longest time from the turn's start to its gate, server up.")
    turns_per_day: int = Field(default=4, ge=1, description="Turns that triggers may start in 24 hours.")


class WheelSpec(_Part):
    """One wheel."""

    name: str = Field(min_length=1, max_length=64, pattern=_NAME)
    base_model: str = Field(min_length=1, max_length=256, description="What is trained, and what the route leads to at first.")
    route: str = Field(default="", max_length=256, description="The model name that programs ask; default: the wheel's name.")
    description: str = Field(default="", max_length=2000)
    traffic: Traffic = Traffic()
    good: Good = Good()
    data: Data = Data()
    train: Train = Train()
    gate: Gate = Gate()
    canary: Canary = Canary()
    guard: Guard = Guard()
    approval: Approval = Approval()
    trigger: Trigger = Trigger()
    budget: Budget = Budget()

    @model_validator(mode="before")
    @classmethod
    def _named_route(cls, given: Any) -> Any:
        if isinstance(given, dict) and not given.get("route") and isinstance(given.get("name"), str):
            return {**given, "route": given["name"]}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> WheelSpec:
        if not (self.good.thumbs_up or self.good.corrections or self.good.labels):
            raise ValueError("good: at least one of thumbs_up, corrections and labels must count")
        if self.route == self.base_model:
            raise ValueError("route: it must not be the base model's own name, for it leads there")
        if self.gate.dataset is None and self.data.test_share == 0:
            raise ValueError("data.test_share: 0 leaves no rows for the gate; name gate.dataset or keep a share")
        if self.gate.dataset is None and self.gate.split is not None:
            raise ValueError("gate.split: it belongs to gate.dataset; the held-out split is always `test`")
        return self

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_none=True)


def parse_duration_s(text: str) -> float:
    """Seconds of `90s`, `30m`, `24h` or `7d`. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is no duration; write 30m, 24h or 7d")
    return float(match[1]) * _SECONDS[match[2]]


def parse_toml(text: str) -> dict[str, Any]:
    """A specification's fields, not yet checked. Raises InvalidRequest."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(f"The specification is not TOML: {error}.", param="spec") from None


def check_spec(given: Any) -> WheelSpec:
    """A whole specification. Raises InvalidRequest that names the field."""
    try:
        return WheelSpec.model_validate(given)
    except ValidationError as error:
        first = faults(error)[0]
        where = ".".join(str(part) for part in first["loc"]) or "spec"
        message = first["msg"].removeprefix("Value error, ")
        what = "is not a field of a wheel" if first["type"] == "extra_forbidden" else f": {message}"
        raise InvalidRequest(f"{where}{'' if what.startswith(':') else ' '}{what}.", param=where) from None
