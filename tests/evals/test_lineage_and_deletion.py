"""From an answer back and from a trace forward; and a deleted trace leaves everything that was made of it."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import NoriaServer, running_server, start_server
from tests.evals.test_feedback import ask, give

DATASETS = "/v1/noria/datasets"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    """A server of these tests' own, for its database is written to from outside."""
    with running_server(tmp_path_factory.mktemp("noria")) as running:
        yield running


@pytest.fixture
def name() -> str:
    """Names the dataset, the job and the models of one test."""
    return f"d{uuid.uuid4().hex[:8]}"


def trained(server: NoriaServer, name: str, file_id: str) -> None:
    """What a tuning job would leave behind: a model of this file, and one trained further from it."""
    with sqlite3.connect(server.home / "noria.db", timeout=30) as database:
        job = (
            "INSERT INTO tuning_job (id, project_id, model, training_file, method, resolved, seed, status, result_files, meta,"
            " created_at) VALUES (?, 'proj_default', 'scripted', ?, '{}', '{}', 1, 'succeeded', '[]', '{}', 1)"
        )
        model = (
            "INSERT INTO tuned_model (project_id, id, base_model, kind, tuning_job_id, folder, sha256, detail, marks, created_at)"
            " VALUES ('proj_default', ?, ?, 'lora', ?, 'f', 's', '{}', '[]', 1)"
        )
        database.execute(job, (f"ftjob-{name}", file_id))
        database.execute(model, (f"ft:{name}:one", "scripted", f"ftjob-{name}"))
        database.execute(model, (f"ft:{name}:two", f"ft:{name}:one", None))
        database.execute(model, (f"ft:{name}:other", "scripted", None))


def marks(server: NoriaServer, name: str) -> dict[str, str]:
    with sqlite3.connect(server.home / "noria.db", timeout=30) as database:
        found = database.execute("SELECT id, marks FROM tuned_model WHERE id LIKE ?", (f"ft:{name}:%",))
        return {model.rpartition(":")[2]: text for model, text in found}


