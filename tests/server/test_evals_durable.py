"""A run survives `kill -9`: it goes on where it was, and no row is in it twice."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import running_server

CONFIG = {
    "type": "custom",
    "item_schema": {"type": "object", "properties": {"q": {"type": "string"}}},
    "include_sample_schema": True,
}
CRITERIA = [
    {"type": "string_check", "name": "exact", "input": "{{sample.output_text}}", "reference": "{{item.q}}", "operation": "eq"},
    {"type": "python", "name": "py", "source": "def grade(sample, item):\n    return 1.0"},
]
ROWS = 300


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 100])
def test_a_killed_server_finishes_its_run(tmp_path: Path, after: int) -> None:
    script = tmp_path / "slow.toml"
    script.write_text("delay_s = 0.1")
    card = {"id": "slow", "task": "chat", "source": "engine", "engine": "scripted", "context_tokens": 4096, "script": str(script)}
    env = {"NORIA_ALLOW_ENGINE_COMMANDS": "true", "NORIA_EVAL_CONCURRENCY": "16"}
    with running_server(tmp_path / "home", **env) as server:
        server.add_model(card)
        with server.client() as http:
            owner = http.post("/v1/evals", json={"data_source_config": CONFIG, "testing_criteria": CRITERIA}).json()
            template = [{"role": "user", "content": "{{item.q}}"}]
            data = {
                "type": "completions",
                "model": "slow",
                "input_messages": {"type": "template", "template": template},
                "source": {"type": "file_content", "content": [{"item": {"q": f"q{number}"}} for number in range(ROWS)]},
            }
            run = http.post(f"/v1/evals/{owner['id']}/runs", json={"data_source": data}).json()
            path = f"/v1/evals/{owner['id']}/runs/{run['id']}"
            while http.get(path).json()["result_counts"]["total"] < after:
                time.sleep(0.02)
        server.kill()
        again = server.restart()
        try:
            with again.client() as http:
                before = http.get(path).json()
                assert before["result_counts"]["total"] >= after
                ended: dict[str, Any] = before
                deadline = time.monotonic() + 60
                while ended["status"] in {"queued", "in_progress"}:
                    assert time.monotonic() < deadline, ended
                    time.sleep(0.1)
                    ended = http.get(path).json()
                assert ended["status"] == "completed", ended["error"]
                assert ended["result_counts"] == {"total": ROWS, "errored": 0, "failed": 0, "passed": ROWS}
                items = http.get(f"{path}/output_items", params={"limit": 1000}).json()["data"]
                assert sorted(item["datasource_item_id"] for item in items) == list(range(ROWS))
                assert http.get(f"/v1/noria/jobs/{ended['noria']['job_id']}").json()["status"] == "completed"
        finally:
            again.stop()
