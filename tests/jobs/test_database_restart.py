"""Jobs on a real PostgreSQL that is stopped and started again in their middle: they wait, go on, and lose and double nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import PG_BIN, NoriaServer, Postgres, running_server

from .ingesting import ALLOW, begin, upload_many

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(not (PG_BIN / "initdb").exists(), reason="needs PostgreSQL"),
    pytest.mark.timeout(300),
]

FILES, ROWS = 40, 300
CONFIG = {
    "type": "custom",
    "item_schema": {"type": "object", "properties": {"q": {"type": "string"}}},
    "include_sample_schema": True,
}
CRITERIA = [
    {"type": "string_check", "name": "exact", "input": "{{sample.output_text}}", "reference": "{{item.q}}", "operation": "eq"}
]


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    made = Postgres()
    made.start()
    yield made
    made.close()


def query(postgres: Postgres, text: str) -> list[tuple[Any, ...]]:
    import psycopg

    with psycopg.connect(postgres.url) as connection:
        return connection.execute(text).fetchall()


def until(what: Callable[[], Any], server: NoriaServer, timeout_s: float = 120) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError(f"it did not happen in time:\n{server.log()[-4000:]}")


def away(postgres: Postgres, seconds: float) -> None:
    postgres.stop()
    time.sleep(seconds)
    postgres.start()


def job_of(http: httpx.Client, kind: str) -> dict[str, Any]:
    answer = http.get("/v1/noria/jobs", params={"kind": kind})
    return answer.json()["data"][0] if answer.status_code == 200 else {"status": "unknown"}


def ended(http: httpx.Client, kind: str) -> dict[str, Any] | None:
    job = job_of(http, kind)
    return job if job["status"] in {"completed", "failed", "cancelled"} else None


def test_an_ingestion_of_many_small_files_goes_on(postgres: Postgres, tmp_path: Path) -> None:
    with running_server(tmp_path / "home", NORIA_DATABASE_URL=postgres.url) as server:
        begin(server, upload_many(server, FILES, paragraphs=2))
        done = "SELECT count(*) FROM store_file WHERE status='completed'"
        for least in range(4, FILES, 12):
            until(lambda at=least: query(postgres, done)[0][0] >= at, server)
            away(postgres, 1)
        with server.client() as http:
            job = until(lambda: ended(http, "ingest"), server)
        assert (job["status"], job["error"]) == ("completed", None), server.log()[-4000:]
        assert query(postgres, "SELECT status, count(*) FROM store_file GROUP BY status") == [("completed", FILES)]
        counts = "SELECT f.num_passages, count(p.id), count(DISTINCT p.position) FROM store_file f "
        counts += "JOIN passage p ON p.file_ordinal = f.ordinal GROUP BY f.ordinal, f.num_passages"
        found = query(postgres, counts)
        assert len(found) == FILES and all(row[0] == row[1] == row[2] for row in found), found


def test_an_eval_run_goes_on(postgres: Postgres, tmp_path: Path) -> None:
    script = tmp_path / "slow.toml"
    script.write_text("delay_s = 0.02")
    card = {"id": "slow", "task": "chat", "source": "engine", "engine": "scripted", "context_tokens": 4096, "script": str(script)}
    env = {"NORIA_DATABASE_URL": postgres.url, "NORIA_EVAL_CONCURRENCY": "4", **ALLOW}
    with running_server(tmp_path / "home", **env) as server, server.client() as http:
        server.add_model(card)
        owner = http.post("/v1/evals", json={"data_source_config": CONFIG, "testing_criteria": CRITERIA}).json()
        data = {
            "type": "completions",
            "model": "slow",
            "input_messages": {"type": "template", "template": [{"role": "user", "content": "{{item.q}}"}]},
            "source": {"type": "file_content", "content": [{"item": {"q": f"q{number}"}} for number in range(ROWS)]},
        }
        run = http.post(f"/v1/evals/{owner['id']}/runs", json={"data_source": data}).json()
        for least in range(20, ROWS, 60):
            until(lambda at=least: query(postgres, "SELECT count(*) FROM eval_item")[0][0] >= at, server)
            away(postgres, 1)
        job = until(lambda: ended(http, "eval_run"), server)
        assert (job["status"], job["error"]) == ("completed", None), server.log()[-4000:]
        shown = http.get(f"/v1/evals/{owner['id']}/runs/{run['id']}").json()
        assert shown["status"] == "completed", shown["error"]
        assert shown["result_counts"] == {"total": ROWS, "errored": 0, "failed": 0, "passed": ROWS}
        assert query(postgres, "SELECT count(*), count(DISTINCT position) FROM eval_item") == [(ROWS, ROWS)]
