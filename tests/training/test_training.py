"""The training itself, on a tiny model: what is learned does not depend on how it is computed, nor on who was killed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noria.training._machine import Machine
from noria.training._plan import DataFacts, Plan
from noria.training._request import Method, NoriaOptions, TuningRequest
from noria.training._resolve import resolve

from .tiny_model import chats, jsonl, preference

pytest.importorskip("torch")
pytest.importorskip("trl")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
TINY = Machine(cuda=False, bf16=False, memory_mb=8000, threads=1)


def make(folder: Path, model: Path, content: bytes, *, validation: bytes | None = None, **given: Any) -> Path:
    """A training's folder, prepared and planned."""
    from noria.training.worker._prepare import prepare
    from noria.training.worker._reporting import Reporter

    folder.mkdir()
    (folder / "training_file.jsonl").write_bytes(content)
    if validation is not None:
        (folder / "validation_file.jsonl").write_bytes(validation)
    request = TuningRequest(model="tiny", training_file="f", **given)
    method: Any = request.method.type
    plan = Plan("ftjob-t", method, request.options.kind, "tiny", str(model), 5, 1, 8000, forgetting_check=False)
    plan = dataclasses.replace(plan, validation=validation is not None)
    plan.write(folder)
    with (folder / "prepare.log").open("wb") as out:
        assert prepare(folder, Reporter(out))  # type: ignore[arg-type]
    data = DataFacts.read(folder)
    assert data is not None
    dataclasses.replace(plan, hyper=resolve(request, data, TINY, 8000)).write(folder)
    return folder


def reports(folder: Path, cache: Path, *, kill_at: int | None = None, stop_at: int | None = None) -> Iterator[dict[str, Any]]:
    """Runs the real training process; `kill_at` kills it -9 when that step is told, `stop_at` asks it to stop."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": str(cache)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "noria.training", "train", str(folder)]
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env)
    assert process.stdout is not None
    for line in process.stdout:
        report = json.loads(line)
        yield report
        if report["type"] == "metrics" and report["step"] == kill_at:
            process.kill()
        if report["type"] == "metrics" and report["step"] == stop_at:
            process.send_signal(signal.SIGTERM)
    process.wait()
    yield {"type": "exit", "code": process.returncode}


def losses(told: list[dict[str, Any]]) -> dict[int, float]:
    return {r["step"]: r["data"]["train_loss"] for r in told if r["type"] == "metrics" and "train_loss" in r["data"]}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


def hyper(**given: Any) -> Method:
    return Method.model_validate({"type": "supervised", "supervised": {"hyperparameters": given}})


def test_a_killed_training_ends_as_an_uninterrupted_one(tiny_folder: Path, tmp_path: Path, cache: Path) -> None:
    options = NoriaOptions(eval_every=2, lora_dropout=0.1)
    given: dict[str, Any] = {"method": hyper(n_epochs=2, batch_size=4), "options": options, "validation": chats(6)}
    whole = make(tmp_path / "whole", tiny_folder, chats(18), **given)
    told = list(reports(whole, cache))
    assert told[-1]["code"] == 0, (whole / "log.txt").read_text()[-2000:]
    expected = losses(told)
    assert sorted(expected) == list(range(1, 11)) and told[-2]["type"] == "done"

    killed = make(tmp_path / "killed", tiny_folder, chats(18), **given)
    first = list(reports(killed, cache, kill_at=5))
    assert first[-1]["code"] == -9
    second = list(reports(killed, cache, stop_at=7))  # and once more, politely
    resumed = next(r["step"] for r in second if r["type"] == "started")
    assert resumed == 4 and second[-1]["code"] == 3
    third = list(reports(killed, cache))
    assert third[-1]["code"] == 0
    found = losses(first[:-1]) | losses(second) | losses(third)
    assert found == pytest.approx(expected, abs=1e-6)
    assert weights(killed) == pytest.approx(weights(whole), abs=1e-6)
    done_whole, done_killed = (next(r for r in each if r["type"] == "done")["data"] for each in (told, third))
    assert done_whole["learned_tokens"] == done_killed["learned_tokens"] > 0


def weights(folder: Path) -> Any:
    from safetensors.numpy import load_file

    found = load_file(folder / "result" / "adapter_model.safetensors")
    assert any(np.abs(value).max() > 0 for name, value in found.items() if "lora_B" in name)
    return np.concatenate([found[name].ravel() for name in sorted(found)])


def test_neither_packing_nor_pieces_change_what_is_learned(tiny_folder: Path, tmp_path: Path) -> None:
    import torch

    from noria.training.worker._batches import StepCollator
    from noria.training.worker._model import load_model
    from noria.training.worker._sft import Supervised
    from noria.training.worker._tokens import Tokens

    gradients: list[torch.Tensor] = []
    for packing, micro_tokens in ((True, 4096), (True, 40), (False, 4096), (False, 100)):
        folder = make(tmp_path / f"{packing}{micro_tokens}", tiny_folder, chats(9), options=NoriaOptions(packing=packing))
        plan = Plan.read(folder)
        assert plan.hyper is not None
        data = DataFacts.read(folder)
        assert data is not None
        model = load_model(plan, plan.hyper, Path(data.checkpoint))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
        tokens = Tokens.load(folder / "training_file.npz")
        step = StepCollator(tokens, micro_tokens, packing=packing, pad_id=0)([{"index": i} for i in range(9)])
        if micro_tokens < 4096:
            assert len(step["pieces"]) > 1
        loss = torch.zeros(())
        plain = _Plain(model)
        for piece in step["pieces"]:
            loss = loss + Supervised.piece_loss(plain, model, piece)[0]  # type: ignore[arg-type]
        (loss / step["num_learned"]).backward()
        gradients.append(torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None]))
    for other in gradients[1:]:
        assert float((other - gradients[0]).norm() / gradients[0].norm()) < 1e-4


class _Plain:
    """As much of a trainer as a loss needs."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def _prepare_inputs(self, piece: Any) -> Any:
        return piece

    def compute_loss_context_manager(self) -> Any:
        import contextlib

        return contextlib.nullcontext()


