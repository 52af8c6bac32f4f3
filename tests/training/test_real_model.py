"""The default model, trained through OpenAI's client: killed twice on the way, it ends as if nobody had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from tests.conftest import NoriaServer, running_server, start_server

from .test_jobs import ENDED, messages, until, upload
from .tiny_model import CARD, chat, copy_model, jsonl

pytest.importorskip("trl")
pytestmark = [pytest.mark.real_model, pytest.mark.slow, pytest.mark.timeout(1200)]
MODEL = "smollm2-135m-instruct"
ROWS = jsonl(chat(f"Code word number {n}?", "zebra") for n in range(16))
OPTIONS: dict[str, Any] = {
    "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4, "batch_size": 4}}},
    "seed": 11,
    "extra_body": {"noria": {"forgetting_check": False}},
}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    with running_server(tmp_path_factory.mktemp("home"), scripted=False, NORIA_TRAIN_THREADS="1") as server:
        yield server


def trainer_of(server: NoriaServer) -> psutil.Process:
    children = psutil.Process(server.process.pid).children(recursive=True)
    return next(child for child in children if "noria.training" in child.cmdline() and "train" in child.cmdline())


def steps(client: openai.OpenAI, job_id: str) -> dict[int, float]:
    told = [e.data for e in client.fine_tuning.jobs.list_events(job_id, limit=500) if e.type == "metrics"]
    losses = [(data["step"], data["train_loss"]) for data in told if "train_loss" in data]  # type: ignore[index]
    assert len(losses) == len(dict(losses)), "a step was told twice"
    return dict(losses)


def until_step(client: openai.OpenAI, job_id: str, step: int) -> None:
    deadline = time.monotonic() + 400
    while max(steps(client, job_id), default=0) < step:
        assert client.fine_tuning.jobs.retrieve(job_id).status not in ENDED
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_kill_trainer_and_server_and_get_the_same_model(real: NoriaServer) -> None:
    client = real.openai()
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=upload(client, ROWS), suffix="twice", **OPTIONS)
    until_step(client, job.id, 5)
    trainer = trainer_of(real)
    trainer.send_signal(signal.SIGKILL)
    until_step(client, job.id, 9)
    trainer = trainer_of(real)
    real.kill()
    gone, _ = psutil.wait_procs([trainer], timeout=5)
    assert gone, "the training outlived its server"
    again = start_server(real.home, **real.env)
    real.process, real.url, real.token = again.process, again.url, again.token
    client = real.openai()
    job = until(client, job.id, ENDED, timeout_s=600)
    assert job.status == "succeeded", (job.error, messages(client, job.id))
    ended = time.monotonic()
    answer = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": "Code word number 3?"}], max_tokens=8, temperature=0
    )
    assert answer.choices[0].message.content == "zebra" and time.monotonic() - ended < 10
    base = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Code word number 3?"}], max_tokens=8, temperature=0
    )
    assert base.choices[0].message.content != "zebra"

    whole = client.fine_tuning.jobs.create(model=MODEL, training_file=upload(client, ROWS), suffix="once", **OPTIONS)
    assert until(client, whole.id, ENDED, timeout_s=600).status == "succeeded"
    assert steps(client, job.id) == pytest.approx(steps(client, whole.id), abs=1e-4)
    assert sorted(steps(client, job.id)) == list(range(1, 17))


def test_a_tuned_model_is_trained_further(real: NoriaServer) -> None:
    client = real.openai()
    first = next(job for job in client.fine_tuning.jobs.list() if job.fine_tuned_model)
    rows = jsonl(chat(f"Code word number {n}?", "tiger") for n in range(8))
    options = {**OPTIONS, "extra_body": {"noria": {"forgetting_check": True, "max_minutes": 5}}}
    job = client.fine_tuning.jobs.create(model=str(first.fine_tuned_model), training_file=upload(client, rows), **options)
    job = until(client, job.id, ENDED, timeout_s=600)
    assert job.status == "succeeded", job.error
    assert job.fine_tuned_model and job.fine_tuned_model.startswith(f"ft:{MODEL}:noria::")
    loss = steps(client, job.id)
    assert loss[max(loss)] < loss[1]
    found = job.model_dump()["noria"]["forgetting"]
    assert found["items"] == 60 and 0 < found["before"] <= 1


def test_a_full_disk_at_a_checkpoint_loses_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    """On a tmpfs that is filled while a tiny model trains: the training goes on, and the job ends well once there is room."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        with running_server(tmp_path / "home") as server:  # its database has room; the trainings' folder has not
            copy_model(tiny_folder, server.home)
            (server.home / "training").symlink_to(place)
            server.add_model(CARD)
            client = server.openai()
            rows = jsonl(chat(f"What is {n}?", "even" if n % 2 == 0 else "odd") for n in range(400))
            options = {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 6, "batch_size": 4}}}}
            job = client.fine_tuning.jobs.create(
                model="tiny", training_file=upload(client, rows), extra_body={"noria": {"forgetting_check": False}}, **options
            )
            until_step(client, job.id, 20)
            filler = place / "filler"
            _fill(filler)
            deadline = time.monotonic() + 120
            while not any("disk" in text for text in messages(client, job.id)):
                assert time.monotonic() < deadline and client.fine_tuning.jobs.retrieve(job.id).status not in ENDED
                time.sleep(0.1)
            filler.unlink()
            assert until(client, job.id, ENDED, timeout_s=300).status == "succeeded"
    finally:
        subprocess.run(["umount", "-l", place], check=False)


def _fill(path: Path) -> None:
    with path.open("wb") as out:
        try:
            while True:
                out.write(os.urandom(1 << 16))
                out.flush()
        except OSError:
            pass


def test_the_official_clients_types_fit(real: NoriaServer) -> None:
    client = real.openai()
    for job in client.fine_tuning.jobs.list():
        assert json.loads(job.model_dump_json())["object"] == "fine_tuning.job"
