"""Makes a model folder that the worker can serve, from a GGUF file.

Dequantises each weight, compresses it again in the format that decodes fastest on a CPU, writes the graph, the tokenizer
and the manifest. The manifest is written last: a folder that has one is complete.
"""

from __future__ import annotations

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
    return ModelManifest(
        architecture=source.architecture,
        name=source.name,
        license=source.field("general.license", "") or None,
        languages=list(source.field("general.languages", []) or []),
        source_sha256=source.sha256(),
        num_parameters=source.num_parameters,
        context_length=spec.context_length,
        vocab_size=spec.vocab_size,
        weight_format=weight_format,
        runtime_properties=NARROW,
        wide_runtime_properties=WIDE,
        bos_token=source.special_token("bos"),
        eos_token=source.special_token("eos"),
        add_bos=source.add_bos,
        end_token_ids=source.end_token_ids(),
        chat_template=source.chat_template,
        randomised_seed=randomise,
    )
