"""LoRA adapters in the worker, with a tiny random model: mixed batches against the adapter alone, loading, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import decoder_reference as reference
import httpx
import numpy as np
import pytest
import tiny_adapters
import tiny_decoder as tiny

from noria.engines.openvino._adapter import read_adapter
from noria.engines.openvino._registry import AdapterRegistry
from noria.engines.openvino._runner import Slice
from noria.errors import Conflict, InvalidRequest, NotFound

SHAPES = {"one": {"rank": 4}, "two": {"rank": 8, "alpha": 4}, "three": {"rank": 2, "parts": ("q_proj", "v_proj", "down_proj")}}
SEEDS = {name: 100 + i for i, name in enumerate(SHAPES)}
PROMPT = [*b"a wheel that the stream itself turns", 3, 1, 4]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("adapters")
    return {name: tiny_adapters.write_adapter(home / name, SEEDS[name], **shape) for name, shape in SHAPES.items()}


def expected(name: str | None, ids: list[int]) -> Any:
    """Logits by the slow reference with merged weights."""
    fetch = tiny_adapters.merged(SEEDS[name], **SHAPES[name]) if name else tiny_adapters.merged(None)
    return reference.forward(tiny.SPEC, fetch, ids)


# The runner -----------------------------------------------------------------------------------------------------------


def test_a_mixed_step_gives_each_token_its_own_model(folders: dict[str, Path]) -> None:
    model = tiny.paged()
    registry = AdapterRegistry(model, "base", 8)
    adapters = {name: registry.load(name, folder) for name, folder in folders.items()}
    who: list[str | None] = ["two", None, "one", "three", None, "one"]
    prompts = [PROMPT[: 5 + 6 * i] for i in range(len(who))]
    slices = [
        Slice(ids, 0, [3 * i, 3 * i + 1, 3 * i + 2], 0, adapters.get(name or ""))
        for i, (ids, name) in enumerate(zip(prompts, who, strict=True))
    ]
    logits = model.run(slices)
    at = 0
    for name, ids in zip(who, prompts, strict=True):
        np.testing.assert_allclose(logits[at : at + len(ids)], expected(name, ids), atol=2e-3)
        at += len(ids)


def test_an_adapter_that_was_unloaded_still_ends_its_answers(folders: dict[str, Path]) -> None:
    model = tiny.paged()
    registry = AdapterRegistry(model, "base", 1)
    one, two = registry.load("one", folders["one"]), registry.load("two", folders["two"])
    assert registry.find("one") is None and registry.find("two") is two  # there is room for one
    logits = model.run([Slice(PROMPT[:9], 0, [0], 0, one), Slice(PROMPT[:9], 0, [1], 0, two)])
    np.testing.assert_allclose(logits[:9], expected("one", PROMPT[:9]), atol=2e-3)
    np.testing.assert_allclose(logits[9:], expected("two", PROMPT[:9]), atol=2e-3)
    assert registry.ensure("one").digest == one.digest  # and comes back when asked for
    assert registry.unload("one") and not registry.unload("one")
    with pytest.raises(NotFound):
        registry.ensure("one")


def test_a_name_that_means_another_adapter_now(folders: dict[str, Path], tmp_path: Path) -> None:
    registry = AdapterRegistry(tiny.paged(), "base", 4)
    first = registry.load("it", tiny_adapters.write_adapter(tmp_path / "it", 1))
    assert registry.load("it", tmp_path / "it") is first  # nothing has changed: nothing is read
    second = registry.load("it", folders["two"])
    assert second.digest != first.digest and registry.find("it") is second
    (tmp_path / "torn").mkdir()
    with pytest.raises(InvalidRequest):
        registry.load("it", tmp_path / "torn")
    assert registry.find("it") is second  # what could not be read changes nothing
    with pytest.raises(Conflict):
        registry.load("base", folders["one"])


# Files that are refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"brand_new": {"x": 1}}, "brand_new"),
        ({"r": 0}, "r is 0"),
        ({"r": 3}, "rank 3"),
        ({"lora_alpha": "much"}, "lora_alpha"),
        ({"peft_type": "IA3"}, "LoRA"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(tmp_path: Path, config: dict[str, Any], word: str) -> None:
    folder = tiny_adapters.write_adapter(tmp_path, 1, **config)
    with pytest.raises(InvalidRequest, match=word):
        read_adapter("x", folder, tiny_adapters.modules())


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    def refused(name: str, *, modules: dict[str, tuple[int, int]] | None = None) -> str:
        with pytest.raises(InvalidRequest) as caught:
            read_adapter("x", tmp_path / name, modules or tiny_adapters.modules())
        assert caught.value.code == "invalid_adapter"
        return str(caught.value)

    for name in ("cut", "header", "json", "nan", "fits", "pickle"):
        tiny_adapters.write_adapter(tmp_path / name, 1)
    weights = {name: tmp_path / name / "adapter_model.safetensors" for name in ("cut", "header", "nan", "pickle")}
    weights["cut"].write_bytes(weights["cut"].read_bytes()[:-100])
    assert "beyond its end" in refused("cut")
    weights["header"].write_bytes(b"\xff" * 64)
    assert "not a readable safetensors" in refused("header")
    (tmp_path / "json" / "adapter_config.json").write_text("{")
    assert "cannot be read" in refused("json")
    raw = bytearray(weights["nan"].read_bytes())
    raw[-4:] = np.float32("nan").tobytes()
    weights["nan"].write_bytes(raw)
    assert "diverged" in refused("nan")
    weights["pickle"].rename(tmp_path / "pickle" / "adapter_model.bin")
    assert "safetensors" in refused("pickle")
    other = {name: (size + 1, out) for name, (size, out) in tiny_adapters.modules().items()}
    assert "shape" in refused("fits", modules=other)
    assert "has not" in refused("fits", modules=tiny_adapters.modules(("q_proj",)))


# The worker -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("worker")
    tiny.write_folder(folder / "model")
    command = [sys.executable, "-m", "noria.engines.openvino", "--model", str(folder / "model"), "--name", "tiny"]
    worker = subprocess.Popen([*command, "--uds", str(folder / "s"), "--cache-mb", "8", "--max-adapters", "2"])
    transport = httpx.HTTPTransport(uds=str(folder / "s"))
    with httpx.Client(transport=transport, base_url="http://worker", timeout=60) as client:
        for _ in range(300):
            try:
                if client.get("/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield client
    worker.terminate()
    assert worker.wait(20) is not None


def greedy(http: httpx.Client, model: str, text: str) -> tuple[list[str], list[float]]:
    body = {"model": model, "prompt": text, "max_tokens": 12, "temperature": 0, "logprobs": 1}
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["model"] == model
    return found["choices"][0]["logprobs"]["tokens"], found["choices"][0]["logprobs"]["token_logprobs"]


def test_mixed_traffic_answers_as_each_alone(http: httpx.Client, folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        loaded = http.post("/v1/noria/adapters", json={"name": f"ft:{name}", "folder": str(folder)})
        assert loaded.status_code == 200 and loaded.json()["rank"] == SHAPES[name]["rank"], loaded.text
    listed = {entry["name"]: entry["loaded"] for entry in http.get("/v1/noria/adapters").json()["data"]}
    assert listed == {"ft:one": False, "ft:two": True, "ft:three": True}  # two fit; the first left memory
    assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["tiny", "ft:one", "ft:three", "ft:two"]
    asked = [(model, f"question {i % 4}") for i, model in enumerate(["tiny", "ft:one", "ft:two", "ft:three"] * 6)]
    alone = {pair: greedy(http, *pair) for pair in set(asked)}
    for (model, text), (tokens, logprobs) in alone.items():
        ids = [*text.encode()]
        row = reference.log_softmax(expected(model.partition(":")[2] or None, ids))[-1]
        assert row.max() == pytest.approx(logprobs[0], abs=2e-3), (model, tokens)
    firsts = {name: expected(name, [*b"question 1"])[-1] for name in (None, *SHAPES)}
    assert all(np.abs(firsts[None] - firsts[name]).max() > 1 for name in SHAPES)  # they do differ
    with ThreadPoolExecutor(12) as pool:
        mixed = list(pool.map(lambda pair: greedy(http, *pair), asked))
    for pair, (tokens, logprobs) in zip(asked, mixed, strict=True):
        assert tokens == alone[pair][0], pair
        assert logprobs == pytest.approx(alone[pair][1], abs=2e-3)


def test_the_prefix_cache_is_not_shared_between_adapters(http: httpx.Client, folders: dict[str, Path]) -> None:
    for name in ("one", "two"):
        http.post("/v1/noria/adapters", json={"name": f"ft:{name}", "folder": str(folders[name])})
    text = "the same long prompt for everyone, over and over, so that it fills more than one block of keys " * 2

    def cached(model: str) -> int:
        body = {"model": model, "prompt": text, "max_tokens": 1}
        return http.post("/v1/completions", json=body).json()["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert [cached(model) for model in ("tiny", "ft:one", "ft:two")] == [0, 0, 0]
    assert all(cached(model) > 0 for model in ("tiny", "ft:one", "ft:two"))


def test_unloading_and_what_the_routes_refuse(http: httpx.Client, folders: dict[str, Path], tmp_path: Path) -> None:
    http.post("/v1/noria/adapters", json={"name": "ft:a/b", "folder": str(folders["one"])})
    assert http.delete("/v1/noria/adapters/ft:a/b").json()["deleted"] is True
    assert http.delete("/v1/noria/adapters/ft:a/b").status_code == 404
    gone = http.post("/v1/completions", json={"model": "ft:a/b", "prompt": "x", "max_tokens": 1})
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
    assert http.post("/v1/noria/adapters", json={"name": "x", "folder": "not/absolute"}).status_code == 400
    assert http.post("/v1/noria/adapters", json={"name": "x", "folder": str(tmp_path), "rank": 1}).status_code == 400
    assert http.post("/v1/noria/adapters", json={"name": "tiny", "folder": str(folders["one"])}).status_code == 409
    nothing = http.post("/v1/noria/adapters", json={"name": "x", "folder": str(tmp_path)}).json()
    assert "adapter_config.json" in json.dumps(nothing)
