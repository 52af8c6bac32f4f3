"""Pausing at bad moments: while a training starts, saves, prepares or exports. No job is lost by it."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from noria.training._job import Run
from noria.training._process import Launch, TrainingProcess
from tests.conftest import NoriaServer

from .test_jobs import ENDED, create, tries, until
from .tiny_model import chats


def pause_and_resume_at_once(client: openai.OpenAI, job_id: str) -> None:
    """Resumes before the process, which takes two seconds to end, has stopped."""
    pausing = threading.Thread(target=client.fine_tuning.jobs.pause, args=(job_id,))
    pausing.start()
    until(client, job_id, {"paused"})
    time.sleep(0.3)
    client.fine_tuning.jobs.resume(job_id)
    assert pausing.is_alive()
    pausing.join()


def until_begun(server: NoriaServer, job_id: str, action: str) -> None:
    deadline = time.monotonic() + 60
    while not (server.home / "training" / job_id / f"{action}.begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_training_resumed_before_it_has_stopped_goes_on(played: NoriaServer) -> None:
    client = played.openai()
    job = create(client, chats(8), seed=17)
    until(client, job.id, {"running"})
    deadline = time.monotonic() + 60
    while not (played.home / "training" / f"{job.id}.tries").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pause_and_resume_at_once(client, job.id)
    job = until(client, job.id, ENDED)
    assert job.status == "succeeded", job.error
    assert len(tries(played, job.id)) == 2


@pytest.mark.slow
def test_a_job_resumed_before_its_preparing_has_stopped_goes_on(played: NoriaServer) -> None:
    client = played.openai()
    job = create(client, chats(8), seed=18)
    until_begun(played, job.id, "prepare")
    time.sleep(0.2)
    pause_and_resume_at_once(client, job.id)
    job = until(client, job.id, ENDED)
    assert job.status == "succeeded", job.error


@pytest.mark.slow
def test_a_pause_while_a_full_model_is_exported_loses_nothing(played: NoriaServer) -> None:
    client = played.openai()
    options = {"noria": {"kind": "full"}}
    job = create(client, chats(8), seed=18, extra_body=options)
    until_begun(played, job.id, "export")
    client.fine_tuning.jobs.pause(job.id)
    job = until(client, job.id, ENDED)
    assert job.status == "succeeded", job.error
    answer = client.chat.completions.create(
        model=str(job.fine_tuned_model), messages=[{"role": "user", "content": "What is 2?"}], max_tokens=3
    )
    assert answer.model == job.fine_tuned_model


async def test_a_pause_while_the_process_starts_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SimpleNamespace(train_command="sh -c 'sleep 60'", cache=tmp_path)
    workshop: Any = SimpleNamespace(records=None, folder=lambda _: tmp_path, settings=settings, threads=1, memory_mb=1000)
    context: Any = None
    run = Run(workshop, "ftjob-1", context)
    start = TrainingProcess.start

    async def paused_meanwhile(action: Any, folder: Path, launch: Launch) -> TrainingProcess:
        process = await start(action, folder, launch)
        await run.pause()
        return process

    monkeypatch.setattr(TrainingProcess, "start", paused_meanwhile)
    run.gate.set()
    assert await asyncio.wait_for(run._run("train"), 20) == -15
