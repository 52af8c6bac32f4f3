"""Fine-tuning jobs through OpenAI's client: shapes, states, failures. The training is played, everything else is real."""

from __future__ import annotations

import contextlib
import csv
import io
import sqlite3
import time
from typing import Any

import openai
import pytest

from tests.conftest import NoriaServer, start_server

from .tiny_model import chats, jsonl, preference

ENDED = {"succeeded", "failed", "cancelled"}


def upload(client: openai.OpenAI, content: bytes, purpose: Any = "fine-tune") -> str:
    return client.files.create(file=("rows.jsonl", content), purpose=purpose).id


def create(client: openai.OpenAI, content: bytes, **options: Any) -> Any:
    return client.fine_tuning.jobs.create(model="tiny", training_file=upload(client, content), **options)


def until(client: openai.OpenAI, job_id: str, states: set[str], timeout_s: float = 110) -> Any:
    deadline = time.monotonic() + timeout_s
    while (job := client.fine_tuning.jobs.retrieve(job_id)).status not in states:
        assert time.monotonic() < deadline, f"still {job.status}"
        time.sleep(0.05)
    return job


def messages(client: openai.OpenAI, job_id: str) -> list[str]:
    return [event.message for event in client.fine_tuning.jobs.list_events(job_id, limit=200)][::-1]


def tries(server: NoriaServer, job_id: str) -> list[str]:
    return (server.home / "training" / f"{job_id}.tries").read_text().splitlines()


def test_a_job_becomes_a_model_that_answers(played: NoriaServer) -> None:
    client = played.openai()
    made = create(client, chats(12), suffix="parity", seed=1, metadata={"team": "a"})
    assert made.object == "fine_tuning.job" and made.id.startswith("ftjob-") and made.status == "validating_files"
    job = until(client, made.id, ENDED)
    assert job.status == "succeeded", job.error
    assert job.fine_tuned_model == f"ft:tiny:noria:parity:{job.id[-8:]}"
    assert job.hyperparameters.n_epochs == 5 and job.hyperparameters.batch_size == 4
    assert job.trained_tokens == 123 and job.error is None and job.finished_at and job.organization_id
    extra = job.model_dump()["noria"]
    assert extra["resolved"]["lora_rank"] == 16 and extra["data"]["training"]["rows"] == 12
    answer = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": "What is 2?"}], max_tokens=3
    )
    assert answer.model == job.fine_tuned_model
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert checkpoint.step_number == 2 and checkpoint.metrics.full_valid_loss == 1.0
    assert checkpoint.fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-2"
    assert checkpoint.fine_tuned_model_checkpoint in {model.id for model in client.models.list()}
    rows = list(csv.DictReader(io.StringIO(client.files.content(job.result_files[0]).text)))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"] and rows[1]["train_loss"] == "1.0"
    assert client.files.retrieve(job.result_files[0]).purpose == "fine-tune-results"
    events = client.fine_tuning.jobs.list_events(job.id, limit=3)
    assert events.data[0].message == "The job has successfully completed" and events.has_next_page()
    assert any(event.type == "metrics" and event.data["total_steps"] == 6 for event in events)  # type: ignore[index]
    assert [each.id for each in client.fine_tuning.jobs.list(metadata={"team": "a"})] == [job.id]  # type: ignore[arg-type]
    assert not list(client.fine_tuning.jobs.list(extra_query={"metadata[team]": "b"}))
    assert not (played.home / "training" / job.id).exists()


def test_each_bad_line_is_named(played: NoriaServer) -> None:
    client = played.openai()
    content = chats(3) + b'\n{"messages": []}\nno json\n{"messages":[{"role":"user","content":"\xff"}]}\n' + chats(1)
    job = until(client, create(client, content).id, ENDED)
    assert job.status == "failed" and job.error is not None
    assert job.error.code == "invalid_training_file" and job.error.param == "training_file"
    told = messages(client, job.id)
    assert any("line 4: messages" in text for text in told) and any("line 5: Not JSON" in text for text in told)
    assert any("line 6: Not UTF-8: byte 0xff" in text for text in told)
    assert job.fine_tuned_model is None and job.finished_at


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty"), (b"\n \n", "empty"), (b'{"a":"' + b"x" * 2_000_000 + b'"}', "2,000,0")]
)
def test_a_file_with_nothing_to_learn_fails_the_job(played: NoriaServer, content: bytes, said: str) -> None:
    client = played.openai()
    job = until(client, create(client, content).id, ENDED)
    assert job.status == "failed" and job.error is not None and said in job.error.message


@pytest.mark.slow
def test_long_rows_are_left_out_and_sameness_is_warned_of(played: NoriaServer) -> None:
    client = played.openai()
    row = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "one"}]}
    long = {"messages": [{"role": "user", "content": "y" * 2000}, {"role": "assistant", "content": "one"}]}
    job = until(client, create(client, jsonl([row, row, long])).id, ENDED)
    assert job.status == "succeeded"
    told = "\n".join(messages(client, job.id))
    assert "line 3 is left out" in told and "1 of 2 training rows say the same" in told and "one and the same answer" in told


@pytest.mark.slow
def test_a_killed_training_goes_on_where_it_was(played: NoriaServer) -> None:
    client = played.openai()
    job = until(client, create(client, chats(8), seed=14).id, ENDED)
    assert job.status == "succeeded"
    assert [line.split()[0] for line in tries(played, job.id)] == ["0", "2"]
    steps = [e.data["step"] for e in client.fine_tuning.jobs.list_events(job.id, limit=100) if e.type == "metrics"]  # type: ignore[index]
    assert sorted(steps) == [1, 2, 3, 4, 5, 6]  # each told once


