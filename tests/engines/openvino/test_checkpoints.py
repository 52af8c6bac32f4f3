"""Checkpoints: written from a GGUF file, read back, merged with adapters, prepared; whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_adapters
import tiny_decoder as tiny
from decoder_reference import forward
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.engines.openvino import chat_renderer, merge, prepare, render_chat_ids, write_checkpoint
from noria.engines.openvino._runner import PagedModel, RunnerConfig, Slice
from noria.engines.openvino._source import open_source, tensor_shapes
from noria.engines.openvino._tensors import TensorFile, write_tensors
from noria.errors import ConfigurationError

SPEC = replace(tiny.SPEC, rms_epsilon=float(np.float32(tiny.SPEC.rms_epsilon)))  # GGUF keeps 32 bits of it
IDS = [*b"the stream turns the wheel", 9, 8, 7]


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def checkpoint(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(gguf_file, tmp_path_factory.mktemp("checkpoint") / "it")


def test_the_weights_are_exactly_those_of_the_file(checkpoint: Path) -> None:
    source, weights = open_source(checkpoint), tiny.Weights()
    assert source.spec == SPEC
    for name in tensor_shapes(tiny.SPEC):
        np.testing.assert_array_equal(source.weight(name), weights(name))
    assert json.loads((checkpoint / "generation_config.json").read_text())["eos_token_id"] == [tiny.END]


def test_a_prepared_folder_keeps_its_checkpoint(gguf_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    prepare(gguf_file, folder)
    with pytest.raises(ConfigurationError, match="GGUF"):
        write_checkpoint(folder)
    (folder / "source").mkdir()
    shutil.copy(gguf_file, folder / "source")
    made = write_checkpoint(folder)
    assert made == folder / "checkpoint"
    before = (made / "model.safetensors").stat()
    (folder / "source" / gguf_file.name).unlink()  # not needed a second time
    assert write_checkpoint(folder) == made and (made / "model.safetensors").stat() == before
    messages = [{"role": "user", "content": "hello"}]
    assert render_chat_ids(folder, messages) == render_chat_ids(made, messages)


def test_killed_while_writing_leaves_nothing_that_looks_whole(gguf_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import sys, time, noria.engines.openvino._checkpoint as c\n"
        "from pathlib import Path\n"
        "real = c.write_tensors\n"
        "c.write_tensors = lambda *a: (real(*a), print('written', flush=True), time.sleep(60))\n"
        "c.write_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(gguf_file), str(out)], stdout=subprocess.PIPE)
    assert writer.stdout is not None and writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert not out.exists() and (tmp_path / ".out.partial").exists()
    begun = time.monotonic()
    assert open_source(write_checkpoint(gguf_file, out)).spec == SPEC
    assert time.monotonic() - begun < 30 and not (tmp_path / ".out.partial").exists()


def test_a_foreign_folder_is_not_overwritten(gguf_file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="not a checkpoint"):
        write_checkpoint(gguf_file, tmp_path)
    assert (tmp_path / "mine.txt").exists()


def test_a_merged_model_is_base_and_adapter_in_one(checkpoint: Path, tmp_path: Path) -> None:
    adapter = tiny_adapters.write_adapter(tmp_path / "adapter", 7, rank=4, alpha=2, use_rslora=True)
    out = merge(checkpoint, adapter, tmp_path / "merged")
    prepare(out, tmp_path / "prepared")
    model = PagedModel(
        tmp_path / "prepared" / "decoder.xml", RunnerConfig(1 << 24, max_blocks=8, properties=tuple(tiny.EXACT.items()))
    )
    logits = model.run([Slice(IDS, 0, [0, 1], 0)])
    expected = forward(tiny.SPEC, tiny_adapters.merged(7, rank=4, alpha=4), IDS)  # 2 / √4 is 4 / 4
    plain = forward(tiny.SPEC, tiny.Weights(), IDS)
    assert np.abs(logits - expected).mean() < 0.05 * np.abs(plain - expected).mean()  # int8 weights
    exact, weights = open_source(out), tiny_adapters.merged(7, rank=4, alpha=4)
    for name in tensor_shapes(tiny.SPEC):
        np.testing.assert_allclose(exact.weight(name), weights(name), atol=1e-6)


def test_a_fully_tuned_checkpoint_is_served_and_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    """As transformers saves it: without a note of ours, its template in a file of its own."""
    kept = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, kept)
    (kept / "noria-checkpoint.json").unlink()
    facts = json.loads((kept / "tokenizer_config.json").read_text())
    (kept / "chat_template.jinja").write_text(facts.pop("chat_template"))
    facts["eos_token"] = {"content": facts["eos_token"], "__type": "AddedToken"}
    (kept / "tokenizer_config.json").write_text(json.dumps(facts))
    prepare(kept, tmp_path)
    assert write_checkpoint(tmp_path) == kept
    messages = [{"role": "user", "content": "hello"}]
    assert render_chat_ids(tmp_path, messages) == render_chat_ids(checkpoint, messages)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "mistral"}, "mistral"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope scaling"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"num_hidden_layers": 1}, "does not have"),
        ({"hidden_size": "many"}, "damaged"),
    ],
)
def test_what_cannot_be_run_is_refused(checkpoint: Path, tmp_path: Path, change: dict[str, object], word: str) -> None:
    folder = tmp_path / "it"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ConfigurationError, match=word):
        open_source(folder)


def test_an_answer_ends_as_the_template_ends_it(checkpoint: Path) -> None:
    renderer = chat_renderer(checkpoint)
    question, answer = {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "\n2"}
    prompt = renderer.ids([question])
    assert [*prompt, *renderer.answer_ids(answer)] == renderer.ids([question, answer], add_generation_prompt=False)
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    written = renderer.answer_text({"role": "assistant", "tool_calls": [call]})
    assert written == '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=400))
def test_no_bytes_break_the_reader(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError):
        TensorFile(path)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple))
def test_tensors_come_back_as_they_were(seed: int, shape: tuple[int, ...], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "round.safetensors"
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    write_tensors(path, {"a": shape, "b": shape}, lambda name: values if name == "a" else -values)
    file = TensorFile(path)
    np.testing.assert_array_equal(file.read("a"), values)
    np.testing.assert_array_equal(file.read("b"), -values)
