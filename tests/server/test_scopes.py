"""What a key with the scope `data` alone may not do: call models, read traces, release, stop administrators' work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import NoriaServer, running_server

JUDGE = {
    "type": "label_model", "name": "judge", "model": "scripted", "labels": ["good", "bad"], "passing_labels": ["good"],
    "input": [{"role": "user", "content": "Is this right? {{sample.output_text}}"}],
}  # fmt: skip
COSINE = {
    "type": "text_similarity", "name": "near", "input": "{{sample.output_text}}", "reference": "a", "evaluation_metric": "cosine",
    "pass_threshold": 0.5,
}  # fmt: skip
EXACT = {"type": "string_check", "name": "exact", "input": "{{sample.output_text}}", "reference": "a", "operation": "eq"}
CONFIG = {
    "type": "custom",
    "item_schema": {"type": "object", "properties": {"a": {"type": "string"}}},
    "include_sample_schema": True,
}

Client = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    with running_server(tmp_path_factory.mktemp("scopes")) as server:
        yield server


@pytest.fixture(scope="module")
def having(own: NoriaServer) -> Iterator[Client]:
    """A client whose key has these scopes."""
    made: dict[tuple[str, ...], httpx.Client] = {}

    def client(*scopes: str) -> httpx.Client:
        if scopes not in made:
            with own.client() as admin:
                secret = admin.post("/v1/noria/keys", json={"name": "x", "scopes": list(scopes)}).json()["secret"]
            made[scopes] = httpx.Client(base_url=own.url, headers={"authorization": f"Bearer {secret}"}, trust_env=False)
        return made[scopes]

    yield client
    for each in made.values():
        each.close()


def refused(answer: httpx.Response, scope: str) -> bool:
    return answer.status_code == 403 and repr(scope) in answer.json()["error"]["message"]


def multi(*graders: dict[str, Any]) -> dict[str, Any]:
    return {"type": "multi", "name": "all", "graders": list(graders), "calculate_output": "+".join(g["name"] for g in graders)}


@pytest.mark.parametrize(
    ("grader", "asks"), [(JUDGE, True), (COSINE, True), (multi(EXACT, JUDGE), True), (EXACT, False), (multi(EXACT), False)]
)
def test_a_grader_that_asks_a_model_needs_inference(having: Client, grader: dict[str, Any], asks: bool) -> None:
    body = {"grader": grader, "model_sample": "a"}
    answer = having("data").post("/v1/fine_tuning/alpha/graders/run", json=body)
    assert refused(answer, "inference") if asks else answer.status_code == 200
    assert having("data", "inference").post("/v1/fine_tuning/alpha/graders/run", json=body).status_code == 200


@pytest.mark.parametrize("graders", [5, "x", [5], {"a": 5}, {"type": 5}])
def test_a_grader_of_odd_shape_is_the_callers_fault(having: Client, graders: Any) -> None:
    body = {"grader": {**multi(EXACT), "graders": graders}, "model_sample": "a"}
    assert having("data").post("/v1/fine_tuning/alpha/graders/run", json=body).status_code == 400


def test_runs_and_calibrations_need_inference(having: Client) -> None:
    data, both = having("data"), having("data", "inference")
    made = data.post("/v1/evals", json={"data_source_config": CONFIG, "testing_criteria": [EXACT]}).json()["id"]
    source = {
        "type": "jsonl",
        "source": {"type": "file_content", "content": [{"item": {"a": "a"}, "sample": {"output_text": "a"}}]},
    }
    assert refused(data.post(f"/v1/evals/{made}/runs", json={"data_source": source}), "inference")
    run = both.post(f"/v1/evals/{made}/runs", json={"data_source": source})
    assert run.status_code == 201, run.text
    judged = {"grader": JUDGE, "source": source["source"]}
    assert refused(data.post("/v1/noria/evals/calibrate", json=judged), "inference")
    assert both.post("/v1/noria/evals/calibrate", json=judged).status_code != 403


def test_training_needs_inference(having: Client) -> None:
    body = {"model": "scripted", "training_file": "file-none"}
    assert refused(having("data").post("/v1/fine_tuning/jobs", json=body), "inference")
    assert having("data", "inference").post("/v1/fine_tuning/jobs", json=body).status_code in {400, 404}
    assert refused(having("data").post("/v1/fine_tuning/jobs/ftjob-none/resume"), "inference")
    assert having("data").get("/v1/fine_tuning/jobs").status_code == 200


@pytest.mark.parametrize("what", ["traces", "feedback"])
def test_rows_out_of_traces_need_traces(having: Client, what: str) -> None:
    data, both = having("data"), having("data", "traces")
    data.post("/v1/noria/datasets", json={"name": f"of-{what}"}).raise_for_status()
    assert refused(data.post(f"/v1/noria/datasets/of-{what}/collect", json={what: {}}), "traces")
    assert both.post(f"/v1/noria/datasets/of-{what}/collect", json={what: {}}).status_code == 200
    assert data.post(f"/v1/noria/datasets/of-{what}/collect", json={"completions": {}}).status_code == 200


def test_a_release_needs_admin(own: NoriaServer, having: Client) -> None:
    data = having("data")
    template = {"messages": [{"role": "system", "content": "hi"}]}
    made = data.post("/v1/noria/prompts", json={"name": "release", "template": template})
    assert made.status_code == 200, made.text
    label = "/v1/noria/prompts/release/labels/production"
    assert refused(data.put(label, json={"version": "1"}), "admin")
    with own.client() as admin:
        assert admin.put(label, json={"version": "1"}).status_code == 200
        assert refused(data.post(f"{label}/rollback"), "admin")
        assert refused(data.delete(label), "admin")
        assert refused(data.delete("/v1/noria/prompts/release"), "admin")
        assert admin.delete("/v1/noria/prompts/release").status_code == 200


def test_only_an_administrator_cancels_an_administrators_job(own: NoriaServer, having: Client) -> None:
    gguf = {"model": "mine/none", "gguf": "file:/nowhere/none.gguf"}
    with own.client() as admin:
        job = admin.post("/v1/noria/imports", json=gguf).json()["id"]
        assert refused(having("data").post(f"/v1/noria/jobs/{job}/cancel"), "admin")
        assert not refused(admin.post(f"/v1/noria/jobs/{job}/cancel"), "admin")
    assert having("data").post("/v1/noria/jobs/job_none/cancel").status_code == 404
