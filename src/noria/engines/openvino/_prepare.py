"""Makes a model folder that the worker can serve, from a GGUF file.

Dequantises each weight, compresses it again in the format that decodes fastest on a CPU, writes the graph, the tokenizer
and the manifest. The manifest is written last: a folder that has one is complete.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from noria.engines.openvino._compress import WeightFormat
from noria.engines.openvino._gguf import GgufModel
from noria.engines.openvino._graph import build_decoder
from noria.engines.openvino._manifest import MANIFEST_NAME, ModelManifest
from noria.engines.openvino._tokenizer import tokenizer_json

__all__ = ["DEFAULT_FORMAT", "prepare"]

Array = np.ndarray[Any, Any]

DEFAULT_FORMAT: WeightFormat = "int8"
# Why these: design/0001-local-engine.md.
NARROW = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}
WIDE = {"INFERENCE_PRECISION_HINT": "f16", "KV_CACHE_PRECISION": "f16"}


def prepare(
    gguf_path: Path, out_dir: Path, *, weight_format: WeightFormat = DEFAULT_FORMAT, randomise: int | None = None
) -> ModelManifest:
    """Writes the model folder and returns its manifest. Raises ConfigurationError for a file that it cannot turn.

    `randomise` replaces every matrix by noise of the same spread, from that seed: the quality guard's broken twin.
    """
    source = GgufModel(gguf_path)
    spec = source.spec()
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / MANIFEST_NAME).unlink(missing_ok=True)
    noise = None if randomise is None else np.random.default_rng(randomise)

    def fetch(name: str) -> Array:
        weight = source.weight(name)
        if noise is None or weight.ndim == 1:
            return weight
        return noise.normal(0.0, float(weight.std()), weight.shape).astype(np.float32)

    # The embedding doubles as the head: its errors reach every logit, so it is never stored in fewer than 8 bits.
    def formats(name: str) -> WeightFormat:
        return "int8" if name == "lm_head" and weight_format != "fp16" else weight_format

    model = build_decoder(spec, fetch, formats)
    ov.serialize(model, str(out_dir / "decoder.xml"))
    (out_dir / "tokenizer.json").write_text(tokenizer_json(source), "utf-8")
    manifest = _manifest(source, weight_format, randomise)
    manifest.write(out_dir)
    return manifest


def _manifest(source: GgufModel, weight_format: WeightFormat, randomise: int | None) -> ModelManifest:
    spec = source.spec()
    tokens: list[str] = source.field("tokenizer.ggml.tokens")
    eos = int(source.field("tokenizer.ggml.eos_token_id"))
    bos = int(source.field("tokenizer.ggml.bos_token_id", -1))
    ends = {eos, *(i for i, token in enumerate(tokens) if token in ("<|endoftext|>", "<|im_end|>", "<|eot_id|>"))}
    return ModelManifest(
        architecture=source.architecture,
        name=str(source.field("general.name", source.path.stem)),
        license=source.field("general.license", "") or None,
        languages=list(source.field("general.languages", []) or []),
        source_sha256=hashlib.sha256(source.path.read_bytes()).hexdigest(),
        num_parameters=source.num_parameters,
        context_length=spec.context_length,
        vocab_size=spec.vocab_size,
        weight_format=weight_format,
        runtime_properties=NARROW,
        wide_runtime_properties=WIDE,
        bos_token=tokens[bos] if bos >= 0 else None,
        eos_token=tokens[eos],
        add_bos=bool(source.field("tokenizer.ggml.add_bos_token", False)),
        end_token_ids=sorted(ends),
        chat_template=source.field("tokenizer.chat_template", "") or None,
        randomised_seed=randomise,
    )
