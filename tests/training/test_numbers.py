"""What `auto` becomes, whether a model forgot, and how a step is cut: no torch, no server."""

from __future__ import annotations

from typing import Any

import pytest

from noria.errors import InvalidRequest
from noria.training._forgetting import compare
from noria.training._machine import Machine
from noria.training._plan import DataFacts, Facts, FileFacts
from noria.training._records import results_csv
from noria.training._request import Method, NoriaOptions, TuningRequest
from noria.training._resolve import check_memory, resolve

SMALL = Facts(135_000_000, 8192, 576, 30, 1536)
LARGE = Facts(7_000_000_000, 32768, 4096, 32, 14336)
CPU, GPU = Machine(False, True, 24_000, 2), Machine(True, True, 128_000, 16)


def resolved(rows: int, model: Facts = SMALL, machine: Machine = CPU, memory_mb: int = 12_000, **given: Any) -> Any:
    request = TuningRequest(model="m", training_file="f", **given)
    data = DataFacts("", model, FileFacts(rows, rows * 50, rows * 3, 200, 0, 0, 9), None)
    return resolve(request, data, machine, memory_mb)


def test_few_rows_are_seen_more_often_in_smaller_steps() -> None:
    few, many = resolved(50), resolved(20_000)
    assert (few.n_epochs, few.batch_size, few.steps) == (5, 4, 65)
    assert (many.n_epochs, many.batch_size, many.steps) == (1, 32, 625)
    assert few.eval_every == 7 and many.eval_every == 313
    assert few.warmup == 0.05 and resolved(4).warmup == 0.0
    assert resolved(3).batch_size == 3


def test_what_is_asked_is_kept() -> None:
    method = Method.model_validate(
        {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 7, "batch_size": 2, "learning_rate_multiplier": 2, "beta": 0.3}}}
    )
    hyper = resolved(100, method=method, options=NoriaOptions(lora_rank=4, lora_targets=["q_proj"], scheduler="cosine"))
    assert (hyper.n_epochs, hyper.batch_size, hyper.beta) == (7, 2, 0.3)
    assert hyper.learning_rate == pytest.approx(1e-4) and hyper.lora_alpha == 8.0
    assert hyper.lora_targets == ("q_proj",) and hyper.scheduler == "cosine"
    assert resolved(100, options=NoriaOptions(learning_rate=0.001)).learning_rate == 0.001


def test_the_machine_decides_precision_and_how_much_at_once() -> None:
    assert resolved(100).precision == "bf16" and resolved(100, machine=Machine(False, False, 8000, 2)).precision == "f32"
    gpu = resolved(5000, machine=GPU)
    assert gpu.device == "cuda" and gpu.batch_size == 32 and gpu.micro_tokens > resolved(5000).micro_tokens
    assert resolved(100, memory_mb=1500).micro_tokens < resolved(100).micro_tokens <= 2048
    assert resolved(100, model=LARGE).learning_rate < resolved(100).learning_rate


def test_a_training_that_cannot_fit_is_refused() -> None:
    check_memory(SMALL, "full", CPU, 12_000)
    with pytest.raises(InvalidRequest, match="train_memory_mb"):
        check_memory(LARGE, "full", CPU, 24_000)
    check_memory(LARGE, "full", GPU, 1000)


def scores(*known: int, margin: float = 1.0) -> list[dict[str, Any]]:
    return [{"id": f"i{i}", "margin": margin if k else -margin, "known": bool(k)} for i, k in enumerate(known)]


def test_forgetting_needs_more_than_chance() -> None:
    before = scores(*[1] * 50, *[0] * 10)
    same = compare(before, before)
    assert same["before"] == same["after"] == pytest.approx(50 / 60, abs=1e-4) and not same["forgot"] and same["lost"] == []
    assert not compare(before, scores(*[0] * 2, *[1] * 48, *[0] * 10))["forgot"]
    worse = compare(before, scores(*[0] * 12, *[1] * 38, *[0] * 10))
    assert worse["forgot"] and len(worse["lost"]) == 12 and worse["p_known"] < 0.001
    swapped = scores(*[0] * 10, *[1] * 40, *[1] * 10)
    assert not compare(before, swapped)["forgot"]
    better = scores(*[1] * 60)
    assert not compare(before, better)["forgot"]


def test_the_result_file_has_a_line_a_step() -> None:
    text = results_csv(
        [{"step": 1, "train_loss": 0.5}, {"step": 2, "full_valid_loss": 0.25, "train_reward_margins": 1.5}]
    ).decode()
    head, first, second = text.splitlines()
    assert head == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,learning_rate,train_reward_margins"
    assert first == "1,0.5,,,,," and second == "2,,,0.25,,,1.5"
