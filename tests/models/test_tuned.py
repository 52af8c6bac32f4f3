"""Tuned models through the public API, on a tiny random model: served by name, listed, merged, deleted, back after a crash."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import NoriaServer, running_server

sys.path.insert(0, str(Path(__file__).parent.parent / "engines" / "openvino"))

import tiny_adapters
import tiny_decoder as tiny

BASE = {"id": "tiny", "source": "engine", "engine": "openvino", "folder": "models/tiny", "memory_mb": 256}


def tuned(name: str, adapter: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "source": "engine", "engine": "openvino", "base": "tiny", "adapter": adapter, **fields}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    home = tmp_path_factory.mktemp("tuned")
    with running_server(home) as server:
        tiny.write_folder(home / "models" / "tiny")
        _write_checkpoint(home / "models" / "tiny" / "checkpoint")
        server.add_model(BASE)
        for number, name in enumerate(("one", "two")):
            tiny_adapters.write_adapter(home / "adapters" / name, number)
            server.add_model(tuned(f"ft:tiny:noria::{name}", f"adapters/{name}"))
        yield server


def _write_checkpoint(folder: Path) -> None:
    from noria.engines.openvino._checkpoint import write_configuration
    from noria.engines.openvino._source import CheckpointNote, Source, tensor_shapes
    from noria.engines.openvino._tensors import write_tensors

    folder.mkdir()
    weights = tiny.Weights()
    note = CheckpointNote(
        name="tiny",
        source_sha256="0" * 64,
        bos_token=None,
        eos_token="<|end|>",
        pad_token=None,
        unk_token=None,
        add_bos=False,
        end_token_ids=[tiny.END],
        chat_template=tiny.TEMPLATE,
    )
    write_tensors(folder / "model.safetensors", tensor_shapes(tiny.SPEC), weights)
    write_configuration(folder, Source(tiny.SPEC, note, json.dumps(tiny._tokenizer()), weights))


def answer(client: httpx.Client, model: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": "what does a wheel do?"}]
    body = {"model": model, "messages": messages, "max_tokens": 8, "temperature": 0, "logprobs": True}
    reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.json()["model"] == model
    return reply.json()["choices"][0]


def test_each_name_has_its_own_answers(server: NoriaServer) -> None:
    with server.client() as client:
        one, two = "ft:tiny:noria::one", "ft:tiny:noria::two"
        assert client.get(f"/v1/noria/models/{one}").json()["state"] == "ready"
        answers = {name: answer(client, name) for name in ("tiny", one, two)}
        firsts = {found["logprobs"]["content"][0]["logprob"] for found in answers.values()}
        assert len(firsts) == 3
        assert client.get(f"/v1/noria/models/{one}").json()["state"] == "loaded"
        assert {one, two, "tiny"} <= {model["id"] for model in client.get("/v1/models").json()["data"]}
        engines = [
            engine for engine in client.get("/v1/noria/engines").json()["data"] if engine["name"].startswith(("ft:", "tiny"))
        ]
        assert [engine["name"] for engine in engines] == ["tiny"]  # one process for all three
        counted = client.post("/v1/noria/tokens", json={"model": one, "text": "four"}).json()
        assert counted["num_tokens"] == 4 and counted["exact"]

        os.kill(engines[0]["pid"], signal.SIGKILL)
        again = _until_answered(client, two)  # its engine came back without adapters: it is given them again
        assert again["message"] == answers[two]["message"]


def _until_answered(client: httpx.Client, model: str) -> dict[str, Any]:
    for _ in range(100):
        try:
            return answer(client, model)
        except AssertionError:
            time.sleep(0.2)
    return answer(client, model)


def test_a_route_over_base_and_tuned(server: NoriaServer) -> None:
    targets = [{"model": "tiny", "weight": 0}, {"model": "ft:tiny:noria::one", "weight": 1}]
    route = {"id": "canary", "source": "route", "route": {"strategy": "weighted", "targets": targets}}
    with server.client() as client:
        client.post("/v1/noria/models", json=route).raise_for_status()
        body = {"model": "canary", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        assert client.post("/v1/chat/completions", json=body).headers["x-noria-model"] == "ft:tiny:noria::one"
        refused = client.delete("/v1/models/ft:tiny:noria::one")
        assert refused.status_code == 409 and "canary" in refused.text
        client.delete("/v1/noria/models/canary").raise_for_status()
        assert client.delete("/v1/noria/models/tiny").status_code == 409  # its adapters depend on it


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"base": "scripted"}, "takes no adapters"),
        ({"base": "scripted-embedding"}, "takes no adapters"),
        ({"base": "ft:tiny:noria::two"}, "itself a tuned model"),
        ({"base": "nothing-like-it"}, "does not exist"),
        ({"adapter": None}, "needs both"),
        ({"base": None}, "needs both"),
        ({"adapter": "../elsewhere"}, "below the server's home"),
        ({"adapter": "/etc"}, "below the server's home"),
        ({"folder": "models/tiny"}, "from its base"),
    ],
)
def test_cards_that_contradict_themselves_are_refused(server: NoriaServer, fields: dict[str, Any], word: str) -> None:
    with server.client() as client:
        refused = client.post("/v1/noria/models", json={**tuned("ft:bad", "adapters/one"), **fields})
    assert refused.status_code in {400, 404} and word in refused.json()["error"]["message"]


def test_files_that_are_gone_or_damaged_say_so(server: NoriaServer) -> None:
    folder = tiny_adapters.write_adapter(server.home / "adapters" / "gone", 5, use_dora=True)
    server.add_model(tuned("ft:gone", "adapters/gone"))
    body = {"model": "ft:gone", "messages": [{"role": "user", "content": "x"}]}
    with server.client() as client:
        refused = client.post("/v1/chat/completions", json=body)
        assert refused.status_code == 503 and "use_dora" in refused.text
        shutil.rmtree(folder)
        assert client.get("/v1/noria/models/ft:gone").json()["state"] == "missing_weights"
        listed = client.get("/v1/models").json()
        assert "data" in listed, (listed, server.log()[-3000:])
        assert "ft:gone" not in {model["id"] for model in listed["data"]}
        client.delete("/v1/models/ft:gone").raise_for_status()


def test_deleting_unloads_and_keeps_files_that_training_did_not_make(server: NoriaServer) -> None:
    tiny_adapters.write_adapter(server.home / "adapters" / "three", 9)
    server.add_model(tuned("ft:three", "adapters/three"))
    with server.client() as client:
        answer(client, "ft:three")
        assert client.delete("/v1/models/ft:three").json() == {"id": "ft:three", "object": "model", "deleted": True}
        assert client.post("/v1/chat/completions", json={"model": "ft:three", "messages": []}).status_code in {400, 404}
    assert (server.home / "adapters" / "three").exists()  # nobody trained it here: it is the user's own


def test_merging_by_the_command(server: NoriaServer, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "noria.cli", "models", "merge", "ft:tiny:noria::two", str(tmp_path / "out")]
    command += ["--home", str(server.home), "--json"]
    done = subprocess.run([*command, "--format", "both"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == str(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"safetensors", "openvino"}
    shutil.copytree(tmp_path / "out" / "openvino", server.home / "models" / "merged")
    server.add_model({**BASE, "id": "merged", "folder": "models/merged"})
    with server.client() as client:
        merged, adapted = (answer(client, name)["logprobs"]["content"][0] for name in ("merged", "ft:tiny:noria::two"))
        assert merged["logprob"] == pytest.approx(adapted["logprob"], abs=0.3)  # int8 against exact weights
        refused = client.post("/v1/noria/models/scripted/merge", json={})
        assert refused.status_code == 400 and refused.json()["error"]["code"] == "not_a_tuned_model"
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode != 0 and "not an empty folder" in again.stderr
