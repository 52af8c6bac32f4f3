"""Whole turns through the public API, with a tiny model and a played training: everything else is real."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import NoriaServer, running_server, start_server
from tests.training.tiny_model import CARD, copy_model, write_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
TRAINER = Path(__file__).parent.parent / "training" / "fake_trainer.py"
# Passes whatever a tuned model says: the tiny one says nothing of sense.
GRADER = {"type": "string_check", "name": "tuned", "operation": "like", "input": "{{sample.model}}", "reference": "ft:"}
SPEC: dict[str, Any] = {
    "base_model": "tiny",
    "data": {"min_rows": 10, "test_share": 0.3, "near_duplicates": "keep", "leakage": "keep", "personal_data": "keep"},
    "train": {"options": {"forgetting_check": False}, "seed": 1},
    "gate": {"graders": [GRADER], "min_rows": 5, "max_rows": 20, "sampling": {"temperature": 0.0, "max_completion_tokens": 2}},
    "canary": {"steps": [{"share": 0.5, "min_requests": 5, "minutes": 0}]},
    "guard": {"every_s": 0.2, "watch_hours": 0, "max_latency_ratio": 50},
}


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def server(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    home = tmp_path_factory.mktemp("home")
    copy_model(tiny_folder, home)
    with running_server(home, NORIA_TRAIN_COMMAND=f"{sys.executable} {TRAINER}") as server:
        server.add_model(CARD)
        yield server


@pytest.fixture
def api(server: NoriaServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def make(api: httpx.Client, name: str, **changes: Any) -> dict[str, Any]:
    reply = api.post("/v1/noria/wheels", json={"spec": {**SPEC, "name": name, **changes}})
    assert reply.status_code == 200, reply.text
    return reply.json()


def feed(api: httpx.Client, route: str, number: int = 60, answer: Any = lambda n: "even" if n % 2 == 0 else "odd") -> list[str]:
    """Traffic through the route, and a correction for each answer."""
    ids: list[str] = []
    for n in range(number):
        body = {"model": route, "messages": [{"role": "user", "content": f"What is {n * 7919}?"}], "max_tokens": 1, "store": True}
        reply = api.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        ids.append(reply.json()["id"])
        said = api.post("/v1/noria/feedback", json={"completion_id": ids[-1], "correction": answer(n)})
        assert said.status_code == 200, said.text
    return ids


def start(api: httpx.Client, name: str) -> dict[str, Any]:
    reply = api.post(f"/v1/noria/wheels/{name}/turns")
    assert reply.status_code == 200, reply.text
    return reply.json()


def until(api: httpx.Client, name: str, *steps: str, use: bool = False, timeout_s: float = 120) -> dict[str, Any]:
    """The latest turn once it stands at one of the steps; with `use`, traffic goes on meanwhile."""
    deadline, asked = time.monotonic() + timeout_s, 0
    while (turn := api.get(f"/v1/noria/wheels/{name}/turns/latest").json())["step"] not in steps:
        assert turn["step"] != "end", turn["reason"]
        assert time.monotonic() < deadline, f"still at {turn['step']}"
        if use and turn["step"] in {"canary", "watch"}:
            asked += 1
            ask(api, name, f"user-{asked}")
        time.sleep(0.02)
    return turn


def ask(api: httpx.Client, route: str, user: str) -> str:
    """Which model answers a user."""
    body = {"model": route, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "user": user}
    reply = api.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    return reply.headers["x-noria-model"]


def test_a_turn_from_feedback_to_promotion_and_back(api: httpx.Client) -> None:
    made = make(api, "whole")
    assert made["route"] == "whole" and made["dataset_id"].startswith("ds_")
    feed(api, "whole")
    assert start(api, "whole")["step"] in {"collect", "curate", "split", "train"}
    open_turn = api.post("/v1/noria/wheels/whole/turns")
    assert open_turn.status_code == 409 and "turn_" in open_turn.json()["error"]["message"]
    turn = until(api, "whole", "end", use=True)
    assert turn["outcome"] == "promoted", turn["reason"]
    data, candidate = turn["data"], turn["data"]["candidate"]
    assert data["collect"]["new_rows"] == 60 and data["split"]["train_rows"] >= 20
    assert data["gate"]["comparisons"][0]["rows"] >= 5 and data["gate"]["comparisons"][0]["p"] < 0.01
    assert data["canary"]["candidate"]["requests"] >= 5
    assert ask(api, "whole", "anybody") == candidate

    wheel = api.get("/v1/noria/wheels/whole").json()
    assert wheel["counts"]["shares"] == {candidate: 1.0} and wheel["counts"]["promoted"] == 1
    assert wheel["counts"]["traffic"] >= 65 and wheel["counts"]["feedback"] == 60 and wheel["counts"]["new_feedback"] == 0
    assert {each["step"]: each["state"] for each in turn["steps"]}["approve"] == "not needed"

    report = api.get("/v1/noria/wheels/whole/turns/1/report")
    assert report.headers["content-type"].startswith("text/markdown")
    for said in ("Outcome | **promoted**", f"`{candidate}`", "## Gate: passed", "## Canary", "plots/gate.svg"):
        assert said in report.text
    facts = api.get("/v1/noria/wheels/whole/turns/1/report", params={"format": "json"}).json()
    assert facts["id"] == turn["id"] and set(facts["plots"]) == {"loss", "gate", "canary"}
    for plot in facts["plots"].values():
        drawn = api.get(f"/v1/noria/wheels/whole/turns/1/{plot}")
        assert drawn.headers["content-type"] == "image/svg+xml" and drawn.text.startswith("<svg")

    back = api.get(f"/v1/noria/lineage/{candidate}").json()
    assert {"feedback", "trace", "version", "model", "turn"} <= {node["kind"] for node in back["nodes"]}

    undone = api.post("/v1/noria/wheels/whole/turns/latest/rollback", json={"by": "ann"})
    assert undone.status_code == 200 and undone.json()["outcome"] == "rolled_back"
    assert ask(api, "whole", "anybody") == "tiny"
    again = api.post("/v1/noria/wheels/whole/turns/latest/rollback")
    assert again.status_code == 409


def test_nothing_new_is_skipped_and_says_so(api: httpx.Client) -> None:
    make(api, "idle")
    start(api, "idle")
    turn = until(api, "idle", "end")
    assert (turn["outcome"], turn["number"]) == ("skipped", 1) and turn["data"]["collect"]["new_rows"] == 0
    start(api, "idle")
    assert until(api, "idle", "end")["number"] == 2


def test_one_answer_only_is_rejected(api: httpx.Client) -> None:
    make(api, "same")
    feed(api, "same", 30, lambda _: "always")
    start(api, "same")
    turn = until(api, "same", "end")
    assert turn["outcome"] == "rejected" and "one and the same answer" in turn["reason"]


def test_all_duplicates_are_one_row(api: httpx.Client) -> None:
    make(api, "twins")
    for _ in range(30):
        body = {"model": "twins", "messages": [{"role": "user", "content": "Same?"}], "max_tokens": 1, "store": True}
        given = api.post("/v1/chat/completions", json=body).json()["id"]
        api.post("/v1/noria/feedback", json={"completion_id": given, "correction": "yes"}).raise_for_status()
    start(api, "twins")
    turn = until(api, "twins", "end")
    assert turn["outcome"] == "skipped" and turn["data"]["collect"]["new_rows"] == 1


def test_feedback_on_other_traffic_of_the_base_is_not_the_wheels(api: httpx.Client) -> None:
    make(api, "own")
    feed(api, "tiny", 20)
    start(api, "own")
    turn = until(api, "own", "end")
    assert turn["outcome"] == "skipped", turn["reason"]
    assert turn["data"]["collect"]["new_rows"] == 0 and turn["data"]["collect"]["skipped"]["other_traffic"] >= 20


def test_a_trace_that_was_deleted_is_learned_from_no_more(api: httpx.Client) -> None:
    make(api, "gone", approval={"mode": "manual"})
    ids = feed(api, "gone", 50)
    trace = next(row for row in api.get("/v1/noria/feedback", params={"target": ids[0]}).json()["data"])["trace_id"]
    api.delete(f"/v1/noria/traces/{trace}").raise_for_status()
    said = api.post("/v1/noria/feedback", json={"trace_id": trace, "rating": "up"})
    assert said.status_code == 404
    start(api, "gone")
    turn = until(api, "gone", "approve", "end")
    assert turn["step"] == "approve" and turn["data"]["collect"]["new_rows"] == 49
    wrong = api.post("/v1/noria/wheels/gone/turns/latest/rollback")
    assert wrong.status_code == 409
    api.post("/v1/noria/wheels/gone/turns/latest/reject", json={"by": "ann"}).raise_for_status()
    turn = until(api, "gone", "end")
    assert turn["outcome"] == "rejected" and "ann" in turn["reason"]
    assert ask(api, "gone", "x") == "tiny"


def test_live_feedback_rolls_a_canary_back(api: httpx.Client) -> None:
    make(api, "drop", canary={"steps": [{"share": 0.5, "min_requests": 5000, "minutes": 0}]})
    feed(api, "drop")
    start(api, "drop")
    until(api, "drop", "canary")
    for n in range(200):
        body = {"model": "drop", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "user": f"u{n}"}
        reply = api.post("/v1/chat/completions", json=body)
        bad = reply.headers["x-noria-model"] != "tiny"
        given = {"completion_id": reply.json()["id"], "rating": "down" if bad else "up"}
        api.post("/v1/noria/feedback", json=given).raise_for_status()
        turn = api.get("/v1/noria/wheels/drop/turns/latest").json()
        if turn["step"] == "end":
            break
    assert turn["outcome"] == "rolled_back" and "negative feedback" in turn["reason"]
    assert api.get("/v1/noria/wheels/drop").json()["counts"]["shares"] == {"tiny": 1.0}


@pytest.mark.parametrize(
    ("spec", "status", "said"),
    [
        ({"name": "x", "base_model": "tiny", "colour": 1}, 400, "colour"),
        ({"name": "x", "base_model": "nowhere"}, 404, "nowhere"),
        ({"name": "tiny", "base_model": "tiny", "route": "scripted"}, 409, "scripted"),
        ({"name": "x", "base_model": "tiny", "gate": {"graders": [{"type": "guess", "name": "g"}]}}, 400, "gate.graders.0"),
        ({"name": "x", "base_model": "tiny", "gate": {"dataset": "none"}}, 404, "none"),
        ({"name": "x", "base_model": "tiny", "train": {"options": {"rank": 3}}}, 400, "train"),
        ({"name": "x", "base_model": "scripted-embedding"}, 400, "embedding"),
    ],
)
def test_a_wheel_that_cannot_be_is_refused_and_leaves_nothing(api: httpx.Client, spec: Any, status: int, said: str) -> None:
    reply = api.post("/v1/noria/wheels", json={"spec": spec})
    assert (reply.status_code, said in reply.json()["error"]["message"]) == (status, True), reply.text
    assert api.get(f"/v1/noria/wheels/{spec['name']}").status_code == 404


def test_bodies_and_names_that_are_wrong(api: httpx.Client) -> None:
    make(api, "plain")
    assert api.post("/v1/noria/wheels", json={"spec": {**SPEC, "name": "plain"}}).status_code == 409
    assert api.post("/v1/noria/wheels", json={}).status_code == 400
    assert api.post("/v1/noria/wheels", json={"toml": "name = "}).status_code == 400
    assert api.post("/v1/noria/wheels", json={"toml": "", "spec": {}}).status_code == 400
    assert api.get("/v1/noria/wheels/none").status_code == 404
    assert api.get("/v1/noria/wheels/plain/turns/latest").status_code == 404
    assert api.post("/v1/noria/wheels/plain", json={"spec": {**SPEC, "name": "other"}}).status_code == 400
    assert api.post("/v1/noria/wheels/plain", json={"paused": True}).json()["paused"] is True
    assert api.post("/v1/noria/wheels/plain/turns", json={"byy": 1}).status_code == 400
    listed = api.get("/v1/noria/wheels", params={"limit": 1}).json()
    assert len(listed["data"]) == 1 and listed["has_more"]
    assert api.delete("/v1/noria/wheels/plain").json()["deleted"]
    assert api.get("/v1/noria/wheels/plain").status_code == 404


def test_a_job_that_is_cancelled_ends_its_turn(api: httpx.Client) -> None:
    make(api, "stopped", train={"options": {"forgetting_check": False}, "seed": 7})
    feed(api, "stopped", 40)
    start(api, "stopped")
    turn = until(api, "stopped", "train")
    api.post(f"/v1/noria/jobs/{turn['job_id']}/cancel").raise_for_status()
    turn = until(api, "stopped", "end")
    assert turn["outcome"] == "cancelled"
    assert api.get("/v1/noria/wheels/stopped").json()["open_turn_id"] is None


def test_new_feedback_triggers_a_turn(tiny_folder: Path, tmp_path: Path) -> None:
    from noria.wheel._triggers import Triggers

    assert Triggers.__init__.__kwdefaults__ == {"every_s": 30.0}
    copy_model(tiny_folder, tmp_path)
    with running_server(tmp_path, NORIA_TRAIN_COMMAND=f"{sys.executable} {TRAINER}") as server, server.client() as api:
        server.add_model(CARD)
        make(api, "eager", trigger={"new_feedback": 40})
        feed(api, "eager", 40)
        deadline = time.monotonic() + 60
        while not (turns := api.get("/v1/noria/wheels/eager/turns").json()["data"]):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert "new records of feedback" in turns[0]["data"]["begun_by"]


STEPS = ("collect", "curate", "split", "train", "evaluate", "gate", "approve", "canary", "watch")


def test_kill_9_at_each_step(tiny_folder: Path, tmp_path: Path) -> None:
    """The server is killed once at each step (or the one after, where a step is over at once); the turn ends all the same."""
    copy_model(tiny_folder, tmp_path)
    command = f"{sys.executable} {TRAINER}"
    with running_server(tmp_path, NORIA_TRAIN_COMMAND=command) as server:
        server.add_model(CARD)
        with server.client() as api:
            # Seed 7: a training that takes some seconds.
            guard = {**SPEC["guard"], "watch_hours": 0.002}
            make(
                api,
                "killed",
                approval={"mode": "manual"},
                train={"options": {"forgetting_check": False}, "seed": 7},
                guard=guard,
                budget={"minutes": 30},
            )
            feed(api, "killed")
            start(api, "killed")
        for step in STEPS:
            after = STEPS[STEPS.index(step) :]
            with server.client() as api:
                if step == "canary":
                    until(api, "killed", "approve")
                    api.post("/v1/noria/wheels/killed/turns/latest/approve").raise_for_status()
                turn = until(api, "killed", *after, "end", use=step == "watch")
                assert turn["step"] != "end" or step == "watch", (step, turn["reason"])
            server.kill()
            again = start_server(server.home, **server.env)
            server.process, server.url, server.token = again.process, again.url, again.token
        with server.client() as api:
            turn = until(api, "killed", "end", use=True)
            assert turn["outcome"] == "promoted", turn["reason"]
            assert [each["step"] for each in turn["data"]["steps"]] == list(STEPS)
            assert ask(api, "killed", "x") == turn["data"]["candidate"]
            jobs = api.get("/v1/fine_tuning/jobs").json()["data"]
            assert [job["status"] for job in jobs] == ["succeeded"], "trained twice"
            evals = api.get("/v1/evals").json()["data"]
            runs = api.get(f"/v1/evals/{evals[0]['id']}/runs").json()["data"]
            assert len(evals) == 1 and sorted(run["name"] for run in runs) == ["base", "candidate"]
            assert api.get("/v1/noria/wheels/killed").json()["open_turn_id"] is None
