"""Judges on the default model: its grammar holds it to the labels and to the range."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import running_server

MODEL = "smollm2-135m-instruct"
ASKED = [{"role": "user", "content": "Question: {{item.q}}\nAnswer: {{sample.output_text}}\nGrade the answer."}]


@pytest.mark.real_model
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_small_model_judges_in_the_shape_asked_for(tmp_path: Path) -> None:
    criteria = [
        {"type": "label_model", "name": "l", "model": MODEL, "labels": ["good", "bad"], "passing_labels": ["good"],
         "input": ASKED},
        {"type": "score_model", "name": "s", "model": MODEL, "range": [1, 5], "input": ASKED},
        {
            "type": "text_similarity", "name": "c", "evaluation_metric": "cosine", "pass_threshold": 0.8,
            "input": "{{sample.output_text}}", "reference": "The capital of France is Paris.",
        },
    ]  # fmt: skip
    config = {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True}
    data = {
        "type": "completions",
        "model": MODEL,
        "sampling_params": {"temperature": 0, "max_completion_tokens": 24},
        "input_messages": {"type": "template", "template": [{"role": "user", "content": "{{item.q}}"}]},
        "source": {"type": "file_content", "content": [{"item": {"q": "What is the capital of France?"}}]},
    }
    with running_server(tmp_path, scripted=False) as server, server.client() as http:
        owner = http.post("/v1/evals", json={"data_source_config": config, "testing_criteria": criteria}).json()
        path = f"/v1/evals/{owner['id']}/runs"
        run = http.post(path, json={"data_source": data}).json()
        while (run := http.get(f"{path}/{run['id']}").json())["status"] in {"queued", "in_progress"}:
            time.sleep(0.2)
        item = http.get(f"{path}/{run['id']}/output_items").json()["data"][0]
        results = {each["name"]: each for each in item["results"]}
        assert not [each for each in results.values() if "error" in each]
        assert results["l"]["noria"]["label"] in {"good", "bad"}
        assert 1 <= results["s"]["score"] <= 5
        assert results["c"]["score"] > 0.9
        assert {each["model_name"] for each in run["per_model_usage"]} == {MODEL}
