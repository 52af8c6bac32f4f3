"""Wheels that could only fail after a training are refused when they are made or changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from noria.evals._sources import _dataset_row
from noria.store import DatasetRow
from noria.wheel._eval_runs import _ITEM
from tests.conftest import NoriaServer, running_server

WHEELS = "/v1/noria/wheels"
EXACT = {"type": "string_check", "name": "exact", "operation": "eq", "input": "{{sample.output_text}}", "reference": "a"}
JUDGE = {
    "type": "label_model", "name": "judge", "model": "scripted", "labels": ["good", "bad"], "passing_labels": ["good"],
    "input": [{"role": "user", "content": "Is this right? {{sample.output_text}}"}],
}  # fmt: skip
PYTHON = {"type": "python", "name": "py", "source": "def grade(sample, item):\n    return 1"}
SPEC: dict[str, Any] = {"name": "refused", "base_model": "scripted"}
BAD_GRADERS: list[tuple[list[dict[str, Any]], str, str]] = [
    ([EXACT, {**EXACT, "reference": "b"}], "gate.graders.1.name", "exact"),
    ([EXACT, {**JUDGE, "model": "nobody"}], "gate.graders.1", "nobody"),
    ([JUDGE], "gate.graders.0", "noria eval calibrate"),
    (
        [{"type": "multi", "name": "m", "graders": {"j": {**JUDGE, "model": "nobody"}}, "calculate_output": "j"}],
        "gate.graders.0",
        "nobody",
    ),
]


def refused(reply: httpx.Response, status: int, param: str, said: str) -> None:
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert (error["param"], said in reply.text) == (param, True), error


@pytest.fixture
def wheel(client: httpx.Client) -> str:
    """A wheel that is right."""
    if client.get(f"{WHEELS}/kept").status_code == 404:
        client.post(WHEELS, json={"spec": {**SPEC, "name": "kept"}}).raise_for_status()
    return f"{WHEELS}/kept"


@pytest.mark.parametrize(("graders", "param", "said"), BAD_GRADERS)
def test_graders_that_could_not_gate(client: httpx.Client, wheel: str, graders: list[Any], param: str, said: str) -> None:
    spec = {**SPEC, "gate": {"graders": graders}}
    refused(client.post(WHEELS, json={"spec": spec}), 400, param, said)
    assert client.get(f"{WHEELS}/refused").status_code == 404
    refused(client.post(wheel, json={"spec": {**spec, "name": "kept"}}), 400, param, said)


SCRIPT = """
[[replies]]
match = "^<data-\\\\w+>good"
text = '{"label": "good"}'

[[replies]]
match = "^<data-"
text = '{"label": "bad"}'
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    """A server without bubblewrap, with a judge that says what it reads."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "script.toml").write_text(SCRIPT)
    with running_server(folder / "home", PATH="/nowhere", NORIA_ALLOW_ENGINE_COMMANDS="true") as server:
        card = {"id": "reader", "task": "chat", "source": "engine", "engine": "scripted", "context_tokens": 4096}
        server.add_model({**card, "script": str(folder / "script.toml")})
        yield server


def test_a_judge_that_was_calibrated_may_gate(bare: NoriaServer) -> None:
    judge = {**JUDGE, "model": "reader", "input": [{"role": "user", "content": "{{sample.output_text}}"}]}
    labels = ["good", "bad"] * 20
    rows = [{"item": {"label": label}, "sample": {"output_text": label}} for label in labels]
    source = {"type": "file_content", "content": rows}
    body = {"grader": judge, "source": source, "human": "{{item.label}}", "output_text": "{{sample.output_text}}"}
    spec = {**SPEC, "name": "judged", "gate": {"graders": [{**judge, "name": "renamed"}]}}
    with bare.client() as client:
        refused(client.post(WHEELS, json={"spec": spec}), 400, "gate.graders.0", "noria eval calibrate")
        agreed = client.post("/v1/noria/evals/calibrate", json=body).json()
        assert agreed["calibrated"], agreed
        assert client.post(WHEELS, json={"spec": spec}).status_code == 200


def test_a_python_grader_needs_a_sandbox(bare: NoriaServer) -> None:
    nested = {"type": "multi", "name": "both", "graders": [PYTHON], "calculate_output": "py"}
    with bare.client() as client:
        for grader in (PYTHON, nested):
            reply = client.post(WHEELS, json={"spec": {**SPEC, "gate": {"graders": [EXACT, grader]}}})
            refused(reply, 400, "gate.graders.1", "apt install bubblewrap")


def test_a_preference_row_fits_what_the_gates_templates_may_name() -> None:
    content = {"messages": [{"role": "user", "content": "q"}], "metadata": {}}
    content |= {name: {"role": "assistant", "content": name} for name in ("chosen", "rejected")}
    item = _dataset_row(0, DatasetRow(row_id="r", split="test", content=content)).item
    assert (item["chosen"], item["rejected"]) == ("chosen", "rejected")
    jsonschema.validate(item, _ITEM)


def test_a_change_is_checked_as_a_new_wheel_is(server: NoriaServer, client: httpx.Client, wheel: str) -> None:
    spec = {**SPEC, "name": "kept"}
    for shares in ({"test_share": 0.3}, {"validation_share": 0.2}):
        refused(client.post(wheel, json={"spec": {**spec, "data": shares}}), 409, "data.test_share", "0.15 for test")
    refused(client.post(wheel, json={"spec": {**spec, "base_model": "nowhere"}}), 404, "model", "nowhere")
    refused(client.post(wheel, json={"spec": {**spec, "base_model": "scripted-embedding"}}), 400, "base_model", "embedding")
    kept = client.get(wheel).json()["spec"]
    assert (kept["base_model"], kept["data"]["test_share"], kept["data"]["validation_share"]) == ("scripted", 0.15, 0.05)
    changed = {**spec, "data": {"test_share": 0.15, "validation_share": 0.05, "min_rows": 7}}
    assert client.post(wheel, json={"spec": changed}).json()["spec"]["data"]["min_rows"] == 7
