"""Fine-tuning jobs through OpenAI's client: shapes, states, failures. The training is played, everything else is real."""

from __future__ import annotations

import contextlib
import csv
import io
import json
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


def marks(server: NoriaServer, job_id: str) -> dict[str, list[dict[str, Any]]]:
    """What the models of a job have learned from that is gone, by model."""
    with sqlite3.connect(server.home / "noria.db", timeout=30) as database:
        found = database.execute("SELECT id, marks FROM tuned_model WHERE tuning_job_id = ?", (job_id,))
        return {model: json.loads(text) for model, text in found}


def test_a_model_is_marked_for_what_was_deleted_while_it_was_trained(played: NoriaServer) -> None:
    client = played.openai()
    traces: list[str] = []
    with played.client() as http:
        for number in range(3):
            asked = [{"role": "user", "content": f"question {number}"}]
            reply = http.post("/v1/chat/completions", json={"model": "scripted", "messages": asked, "store": True})
            traces.append(reply.headers["x-noria-trace-id"])
            said = {"target": traces[-1], "correction": f"right {number}", "author": "marked"}
            http.post("/v1/noria/feedback", json=said).raise_for_status()
        datasets = "/v1/noria/datasets"
        made = http.post(datasets, json={"name": "marked", "validation_share": 0, "test_share": 0}).json()
        assert http.post(f"{datasets}/marked/collect", json={"feedback": {"author": "marked"}}).json()["added"] == 3
        file = http.post(f"{datasets}/marked/export", json={"format": "openai", "split": "train"}).json()["id"]
        job = client.fine_tuning.jobs.create(model="tiny", training_file=file, seed=7)  # seed 7: some seconds
        until(client, job.id, {"running"})
        while not marks(played, job.id):  # its checkpoint
            assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
            time.sleep(0.05)
        assert http.delete(f"/v1/noria/traces/{traces[0]}").status_code == 200
        assert http.get(f"/v1/files/{file}/content").status_code == 404
        job = until(client, job.id, ENDED)
        found = marks(played, job.id)
        assert job.fine_tuned_model in found and len(found) == 2
        assert {mark["dataset_id"] for model in found.values() for mark in model} == {made["id"]}
        assert [len(model) for model in found.values()] == [1, 1], "the checkpoint by the deletion, the model when it was made"
        assert found[job.fine_tuned_model][0].keys() == found[f"{job.fine_tuned_model}:ckpt-step-2"][0].keys()

        # What goes on from a marked model has learned the same.
        later = client.fine_tuning.jobs.create(model=job.fine_tuned_model, training_file=upload(client, chats(4)), seed=1)
        later = until(client, later.id, ENDED)
        assert later.status == "succeeded", later.error
        assert set(map(len, marks(played, later.id).values())) == {1}
        # And it is marked for what is deleted later still, as its parent is.
        assert http.delete(f"/v1/noria/traces/{traces[1]}").status_code == 200
        for each in (job.id, later.id):
            assert all(traces[1] in model[-1]["ids"] for model in marks(played, each).values())


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
