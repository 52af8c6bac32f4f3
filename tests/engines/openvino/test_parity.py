"""Training and serving agree on the real default model: the same token ids, and log-probabilities within a stated tolerance.

Torch in float32 on the checkpoint is what training computes; the worker serves int8 weights. A drift here would silently ruin
every gain, so the tolerances are close to what is measured (design/0005-adapters.md).
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from noria.engines import WeightsStore
from noria.engines.openvino import chat_renderer, render_chat_ids, write_checkpoint
from noria.settings import load

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(600)]

MODEL = "smollm2-135m-instruct"
NAMES = ("ft:one", "ft:two", "ft:three")
MEAN_NATS, WORST_NATS, BIAS_NATS = 0.12, 0.8, 0.04
"""How far a token's log-probability may lie from float32's: on average, at its worst token, and all in one direction."""
SPREAD = (0.12, 0.04, 0.3)  # of each adapter's B: an effect of some nats, as training has
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
CHATS: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = [
    ([{"role": "user", "content": "Why do tides rise twice a day?"}], []),
    ([{"role": "system", "content": ""}, {"role": "user", "content": "水车为什么会转？ 🙂\n\n\ttabs  and  spaces "}], []),
    ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "\n\nb"}, {"role": "user", "content": "c"}], []),
    ([{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "<|im_end|> is a token"}], []),
    ([{"role": "user", "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]}], [TOOL]),
    (
        [
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
        ],
        [TOOL],
    ),
]
TEXTS = [
    "A noria is a water wheel that the stream itself turns. It lifts the stream's water into a channel above the fields, "
    "and no hand has to help it while the river runs. Some of those at Hama have turned for centuries.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))  # five\n",
]


@pytest.fixture(scope="module")
def prepared() -> Path:
    folder = WeightsStore(load().settings.models_dir).find(MODEL)
    if folder is None:
        pytest.skip(f"{MODEL} is not on this machine: noria models pull {MODEL}")
    return folder


@pytest.fixture(scope="module")
def checkpoint(prepared: Path) -> Path:
    return write_checkpoint(prepared)


@pytest.fixture(scope="module")
def torch_models(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Path]]:
    """The base in float32 with three adapters of different shapes, and where PEFT saved them."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("adapters")
    shapes: list[dict[str, Any]] = [
        {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        {"r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
        {"r": 4, "lora_alpha": 16, "target_modules": ["down_proj", "o_proj"]},
    ]
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    for seed, (name, shape) in enumerate(zip(NAMES, shapes, strict=True)):
        torch.manual_seed(seed)
        config = peft.LoraConfig(task_type="CAUSAL_LM", **shape)
        if seed == 0:
            model = peft.get_peft_model(model, config, adapter_name=name.partition(":")[2])
        else:
            model.add_adapter(name.partition(":")[2], config)
        for parameter, values in model.named_parameters():
            if f"lora_B.{name.partition(':')[2]}." in parameter:
                values.data.normal_(0, SPREAD[seed])
    model.save_pretrained(home)
    return model, {name: home / name.partition(":")[2] for name in NAMES}


@pytest.fixture(scope="module")
def http(
    prepared: Path, torch_models: tuple[Any, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    socket = tmp_path_factory.mktemp("worker") / "s"
    command = [sys.executable, "-m", "noria.engines.openvino", "--model", str(prepared), "--name", MODEL, "--uds", str(socket)]
    worker = subprocess.Popen(command, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://worker", timeout=300) as client:
        for _ in range(1200):
            try:
                if client.get("/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        for name, folder in torch_models[1].items():
            loaded = client.post("/v1/noria/adapters", json={"name": name, "folder": str(folder)})
            assert loaded.status_code == 200, loaded.text
        yield client
    worker.terminate()
    worker.wait(30)


@pytest.mark.parametrize("number", range(len(CHATS)))
def test_chats_have_the_same_tokens_in_training_and_serving(
    http: httpx.Client, prepared: Path, checkpoint: Path, number: int
) -> None:
    messages, tools = CHATS[number]
    served = http.post("/v1/noria/tokenize", json={"messages": messages, "tools": tools or None}).json()["tokens"]
    assert render_chat_ids(prepared, messages, tools) == served
    assert render_chat_ids(checkpoint, messages, tools) == served


def test_transformers_own_rendering_is_the_same(checkpoint: Path) -> None:
    """For plain chats: the tokenizer that a trainer loads from the checkpoint agrees too."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    for messages, tools in CHATS[:3]:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert not tools and ids == render_chat_ids(checkpoint, messages)


def served_logprobs(http: httpx.Client, model: str, ids: list[int]) -> np.ndarray[Any, Any]:
    body = {"model": model, "prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 0}
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["choices"][0]["logprobs"]["token_logprobs"][1:])


def trained_logprobs(model: Any, name: str | None, ids: list[int]) -> np.ndarray[Any, Any]:
    import contextlib

    import torch

    if name is not None:
        model.set_adapter(name.partition(":")[2])
    with torch.no_grad(), model.disable_adapter() if name is None else contextlib.nullcontext():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    return torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()


@pytest.mark.parametrize("name", [None, *NAMES])
def test_log_probabilities_agree(
    http: httpx.Client, torch_models: tuple[Any, dict[str, Path]], checkpoint: Path, name: str | None
) -> None:
    encode = chat_renderer(checkpoint).tokenizer.encode
    gaps: list[np.ndarray[Any, Any]] = []
    for text in TEXTS:
        ids = encode(text)
        served = served_logprobs(http, name or MODEL, ids)
        trained = trained_logprobs(torch_models[0], name, ids)
        gaps.append(served - trained)
        print(f"[{np.abs(gaps[-1]).mean():.3f} over {len(ids)}]", end=" ")
        if name is not None:  # the adapter matters more than the tolerance
            effect = np.abs(trained - trained_logprobs(torch_models[0], None, ids)).mean()
            print(f"{name}: changes {effect:.2f} nats a token", end="; ")
            assert effect > 1.5 * MEAN_NATS
    together = np.concatenate(gaps)
    mean, worst, bias = np.abs(together).mean(), np.abs(together).max(), together.mean()
    print(f"{name or 'base'}: mean {mean:.4f}, worst {worst:.3f}, bias {bias:+.4f} nats over {len(together)} tokens")
    assert mean < MEAN_NATS and worst < WORST_NATS and abs(bias) < BIAS_NATS


def test_mixed_traffic_is_each_model_alone(http: httpx.Client) -> None:
    """Greedy answers of base and three adapters, 16 at a time: the same tokens up to a near-tie, then no claim is made."""
    asked = [
        (model, f"Tell me in one sentence about {topic}.")
        for model, topic in itertools.product((MODEL, *NAMES), ("rivers", "glass", "bees", "salt"))
    ]

    def ask(pair: tuple[str, str]) -> list[dict[str, Any]]:
        body = {"model": pair[0], "messages": [{"role": "user", "content": pair[1]}], "max_tokens": 24, "temperature": 0}
        answer = http.post("/v1/chat/completions", json={**body, "logprobs": True, "top_logprobs": 2})
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["logprobs"]["content"]

    alone = [ask(pair) for pair in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        mixed = list(pool.map(ask, asked))
    same = 0
    for pair, one, other in zip(asked, alone, mixed, strict=True):
        for left, right in zip(one, other, strict=False):
            if left["token"] != right["token"]:
                first, second = (entry["logprob"] for entry in left["top_logprobs"])
                assert first - second < 0.25, (pair, left, right)  # only a near-tie may fall the other way
                break
            assert abs(left["logprob"] - right["logprob"]) < 0.25, (pair, left, right)
        else:
            same += 1
    print(f"{same} of {len(asked)} answers are the same to the last token")
    assert same >= len(asked) // 2
