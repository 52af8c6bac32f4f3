"""The OpenVINO graph against its reference, the file format, and the cutting of batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_e5 import Reference
from tokenizers import Tokenizer

from noria.engines.embedding import read_card
from noria.engines.embedding._e5_format import E5File
from noria.engines.embedding._encoder import Encoder, cut_batches, padded_length
from noria.errors import ConfigurationError

TEXTS = [
    "query: how do I install it?",
    "passage: 诺里亚是一个自托管平台,提供检索与追踪。",
    "passage: " + "Water lifts water where the stream turns the wheel. " * 20,
    "query: 天气",
    "passage: def f(x):\n  return x + 1",
]


def rows(count: int, longest: int, vocabulary: int) -> list[list[int]]:
    rng = np.random.default_rng(3)
    return [[0, *map(int, rng.integers(4, vocabulary, int(n))), 2] for n in rng.integers(1, longest - 2, count)]


def test_the_graph_is_the_reference_in_f32(tiny_model: Path) -> None:
    file = E5File(tiny_model.parent / "weights.bin")
    compiled = ov.Core().compile_model(tiny_model / "embedding.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    reference = Reference(file)
    batch = rows(6, 60, file.shape.vocabulary)
    ids = np.ones((6, 60), np.int32)
    mask = np.zeros((6, 60), np.int32)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    vectors = compiled({"input_ids": ids, "attention_mask": mask})[0]
    expected = np.array([reference.embed(tokens) for tokens in batch])
    # The weights are stored as f16, which is all the difference there is.
    np.testing.assert_allclose(vectors, expected, atol=2e-3)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_neither_padding_nor_neighbours_matter(tiny_model: Path) -> None:
    encoder = Encoder(tiny_model, read_card(tiny_model), num_threads=1)
    batch = rows(9, 60, 300)
    together = encoder.encode(batch)
    alone = np.concatenate([encoder.encode([tokens]) for tokens in batch])
    assert (together * alone).sum(1).min() > 0.999


@pytest.mark.real_model
def test_the_default_embedder_keeps_its_reference_direction(real_model: Path) -> None:
    file = E5File(real_model / "source" / "e5-small-q4.bin")
    reference = Reference(file)
    tokenizer = Tokenizer.from_file(str(real_model / "tokenizer.json"))
    batch = [tokenizer.encode(text).ids for text in TEXTS]
    vectors = Encoder(real_model, read_card(real_model)).encode(batch)
    expected = np.array([reference.embed(tokens) for tokens in batch])
    assert (vectors * expected).sum(1).min() > 0.999


def test_a_file_that_is_something_else_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    whole = (tiny_model.parent / "weights.bin").read_bytes()
    for number, body in enumerate((b"not a model" * 30, whole[:200], whole[: len(whole) // 2], whole[:70])):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(body)
        with pytest.raises(ConfigurationError):
            E5File(path)
    with pytest.raises(ConfigurationError, match="does not describe"):
        read_card(tmp_path)


@given(st.lists(st.integers(1, 512), max_size=200), st.integers(64, 4096))
def test_batches_hold_every_input_once_and_stay_in_budget(lengths: list[int], budget: int) -> None:
    batches = list(cut_batches(lengths, budget))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or padded_length(max(lengths[index] for index in batch)) * len(batch) <= budget
