"""The whole loop through OpenAI's client and the public API, with the default model and a real training: chat, feedback, a turn,
an `ft:` answer, and the way back from it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import running_server

pytest.importorskip("trl")
pytestmark = [pytest.mark.real_model, pytest.mark.timeout(600)]
MODEL = "smollm2-135m-instruct"
CODES = {"apple": "red", "banana": "yellow", "lime": "green", "plum": "blue"}
SPEC: dict[str, Any] = {
    "name": "codes",
    "base_model": MODEL,
    "data": {"min_rows": 10, "test_share": 0.3, "validation_share": 0.0, "near_duplicates": "keep", "leakage": "keep"},
    "train": {
        "hyperparameters": {"n_epochs": 3, "batch_size": 8},
        "options": {"forgetting_check": False, "learning_rate": 0.002},
        "minutes": 2,
    },
    "gate": {"min_rows": 8, "max_rows": 24, "sampling": {"temperature": 0.0, "max_completion_tokens": 4}},
    "canary": {"steps": [{"share": 0.5, "min_requests": 4, "minutes": 0}]},
    "guard": {"every_s": 0.3, "watch_hours": 0, "max_latency_ratio": 50},
}


def messages(fruit: str, number: int) -> list[Any]:
    return [{"role": "system", "content": "Say the code."}, {"role": "user", "content": f"{fruit} {number}"}]


def test_from_chat_to_a_tuned_answer_and_the_lineage_back(tmp_path: Path) -> None:
    with running_server(tmp_path, scripted=False) as server, server.client() as api:
        client = server.openai()
        api.post("/v1/noria/wheels", json={"spec": SPEC}).raise_for_status()
        given: list[str] = []
        for number in range(60):
            fruit = list(CODES)[number % 4]
            reply = client.chat.completions.create(
                model="codes", messages=messages(fruit, number), max_tokens=2, store=True, metadata={"test": "loop"}
            )
            given.append(reply.id)
            said = {"completion_id": reply.id, "rating": "down", "correction": CODES[fruit]}
            api.post("/v1/noria/feedback", json=said).raise_for_status()

        api.post("/v1/noria/wheels/codes/turns").raise_for_status()
        deadline, users = time.monotonic() + 500, 0
        while (turn := api.get("/v1/noria/wheels/codes/turns/latest").json())["step"] != "end":
            assert time.monotonic() < deadline, turn["step"]
            if turn["step"] == "canary":
                users += 1
                client.chat.completions.create(model="codes", messages=messages("plum", users), max_tokens=2, user=f"u{users}")
            time.sleep(0.2)
        assert turn["outcome"] == "promoted", turn["reason"]
        candidate = turn["data"]["candidate"]
        assert candidate.startswith(f"ft:{MODEL}:noria:codes:")

        answers = [
            client.chat.completions.create(model="codes", messages=messages(fruit, 977), max_tokens=3, temperature=0)
            for fruit in CODES
        ]
        assert {answer.model for answer in answers} == {candidate}
        right = [answer.choices[0].message.content == code for answer, code in zip(answers, CODES.values(), strict=True)]
        assert sum(right) >= 3

        graph = api.get(f"/v1/noria/lineage/{candidate}").json()
        kinds = {node["kind"] for node in graph["nodes"]}
        assert {"model", "job", "version", "feedback", "trace"} <= kinds, kinds
        assert api.get(f"/v1/noria/lineage/{given[0]}").status_code == 200
