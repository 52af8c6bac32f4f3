"""What is asked of a fine-tuning job: OpenAI's fields, and Noria's own under `noria`.

Source: https://platform.openai.com/docs/api-reference/fine-tuning/create
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from noria.fields import Many, Metadata

__all__ = ["LORA_TARGETS", "Hyperparameters", "Method", "NoriaOptions", "TuningRequest"]

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The layers whose adapters the engine serves."""

Auto = Literal["auto"]
Scheduler = Literal["linear", "cosine", "constant"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hyperparameters(_Strict):
    """OpenAI's. `beta` is for `dpo` only."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=100)] = "auto"
    beta: Auto | Annotated[float, Field(gt=0, le=2)] | None = None

    def asked(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class _MethodOptions(_Strict):
    hyperparameters: Hyperparameters = Hyperparameters()


class Method(_Strict):
    """`reinforcement` is refused where a job is created, with the reason."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: _MethodOptions | None = None
    dpo: _MethodOptions | None = None
    reinforcement: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_of_a_kind(self) -> Method:
        for name in ("supervised", "dpo", "reinforcement"):
            if name != self.type and getattr(self, name) is not None:
                raise ValueError(f"`{name}` is given, but the type is {self.type}")
        if self.supervised is not None and self.supervised.hyperparameters.beta is not None:
            raise ValueError("beta is for dpo only")
        return self

    @property
    def hyperparameters(self) -> Hyperparameters:
        options = self.dpo if self.type == "dpo" else self.supervised
        return options.hyperparameters if options else Hyperparameters()


class NoriaOptions(_Strict):
    """What OpenAI's API has no field for. `auto` is resolved by data, model and machine, and shown in the job."""

    kind: Literal["lora", "full"] = Field(default="lora", description="Train an adapter, or every weight.")
    lora_rank: Auto | Annotated[int, Field(ge=1, le=256)] = Field(default="auto", description="Rank of the adapter's matrices.")
    lora_alpha: Auto | Annotated[float, Field(gt=0, le=1024)] = Field(
        default="auto", description="Scale of the adapter; auto: 2 × rank."
    )
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0, description="Dropout before the adapter.")
    lora_targets: Auto | Annotated[Many[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")]], Field(min_length=1)] = Field(
        default="auto", description="Names of the linear layers that get one, e.g. q_proj; auto: all of them."
    )
    learning_rate: Annotated[float, Field(gt=0, le=0.1)] | None = Field(
        default=None, description="The rate itself; then learning_rate_multiplier must not be given."
    )
    max_length: Auto | Annotated[int, Field(ge=16, le=131072)] = Field(
        default="auto",
        description="Longest example in tokens; longer ones are left out and named. Auto: the model's context.",
    )
    packing: bool = Field(default=True, description="Lay examples end to end without padding; none ever sees another.")
    gradient_checkpointing: bool = Field(default=False, description="Compute activations twice to need less memory.")
    early_stopping_patience: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None, description="Stop after so many evaluations without a lower validation loss."
    )
    warmup: Auto | Annotated[float, Field(ge=0, lt=1)] = Field(
        default="auto", description="Share of the steps in which the rate rises."
    )
    scheduler: Auto | Scheduler = Field(default="auto", description="How the rate falls afterwards.")
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(default=0.0, description="Decoupled weight decay of AdamW.")
    eval_every: Auto | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="Steps between validations; needs a validation_file."
    )
    forgetting_check: bool = Field(default=True, description="Score a small general set before and after.")
    max_minutes: Annotated[float, Field(gt=0, le=100_000)] | None = Field(
        default=None,
        description="Stop training after so many minutes, with what has been learned; the rate falls to its end by then.",
    )


class TuningRequest(_Strict):
    """One job. `model` is a base model, an alias, or a tuned model (`ft:…`) that is trained further."""

    model: str = Field(min_length=1, max_length=256)
    training_file: str = Field(min_length=1, max_length=64)
    validation_file: str | None = Field(default=None, min_length=1, max_length=64)
    method: Method = Method(type="supervised")
    suffix: str | None = Field(default=None, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    metadata: Metadata | None = None
    options: NoriaOptions = NoriaOptions()
