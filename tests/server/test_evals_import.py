"""What OpenAI's evals leave behind comes in: objects, lists, JSON lines, twice, broken; a run whose job was lost is taken up."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NoriaServer, running_server

EVAL: dict[str, Any] = {
    "object": "eval",
    "id": "eval_67abd54d9b0081909a86353f6fb9317a",
    "name": "External Data Eval",
    "data_source_config": {
        "type": "custom",
        "schema": {
            "type": "object",
            "properties": {
                "item": {"type": "object", "properties": {"q": {"type": "string"}, "label": {"type": "string"}}},
                "sample": {"type": "object"},
            },
        },
    },
    "testing_criteria": [
        {
            "id": "String check-2eaf2d8d-d649-4335-8148-9535a7ca73c2",
            "name": "String check",
            "type": "string_check",
            "input": "{{sample.output_text}}",
            "reference": "{{item.label}}",
            "operation": "eq",
        }
    ],
    "created_at": 1739314509,
    "metadata": {"test": "synthetics"},
}
RUN: dict[str, Any] = {
    "object": "eval.run",
    "id": "evalrun_67abd54d60ec8190832b46859da808f7",
    "eval_id": EVAL["id"],
    "status": "completed",
    "model": "gpt-4o-mini",
    "name": "base",
    "created_at": 1743092069,
    "result_counts": {"total": 3, "errored": 0, "failed": 1, "passed": 2},
    "per_model_usage": None,
    "per_testing_criteria_results": None,
    "data_source": {"type": "completions", "source": {"type": "file_id", "id": "file-gone"}},
    "error": None,
    "metadata": {},
}


def item(number: int, passed: bool) -> dict[str, Any]:
    return {
        "object": "eval.run.output_item",
        "id": f"outputitem_67abd55eb6548190bb580745d5644a{number:02d}",
        "run_id": RUN["id"],
        "eval_id": EVAL["id"],
        "created_at": 1739314509,
        "status": "pass" if passed else "fail",
        "datasource_item_id": 137,  # the same for all: places are made here
        "datasource_item": {"q": f"q{number}", "label": f"q{number}"},
        "results": [{"name": "String check", "type": "string-check-grader", "score": float(passed), "passed": passed}],
        "sample": {
            "input": [],
            "output": [{"role": "assistant", "content": "x"}],
            "finish_reason": "stop",
            "model": "gpt-4o-mini",
        },
    }


COMPLETION = {
    "object": "chat.completion",
    "id": "chatcmpl-abc",
    "model": "gpt-4o",
    "created": 1738960610,
    "metadata": {"topic": "demo"},
    "messages": [{"role": "user", "content": "Hi"}],
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
}
ITEMS = [item(0, True), item(1, True), item(2, False)]


def test_an_export_comes_in_once(server: NoriaServer) -> None:
    lines = [EVAL, {"object": "list", "data": [RUN]}, *ITEMS, COMPLETION]
    text = "\n".join(json.dumps(line) for line in lines)
    with server.client() as http:
        file = http.post("/v1/files", data={"purpose": "evals"}, files={"file": ("export.jsonl", text.encode())}).json()
        body = {"file_id": file["id"]}
        done = http.post("/v1/noria/imports/openai", json=body).json()
        wanted = {"evals": 1, "runs": 1, "output_items": 3, "completions": 1, "skipped": 0, "num_problems": 0, "problems": []}
        assert done == {"object": "noria.import", **wanted}
        again = http.post("/v1/noria/imports/openai", json=body).json()
        assert (again["evals"], again["output_items"], again["skipped"]) == (0, 0, 6)
    client = server.openai()
    run = client.evals.runs.retrieve(RUN["id"], eval_id=EVAL["id"])
    assert (run.status, run.result_counts.passed, run.model) == ("completed", 2, "gpt-4o-mini")
    assert run.noria["statistics"]["pass_rate"]["estimate"] == pytest.approx(2 / 3)  # type: ignore[attr-defined]
    assert len(list(client.evals.runs.output_items.list(RUN["id"], eval_id=EVAL["id"]))) == 3
    assert client.chat.completions.retrieve("chatcmpl-abc").choices[0].message.content == "Hello"
    # The eval goes on here: the same rows, another model, compared with what OpenAI's had answered.
    template = [{"role": "user", "content": "{{item.q}}"}]
    content = [{"item": each["datasource_item"]} for each in ITEMS]
    data: Any = {
        "type": "completions", "model": "scripted", "input_messages": {"type": "template", "template": template},
        "source": {"type": "file_content", "content": content},
    }  # fmt: skip
    new = client.evals.runs.create(EVAL["id"], data_source=data)
    while (new := client.evals.runs.retrieve(new.id, eval_id=EVAL["id"])).status in {"queued", "in_progress"}:
        time.sleep(0.05)
    with server.client() as http:
        found = http.post("/v1/noria/evals/compare", json={"run_a": RUN["id"], "run_b": new.id}).json()
    assert (found["wins"], found["losses"], found["ties"]) == (1, 0, 2)
    client.evals.delete(EVAL["id"])


def test_what_cannot_come_in_is_said(server: NoriaServer) -> None:
    orphan = {**RUN, "id": "evalrun_orphan", "eval_id": "eval_nowhere"}
    broken = {**EVAL, "id": "eval_broken", "testing_criteria": None}
    with server.client() as http:
        late = {**EVAL, "id": "eval_late", "created_at": 2**70}
        odd = {**COMPLETION, "id": "chatcmpl-odd", "metadata": ["x"]}
        given = [orphan, broken, {**COMPLETION, "id": 5}, late, odd]
        done = http.post("/v1/noria/imports/openai", json={"data": given}).json()
        assert (done["evals"], done["runs"], done["num_problems"]) == (0, 0, 5)
        assert any("eval_nowhere" in problem for problem in done["problems"])
        assert http.post("/v1/noria/imports/openai", json={"data": [{"a": 1}]}).status_code == 400
        assert http.post("/v1/noria/imports/openai", json={}).status_code == 400
        file = http.post(
            "/v1/files", data={"purpose": "evals"}, files={"file": ("x.jsonl", b'{"object": "eval"}\n\xff\xfe')}
        ).json()
        reply = http.post("/v1/noria/imports/openai", json={"file_id": file["id"]})
        assert reply.status_code == 400
        assert "Line 2" in reply.json()["error"]["message"]


@pytest.mark.slow
def test_a_run_whose_job_was_lost_is_taken_up(tmp_path: Path) -> None:
    config = {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True}
    criterion = {"type": "string_check", "name": "s", "input": "{{sample.output_text}}", "reference": "a", "operation": "eq"}
    data = {
        "type": "completions", "model": "scripted", "source": {"type": "file_content", "content": [{"item": {"q": "a"}}]},
        "input_messages": {"type": "item_reference", "item_reference": "item.q"},
    }  # fmt: skip
    with running_server(tmp_path) as server:
        with server.client() as http:
            owner = http.post("/v1/evals", json={"data_source_config": config, "testing_criteria": [criterion]}).json()
            run = http.post(f"/v1/evals/{owner['id']}/runs", json={"data_source": data}).json()
            path = f"/v1/evals/{owner['id']}/runs/{run['id']}"
            while http.get(path).json()["status"] != "completed":
                time.sleep(0.05)
        server.stop()
        with sqlite3.connect(tmp_path / "noria.db") as database:  # as if killed between the run's row and its job
            database.execute("UPDATE eval_run SET status = 'queued', job_id = NULL")
            database.execute("DELETE FROM eval_item")
            database.execute("DELETE FROM job")
        again = server.restart()
        try:
            with again.client() as http:
                deadline = time.monotonic() + 20
                while (found := http.get(path).json())["status"] != "completed":
                    assert time.monotonic() < deadline, found
                    time.sleep(0.05)
                assert found["result_counts"]["passed"] == 1
        finally:
            again.stop()
