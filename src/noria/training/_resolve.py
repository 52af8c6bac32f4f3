"""Turns `auto` into numbers, by how much data there is, how large the model is and what the machine can do.

The rules are few and stated here; what came out is shown in the job. Rates for adapters follow the LoRA literature (ten times the
rate of full training; small models bear more): https://thinkingmachines.ai/blog/lora/ and TRL's own defaults for DPO.
"""

from __future__ import annotations

import math

from noria.errors import InvalidRequest

from ._machine import Machine
from ._plan import DataFacts, Facts, Hyper
from ._request import NoriaOptions, TuningRequest

__all__ = ["check_memory", "memory_needed_mb", "resolve"]

_SMALL, _MEDIUM = 500_000_000, 2_000_000_000
MOST_EVALUATIONS = 12


def resolve(request: TuningRequest, data: DataFacts, machine: Machine, memory_mb: int) -> Hyper:
    """Every hyperparameter as it will be run."""
    asked, options = request.method.hyperparameters, request.options
    rows, dpo = data.training.rows, request.method.type == "dpo"
    epochs = _epochs(rows, dpo=dpo) if asked.n_epochs == "auto" else asked.n_epochs
    batch = _batch(rows, machine) if asked.batch_size == "auto" else asked.batch_size
    batch = min(batch, rows)
    multiplier = 1.0 if asked.learning_rate_multiplier == "auto" else asked.learning_rate_multiplier
    rate = options.learning_rate or _rate(data.model, options.kind, dpo=dpo) * multiplier
    steps_an_epoch = math.ceil(rows / batch)
    steps = steps_an_epoch * epochs
    rank = _rank(data.model) if options.lora_rank == "auto" else options.lora_rank
    lora = options.kind == "lora"
    warmup = (0.05 if steps >= 40 else 0.0) if options.warmup == "auto" else options.warmup
    beta = None if not dpo else 0.1 if asked.beta in ("auto", None) else asked.beta
    return Hyper(
        n_epochs=epochs,
        batch_size=batch,
        learning_rate=rate,
        learning_rate_multiplier=multiplier,
        warmup=warmup,
        scheduler="linear" if options.scheduler == "auto" else options.scheduler,
        weight_decay=options.weight_decay,
        max_length=data.model.context_tokens if options.max_length == "auto" else options.max_length,
        micro_tokens=_micro_tokens(data, options, machine, memory_mb),
        steps=steps,
        eval_every=_eval_every(steps, steps_an_epoch) if options.eval_every == "auto" else options.eval_every,
        early_stopping_patience=options.early_stopping_patience,
        packing=options.packing,
        gradient_checkpointing=options.gradient_checkpointing,
        precision="bf16" if machine.cuda or machine.bf16 else "f32",
        device="cuda" if machine.cuda else "cpu",
        lora_rank=rank if lora else None,
        lora_alpha=(2.0 * rank if options.lora_alpha == "auto" else options.lora_alpha) if lora else None,
        lora_dropout=options.lora_dropout if lora else 0.0,
        lora_targets=() if options.lora_targets == "auto" or not lora else tuple(options.lora_targets),
        beta=beta,
    )


def _epochs(rows: int, *, dpo: bool) -> int:
    """Few rows are seen more often; preferences overfit sooner."""
    for most_rows, epochs in ((200, 5), (1000, 3), (5000, 2)):
        if rows < most_rows:
            return max(1, epochs // 2) if dpo else epochs
    return 1


def _batch(rows: int, machine: Machine) -> int:
    """Examples a step: small for few rows, for what counts then is the number of steps."""
    batch = next(batch for most_rows, batch in ((100, 4), (500, 8), (10_000, 16), (math.inf, 32)) if rows < most_rows)
    return batch * 2 if machine.cuda and rows >= 2000 else batch


def _rate(model: Facts, kind: str, *, dpo: bool) -> float:
    small = 0 if model.parameters <= _SMALL else 1 if model.parameters <= _MEDIUM else 2
    if kind == "lora":
        return (5e-5, 2e-5, 1e-5)[small] if dpo else (5e-4, 3e-4, 2e-4)[small]
    return (2e-6, 1e-6, 5e-7)[small] if dpo else (5e-5, 2e-5, 1e-5)[small]


def _rank(model: Facts) -> int:
    """A small model needs more rank for the same task, and pays little for it."""
    return 16 if model.parameters <= _MEDIUM else 8


def _eval_every(steps: int, steps_an_epoch: int) -> int:
    """Twice an epoch, at most a dozen times in all."""
    return max(1, math.ceil(steps_an_epoch / 2), math.ceil(steps / MOST_EVALUATIONS))


def memory_needed_mb(model: Facts, kind: str, *, bf16: bool) -> int:
    """Weights, gradients, AdamW's two moments and the program itself, without activations."""
    if kind == "full":
        return 700 + model.parameters * 16 // 2**20
    return 700 + model.parameters * (2 if bf16 else 4) * 5 // 4 // 2**20


def check_memory(model: Facts, kind: str, machine: Machine, memory_mb: int) -> None:
    """Raises InvalidRequest where a training cannot fit, before hours are spent. A GPU's memory is its own matter."""
    if machine.cuda:
        return
    needed = memory_needed_mb(model, kind, bf16=machine.bf16) + _token_kb(model, checkpointed=True) * 256 // 1024
    if needed > memory_mb:
        hint = "Use noria.kind = lora, or raise train_memory_mb." if kind == "full" else "Raise train_memory_mb."
        raise InvalidRequest(
            f"Training every weight of {model.parameters:,} parameters needs about {needed:,} MiB; {memory_mb:,} are allowed."
            if kind == "full"
            else f"This model needs about {needed:,} MiB to be trained; {memory_mb:,} are allowed.",
            param="noria.kind" if kind == "full" else "model",
            code="not_enough_memory",
            hint=hint,
        )


def _token_kb(model: Facts, *, checkpointed: bool) -> int:
    """What the activations of one token take: some 40 vectors of the hidden and 12 of the inner size in each layer."""
    layers = 2 + model.num_layers // 8 if checkpointed else model.num_layers
    return max(1, layers * (40 * model.hidden_size + 12 * model.intermediate_size) * 3 // 1024)


def _micro_tokens(data: DataFacts, options: NoriaOptions, machine: Machine, memory_mb: int) -> int:
    """Tokens computed at once. Above some two thousand a CPU gains nothing; a GPU does."""
    if machine.cuda:
        return 32_768
    free_mb = memory_mb - memory_needed_mb(data.model, options.kind, bf16=machine.bf16)
    fit = max(0, free_mb) * 1024 // _token_kb(data.model, checkpointed=options.gradient_checkpointing)
    return max(256, min(2048, fit * 7 // 10))