def test_preferences_widen_the_margin(tiny_folder: Path, tmp_path: Path, cache: Path) -> None:
    content = jsonl(preference(f"Say {n}", "good", "evil") for n in range(12))
    method = Method.model_validate({"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 3, "batch_size": 4}}})
    options = NoriaOptions(learning_rate=0.01)
    folder = make(tmp_path / "dpo", tiny_folder, content, method=method, options=options, validation=content)
    told = list(reports(folder, cache))
    assert told[-1]["code"] == 0, (folder / "log.txt").read_text()[-2000:]
    margins = [r["data"]["train_reward_margins"] for r in told if r["type"] == "metrics" and "train_loss" in r["data"]]
    assert len(margins) == 9 and margins[0] == pytest.approx(0, abs=1e-3) and margins[-1] > 0.05
    valid = [r["data"] for r in told if r["type"] == "metrics" and "full_valid_loss" in r["data"]]
    assert valid[-1]["full_valid_loss"] < 0.69 and valid[-1]["full_valid_reward_accuracies"] == 1.0


def test_early_stopping_keeps_the_best(tiny_folder: Path, tmp_path: Path, cache: Path) -> None:
    contrary = chats(40).replace(b"even", b"zz").replace(b"odd", b"even")
    options = NoriaOptions(eval_every=1, early_stopping_patience=2, learning_rate=0.05)
    folder = make(
        tmp_path / "stop", tiny_folder, chats(16), validation=contrary, method=hyper(n_epochs=20, batch_size=8), options=options
    )
    told = list(reports(folder, cache))
    done = next(r for r in told if r["type"] == "done")
    assert "has not fallen" in done["data"]["stopped_early"] and done["step"] < 40
    valid = {r["step"]: r["data"]["full_valid_loss"] for r in told if r["type"] == "metrics" and "full_valid_loss" in r["data"]}
    assert done["data"]["best_step"] == min(valid, key=lambda step: (valid[step], step)) == done["step"] - 2
    best = folder / "served" / f"step-{done['data']['best_step']}" / "adapter_model.safetensors"
    from safetensors.numpy import load_file

    kept, result = load_file(best), load_file(folder / "result" / "adapter_model.safetensors")
    assert all(np.array_equal(kept[name], result[name]) for name in kept)


def test_a_full_model_keeps_its_last_weights_and_its_validations(tiny_folder: Path, tmp_path: Path, cache: Path) -> None:
    contrary = chats(40).replace(b"even", b"zz").replace(b"odd", b"even")
    options = NoriaOptions(kind="full", eval_every=1, early_stopping_patience=3, learning_rate=0.01)
    given: dict[str, Any] = {"validation": contrary, "method": hyper(n_epochs=20, batch_size=8), "options": options}
    folder = make(tmp_path / "full", tiny_folder, chats(16), **given)
    assert list(reports(folder, cache, kill_at=3))[-1]["code"] == -9
    before = [entry["step"] for entry in json.loads((folder / "course.json").read_text())["valid"]]
    assert before[:2] == [1, 2]
    told = list(reports(folder, cache))
    done = next(r for r in told if r["type"] == "done")
    valid = json.loads((folder / "course.json").read_text())["valid"]
    assert [entry["step"] for entry in valid] == list(range(1, done["step"] + 1))
    best = min(valid, key=lambda entry: entry["full_valid_loss"])["step"]
    assert done["data"]["stopped_early"] and best == done["step"] - 3 and done["data"]["best_step"] == done["step"]
    assert any(r["type"] == "note" and f"step {done['step']} is the result" in r["message"] for r in told)


def test_every_weight_can_be_trained_and_served(tiny_folder: Path, tmp_path: Path, cache: Path) -> None:
    from noria.engines.openvino import model_facts, write_checkpoint

    options = NoriaOptions(kind="full", learning_rate=0.01)
    folder = make(tmp_path / "full", tiny_folder, chats(8), options=options, method=hyper(n_epochs=1, batch_size=4))
    assert list(reports(folder, cache))[-1]["code"] == 0, (folder / "log.txt").read_text()[-2000:]
    from noria.training.worker._export import export
    from noria.training.worker._reporting import Reporter

    with (folder / "export.log").open("wb") as out:
        export(folder, Reporter(out))  # type: ignore[arg-type]
    assert model_facts(folder / "prepared").context_length == 1024
    assert write_checkpoint(folder / "prepared") == folder / "prepared" / "checkpoint"
