"""Makes a model folder that the worker can serve, from a GGUF file or from a checkpoint as transformers writes it.

Dequantises each weight, compresses it again in the format that decodes fastest on a CPU, writes the graph, the tokenizer
and the manifest. The manifest is written last: a folder that has one is complete.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from noria.engines.openvino._checkpoint import CHECKPOINT
from noria.engines.openvino._compress import WeightFormat
from noria.engines.openvino._graph import build_decoder
from noria.engines.openvino._manifest import MANIFEST_NAME, ModelManifest
from noria.engines.openvino._source import NOTE_NAME, Source, open_source, read_note

__all__ = ["DEFAULT_FORMAT", "prepare"]

Array = np.ndarray[Any, Any]

DEFAULT_FORMAT: WeightFormat = "int8"
# Why these: design/0001-local-engine.md.
NARROW = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}
WIDE = {"INFERENCE_PRECISION_HINT": "f16", "KV_CACHE_PRECISION": "f16"}


def prepare(
    source_path: Path, out_dir: Path, *, weight_format: WeightFormat = DEFAULT_FORMAT, randomise: int | None = None
) -> ModelManifest:
    """Writes the model folder and returns its manifest. Raises ConfigurationError for a file that it cannot turn.

    `randomise` replaces every matrix by noise of the same spread, from that seed: the quality guard's broken twin.
    """
    source = open_source(source_path)
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

    model = build_decoder(source.spec, fetch, formats)
    ov.serialize(model, str(out_dir / "decoder.xml"))
    (out_dir / "tokenizer.json").write_text(source.tokenizer_json, "utf-8")
    if source_path == out_dir / CHECKPOINT and read_note(source_path) is None:
        # It stays beside what was made of it; with its note it is found again when training goes on from here.
        (source_path / NOTE_NAME).write_text(source.note.model_dump_json(indent=1), "utf-8")
    manifest = _manifest(source, weight_format, randomise)
    manifest.write(out_dir)
    return manifest


def _manifest(source: Source, weight_format: WeightFormat, randomise: int | None) -> ModelManifest:
    spec, note = source.spec, source.note
    return ModelManifest(
        architecture="llama",
        name=note.name,
        license=note.license,
        languages=note.languages,
        source_sha256=note.source_sha256,
        num_parameters=source.num_parameters,
        context_length=spec.context_length,
        vocab_size=spec.vocab_size,
        weight_format=weight_format,
        runtime_properties=NARROW,
        wide_runtime_properties=WIDE,
        bos_token=note.bos_token,
        eos_token=note.eos_token,
        add_bos=note.add_bos,
        end_token_ids=note.end_token_ids,
        chat_template=note.chat_template,
        randomised_seed=randomise,
    )