def filled(server: NoriaServer, client: httpx.Client, name: str, count: int = 3) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Answers with feedback in a dataset, exported for training: the answers, and the file."""
    answers = [ask(server, f"question {n}", metadata={"of": name}) for n in range(count)]
    for answer, _ in answers:
        give(client, answer, rating="down", correction=f"right {answer}", author=name)
    client.post(DATASETS, json={"name": name, "validation_share": 0, "test_share": 0}).raise_for_status()
    report = client.post(f"{DATASETS}/{name}/collect", json={"feedback": {"author": name}}).json()
    assert (report["added"], report["version"]) == (count, 1)
    file = client.post(f"{DATASETS}/{name}/export", json={"format": "openai", "split": "train"}).json()
    trained(server, name, file["id"])
    return answers, file


def graph(client: httpx.Client, identity: str, **params: Any) -> tuple[dict[str, dict[str, Any]], set[tuple[str, str]]]:
    found = client.get(f"/v1/noria/lineage/{identity}", params=params)
    assert found.status_code == 200, found.text
    nodes = {node["id"]: node for node in found.json()["nodes"]}
    return nodes, {(nodes[edge["from"]]["kind"], nodes[edge["to"]]["kind"]) for edge in found.json()["edges"]}


def test_back_and_forward(own: NoriaServer, name: str) -> None:
    with own.client() as client:
        answers, file = filled(own, client, name)
        answer, trace_id = answers[0]
        nodes, edges = graph(client, trace_id, direction="forward")
        assert {
            ("trace", "feedback"),
            ("feedback", "row"),
            ("row", "version"),
            ("version", "file"),
            ("file", "job"),
            ("job", "model"),
        } <= edges
        assert f"ft:{name}:one" in nodes
        assert file["id"] in nodes
        assert answers[1][1] not in nodes, "another trace is no effect of this one"
        nodes, edges = graph(client, f"ft:{name}:one", direction="back")
        assert {trace for _, trace in answers} <= set(nodes)
        assert {("job", "model"), ("file", "job"), ("version", "file"), ("feedback", "version"), ("trace", "feedback")} <= edges
        for identity in (answer, f"{name}@1", name, file["id"], f"ftjob-{name}"):
            assert f"ft:{name}:one" in graph(client, identity)[0], identity
        shown = client.get(f"/v1/noria/lineage/{name}@1", params={"limit": 1}).json()
        assert shown["truncated"] is True
        assert any(node["kind"] == "more" and node["count"] == 2 for node in shown["nodes"])
        for unknown in ("nothing", "fb_0", f"{name}@9", "f" * 32, "row_0", "ds_0"):
            assert client.get(f"/v1/noria/lineage/{unknown}").status_code == 404, unknown


def test_a_test_row_leads_to_no_model(own: NoriaServer, name: str) -> None:
    with own.client() as client:
        answer, trace_id = ask(own, "held out")
        give(client, answer, rating="up", author=name)
        client.post(DATASETS, json={"name": name, "validation_share": 0, "test_share": 1}).raise_for_status()
        client.post(f"{DATASETS}/{name}/collect", json={"feedback": {"author": name}}).raise_for_status()
        client.post(f"{DATASETS}/{name}/rows", json={"rows": [{"messages": [{"role": "user", "content": "x"}], "expected": "y"}]})
        file = client.post(f"{DATASETS}/{name}/export", json={"split": "test"}).json()
        with sqlite3.connect(own.home / "noria.db", timeout=30) as database:
            database.execute("UPDATE file SET origin = json_set(origin, '$.split', 'train') WHERE id = ?", (file["id"],))
        trained(own, name, file["id"])
        assert f"ft:{name}:one" not in graph(client, trace_id, direction="forward")[0]
        client.delete(f"/v1/noria/traces/{trace_id}").raise_for_status()
        assert set(marks(own, name).values()) == {"[]"}, "nothing was trained on it"


def test_a_deleted_trace_leaves_every_version_file_and_model(own: NoriaServer, name: str) -> None:
    with own.client() as client:
        answers, file = filled(own, client, name)
        (_, gone), (_, kept), _ = answers
        secret = f"right {answers[0][0]}"
        client.post(f"{DATASETS}/{name}/rows", json={"rows": [{"messages": [{"role": "user", "content": "later"}]}]})
        client.post(f"{DATASETS}/{name}/curate", json={}).raise_for_status()
        assert secret in client.get(f"/v1/files/{file['id']}/content").text
        assert client.delete(f"/v1/noria/traces/{gone}").status_code == 200
        for version in (1, 2, 3):
            assert secret not in client.get(f"{DATASETS}/{name}/export", params={"version": version}).text
        versions = client.get(f"{DATASETS}/{name}/versions", params={"order": "asc"}).json()["data"]
        assert [(each["version"], each["origin"]["kind"], each["counts"]["total"]) for each in versions] == [
            (1, "feedback", 2), (2, "edit", 3), (3, "deletion", 3),
        ]  # fmt: skip
        assert versions[0]["counts"]["erased"] == 1
        assert client.get(f"/v1/files/{file['id']}/content").status_code == 404
        found = marks(own, name)
        assert gone in found["one"]
        assert gone in found["two"], "it was trained further from that"
        assert found["other"] == "[]"
        with sqlite3.connect(own.home / "noria.db", timeout=30) as database:
            assert secret not in "\n".join(database.iterdump())
        nodes, _ = graph(client, f"ft:{name}:one", direction="back")
        assert gone not in nodes
        assert kept in nodes


def test_deleting_feedback_and_stored_completions_takes_their_rows(own: NoriaServer, name: str) -> None:
    with own.client() as client:
        answer, _ = ask(own, "stored", store=True, metadata={"of": name})
        given = give(client, answer, label="safe", author=name)
        client.post(DATASETS, json={"name": name}).raise_for_status()
        body = {"feedback": {"author": name}, "policy": {"label_as_expected": True}}
        assert client.post(f"{DATASETS}/{name}/collect", json=body).json()["added"] == 1
        assert client.post(f"{DATASETS}/{name}/collect", json={"completions": {"metadata": {"of": name}}}).json()["added"] == 1
        client.delete(f"/v1/noria/feedback/{given['id']}").raise_for_status()
        rows = client.get(f"{DATASETS}/{name}/rows").json()["data"]
        assert [row["expected"]["content"] for row in rows] == ["stored"]
        client.delete(f"/v1/chat/completions/{answer}").raise_for_status()
        assert client.get(f"{DATASETS}/{name}/rows").json()["data"] == []
        assert client.get(f"/v1/chat/completions/{answer}").status_code == 404


def test_traces_deleted_by_filter_go_as_far(own: NoriaServer, name: str) -> None:
    with own.client() as client:
        filled(own, client, name, count=5)
        reply = client.delete("/v1/noria/traces", params={"metadata[of]": name, "confirm": True}).json()
        assert reply["deleted"] == 5
        assert client.get(f"{DATASETS}/{name}/rows").json()["data"] == []
        assert client.get("/v1/noria/feedback", params={"author": name}).json()["data"] == []


def test_a_dataset_that_was_trained_on_is_not_deleted_by_accident(own: NoriaServer, name: str) -> None:
    with own.client() as client:
        _, file = filled(own, client, name)
        refused = client.delete(f"{DATASETS}/{name}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "dataset_in_use")
        assert client.delete(f"{DATASETS}/{name}", params={"force": True}).status_code == 200
        assert client.get(f"/v1/files/{file['id']}/content").status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize("wait_s", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_a_deletion_is_seen_through_after_a_kill(tmp_path: Path, wait_s: float) -> None:
    """kill -9 while a deletion runs: after the next start it is done, or it was never begun and nothing is half gone."""
    with running_server(tmp_path / "noria") as server:
        with server.client() as client:
            answers, file = filled(server, client, "killed", count=4)
            gone = answers[0][1]
            secret = f"right {answers[0][0]}"

            def delete() -> None:
                with contextlib.suppress(httpx.HTTPError), server.client() as other:
                    other.delete(f"/v1/noria/traces/{gone}")

            thread = threading.Thread(target=delete)
            thread.start()
            time.sleep(wait_s)
            server.kill()
            thread.join()
        again = start_server(server.home, **server.env)
        try:
            with again.client() as client:
                deadline = time.monotonic() + 20
                while any(job["status"] in {"queued", "running"} for job in client.get("/v1/noria/jobs").json()["data"]):
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                jobs = client.get("/v1/noria/jobs", params={"kind": "forget"}).json()["data"]
                begun = any(job["status"] == "completed" for job in jobs)
                assert begun or all(job["error"] == "The server ended before it was started." for job in jobs)
                held = secret in client.get(f"{DATASETS}/killed/export", params={"version": 1}).text
                assert held is not begun
                assert (client.get(f"/v1/noria/traces/{gone}").status_code == 404) is begun
                assert (client.get(f"/v1/files/{file['id']}/content").status_code == 404) is begun
                assert (gone in marks(again, "killed")["one"]) is begun
                client.delete(f"/v1/noria/traces/{gone}")
                assert secret not in client.get(f"{DATASETS}/killed/export", params={"version": 1}).text
        finally:
            again.stop()


@pytest.mark.slow
def test_an_import_is_seen_through_after_a_kill(tmp_path: Path) -> None:
    lines = b"".join(b'{"prompt":"question %d %s","completion":"a"}\n' % (n, b"x" * 50) for n in range(20_000))
    with running_server(tmp_path / "noria") as server:
        with server.client() as client:
            client.post(DATASETS, json={"name": "big"}).raise_for_status()
            reply = client.post(f"{DATASETS}/big/import", files={"file": ("big.jsonl", lines)}).json()
            job_id = reply["job"]["id"]
            while client.get(f"/v1/noria/jobs/{job_id}").json()["done"] < 2000:
                time.sleep(0.01)
            assert client.get(f"{DATASETS}/big/rows").json()["data"] == [], "nothing is seen before all is there"
            server.kill()
        again = start_server(server.home, **server.env)
        try:
            with again.client() as client:
                job = client.get(f"/v1/noria/jobs/{job_id}").json()
                while job["status"] in {"queued", "running"}:
                    time.sleep(0.1)
                    job = client.get(f"/v1/noria/jobs/{job_id}").json()
                assert (job["status"], job["detail"]["added"], job["detail"]["version"]) == ("completed", 20_000, 1)
                with sqlite3.connect(again.home / "noria.db", timeout=30) as database:
                    assert database.execute("SELECT count(*), count(staged) FROM dataset_row").fetchone() == (20_000, 0)
                    assert database.execute("SELECT count(*), count(staged) FROM row_source").fetchone() == (20_000, 0)
        finally:
            again.stop()
