"""Evals on PostgreSQL: filters over JSON, what it cannot store, deleting with everything below."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import running_server

CONFIG = {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True}
EXACT = {"type": "string_check", "name": "exact", "input": "{{sample.output_text}}", "reference": "{{item.a}}", "operation": "eq"}


@pytest.mark.postgres
@pytest.mark.slow
def test_evals_on_postgresql(postgres_database: str, tmp_path: Path) -> None:
    with running_server(tmp_path, NORIA_DATABASE_URL=postgres_database) as server, server.client() as http:

        def finished(eval_id: str, data: dict[str, Any]) -> dict[str, Any]:
            run = http.post(f"/v1/evals/{eval_id}/runs", json={"data_source": data}).raise_for_status().json()
            while (run := http.get(f"/v1/evals/{eval_id}/runs/{run['id']}").json())["status"] in {"queued", "in_progress"}:
                time.sleep(0.05)
            return run

        client = server.openai()
        for word in ("one", "two"):
            messages: Any = [{"role": "user", "content": word}]
            client.chat.completions.create(model="scripted", messages=messages, store=True, metadata={"word": word})
            client.responses.create(model="scripted", input=word, metadata={"word": word}, temperature=0.5)
        criteria = [{**EXACT, "reference": "two"}]
        logs = http.post("/v1/evals", json={"data_source_config": {"type": "logs"}, "testing_criteria": criteria})
        for kind in ("stored_completions", "responses"):
            source = {"type": kind, "metadata": {"word": "two"}, "model": "scripted", "created_after": 1}
            source |= {"temperature": 0.5} if kind == "responses" else {}
            data = {"type": "completions" if kind == "stored_completions" else kind, "source": source}
            assert finished(logs.json()["id"], data)["result_counts"]["passed"] == 1
        owner = http.post("/v1/evals", json={"data_source_config": CONFIG, "testing_criteria": [EXACT]}).json()
        ask = {"type": "template", "template": [{"role": "user", "content": "{{item.q}}"}]}
        content = [{"item": {"q": f"q{number}", "a": "q1"}} for number in range(50)]
        source = {"type": "file_content", "content": content}
        run = finished(owner["id"], {"type": "completions", "model": "scripted", "input_messages": ask, "source": source})
        assert run["result_counts"] == {"total": 50, "errored": 0, "failed": 49, "passed": 1}
        text = b'{"item": {"q": "n", "a": "a\\u0000b"}, "sample": {"output_text": "a\\u0000b"}}'
        file = http.post("/v1/files", data={"purpose": "evals"}, files={"file": ("nul.jsonl", text)}).json()
        run = finished(owner["id"], {"type": "jsonl", "source": {"type": "file_id", "id": file["id"]}})
        assert run["result_counts"]["passed"] == 1, run
        assert http.delete(f"/v1/evals/{owner['id']}").json()["deleted"] is True