@pytest.mark.slow
def test_out_of_memory_computes_less_at_once(played: NoriaServer) -> None:
    client = played.openai()
    job = until(client, create(client, chats(8), seed=13).id, ENDED)
    assert job.status == "succeeded"
    first, second = (int(line.split()[1]) for line in tries(played, job.id))
    assert second == first // 2
    assert any("Trying again from the last checkpoint" in text for text in messages(client, job.id))


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "code", "runs"), [(15, "diverged", 1), (16, "training_killed", 3)])
def test_what_cannot_succeed_ends(played: NoriaServer, seed: int, code: str, runs: int) -> None:
    client = played.openai()
    job = until(client, create(client, chats(8), seed=seed).id, ENDED)
    assert job.status == "failed" and job.error is not None and job.error.code == code
    assert len(tries(played, job.id)) == runs


@pytest.mark.slow
def test_pause_resume_cancel_and_one_at_a_time(played: NoriaServer) -> None:
    client = played.openai()
    both = [create(client, chats(8), seed=7) for _ in range(2)]
    deadline, found = time.monotonic() + 100, list[Any]()
    while sorted(job.status for job in found) != ["queued", "running"]:
        assert time.monotonic() < deadline and not any(job.status in ENDED for job in found)
        time.sleep(0.1)
        found = [client.fine_tuning.jobs.retrieve(job.id) for job in both]
    first, second = sorted(found, key=lambda job: job.status, reverse=True)
    assert client.fine_tuning.jobs.pause(first.id).status == "paused"
    until(client, second.id, {"running"})  # its place was free
    with pytest.raises(openai.ConflictError):
        client.fine_tuning.jobs.pause(first.id)
    assert client.fine_tuning.jobs.cancel(second.id).status == "cancelled"
    assert client.fine_tuning.jobs.resume(first.id).status in {"queued", "running"}
    assert until(client, first.id, ENDED).status == "succeeded"
    assert client.fine_tuning.jobs.retrieve(second.id).status == "cancelled"
    with pytest.raises(openai.ConflictError):
        client.fine_tuning.jobs.cancel(first.id)
    with pytest.raises(openai.ConflictError):
        client.fine_tuning.jobs.resume(second.id)


@pytest.mark.slow
def test_preferences_are_prepared_as_pairs(played: NoriaServer) -> None:
    client = played.openai()
    content = jsonl(preference(f"Say {n}", "good", "bad") for n in range(4))
    job = until(client, create(client, content, method={"type": "dpo"}).id, ENDED)
    assert job.status == "succeeded" and job.method is not None and job.method.type == "dpo"
    assert job.model_dump()["noria"]["resolved"]["beta"] == 0.1
    job = until(client, create(client, content).id, ENDED)
    assert job.error is not None and "preference row" in job.error.message


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"model": "nothing"}, "model"),
        ({"model": "scripted"}, "model"),
        ({"training_file": "file-none"}, "training_file"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 0}}}}, "n_epochs"),
        ({"method": {"type": "supervised", "dpo": {}}}, "method"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"suffix": "a b"}, "suffix"),
        ({"extra_body": {"noria": {"lora_rnk": 8}}}, "noria.lora_rnk"),
        ({"extra_body": {"noria": {"early_stopping_patience": 2}}}, "noria.early_stopping_patience"),
        ({"extra_body": {"noria": {"kind": "full", "lora_rank": 4}}}, "noria.lora_rank"),
    ],
)
def test_a_wrong_request_is_refused_at_once(played: NoriaServer, options: dict[str, Any], param: str) -> None:
    client = played.openai()
    given = {"model": "tiny", "training_file": upload(client, chats(2)), **options}
    with pytest.raises(openai.APIStatusError) as caught:
        client.fine_tuning.jobs.create(**given)
    assert caught.value.status_code in {400, 404} and param in str(caught.value.param)


def test_a_file_for_something_else_is_refused(played: NoriaServer) -> None:
    client = played.openai()
    with pytest.raises(openai.BadRequestError, match="uploaded for"):
        client.fine_tuning.jobs.create(model="tiny", training_file=upload(client, chats(2), "assistants"))


def again(server: NoriaServer) -> openai.OpenAI:
    """The same home in a new process, behind the same fixture."""
    started = start_server(server.home, **server.env)
    server.process, server.url, server.token = started.process, started.url, started.token
    return server.openai()


@pytest.mark.slow
def test_a_killed_server_takes_its_trainings_up_again(played: NoriaServer) -> None:
    client = played.openai()
    job = create(client, chats(8), seed=7)
    until(client, job.id, {"running"})
    time.sleep(1.0)
    played.kill()
    client = again(played)
    assert until(client, job.id, ENDED).status == "succeeded"
    steps = [e.data["step"] for e in client.fine_tuning.jobs.list_events(job.id, limit=100) if e.type == "metrics"]  # type: ignore[index]
    assert sorted(steps) == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_job_whose_durable_work_was_lost_is_taken_up(played: NoriaServer) -> None:
    client = played.openai()
    job = create(client, chats(8), seed=7)
    until(client, job.id, {"running"})
    played.stop()
    with contextlib.closing(sqlite3.connect(played.home / "noria.db")) as database, database:
        database.execute("UPDATE job SET status = 'failed' WHERE subject = ?", (job.id,))
    assert until(again(played), job.id, ENDED).status == "succeeded"
