"""What the shell is offered: names of a running server's things."""

from __future__ import annotations

from pathlib import Path

import pytest

from noria.cli import _completion as completion
from tests.conftest import NoriaServer


def test_names_of_the_running_server(server: NoriaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORIA_HOME", str(server.home))
    monkeypatch.delenv("NORIA_URL", raising=False)
    with server.client() as client:
        client.post("/v1/vector_stores", json={"name": "complete-store"}).raise_for_status()
        client.post("/v1/noria/datasets", json={"name": "complete-rows"}).raise_for_status()
        prompt = {"name": "complete-prompt", "template": {"task": "Greet."}}
        client.post("/v1/noria/prompts", json=prompt).raise_for_status()
    assert completion.complete_store("complete-s") == ["complete-store"]
    assert completion.complete_dataset("complete-") == ["complete-rows"]
    assert completion.complete_prompt("complete-") == ["complete-prompt"]
    assert "scripted" in completion.complete_model("scr")
    assert completion.complete_tuning_job("no-such") == completion.complete_dataset("no-such") == []
    for complete in (
        completion.complete_eval,
        completion.complete_wheel,
        completion.complete_job,
        completion.complete_tuning_job,
    ):
        assert complete("no-such-prefix") == []


def test_without_a_server_nothing_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORIA_HOME", str(tmp_path))
    monkeypatch.delenv("NORIA_URL", raising=False)
    assert completion.complete_store("") == []
