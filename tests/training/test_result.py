"""Which of a training's steps is its result: trained for real on a tiny model, through the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NoriaServer, running_server

from .test_jobs import ENDED, messages, until, upload
from .tiny_model import CARD, chats, copy_model

pytest.importorskip("torch")
pytest.importorskip("trl")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
CONTRARY = chats(40).replace(b"even", b"zz").replace(b"odd", b"even")
METHOD: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 20, "batch_size": 8}}}


@pytest.fixture(scope="module")
def real(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    """A server with the model `tiny` that trains for real."""
    home = tmp_path_factory.mktemp("home")
    copy_model(tiny_folder, home)
    with running_server(home, NORIA_TRAIN_THREADS="1") as server:
        server.add_model(CARD)
        yield server


def test_the_result_is_the_step_of_the_lowest_validation_loss(real: NoriaServer) -> None:
    client = real.openai()
    options = {"eval_every": 1, "early_stopping_patience": 2, "learning_rate": 0.05, "forgetting_check": False}
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=upload(client, chats(16)),
        validation_file=upload(client, CONTRARY),
        method=METHOD,
        seed=5,
        extra_body={"noria": options},
    )
    job = until(client, job.id, ENDED, timeout_s=300)
    assert job.status == "succeeded", job.error
    told = [e.data for e in client.fine_tuning.jobs.list_events(job.id, limit=200) if e.type == "metrics"]
    valid: dict[int, float] = {d["step"]: d["full_valid_loss"] for d in told if "full_valid_loss" in d}  # type: ignore[index,operator]
    best = min(valid, key=lambda step: (valid[step], step))
    assert best < max(valid)
    assert f"Step {best} has the lowest validation loss: it is the result." in messages(client, job.id)
    weights = {place.name: (place / "adapter_model.safetensors").read_bytes() for place in (real.home / "adapters").iterdir()}
    assert weights[job.id] == weights[f"{job.id}-step-{best}"] != weights[f"{job.id}-step-{max(valid)}"]
