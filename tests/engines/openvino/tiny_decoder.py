"""A random llama small enough to build in a second, with a byte-level tokenizer: the engine's real parts, tiny."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import openvino as ov

from noria.engines.openvino._gguf import GgufModel
from noria.engines.openvino._graph import DecoderSpec, build_decoder
from noria.engines.openvino._manifest import ModelManifest
from noria.engines.openvino._runner import PagedModel, RunnerConfig
from noria.engines.openvino._source import tensor_shapes

SPEC = DecoderSpec(
    num_layers=2,
    hidden_size=64,
    intermediate_size=96,
    num_heads=4,
    num_kv_heads=2,
    head_size=32,
    vocab_size=260,
    context_length=1024,
    rope_base=10000.0,
    rms_epsilon=1e-5,
    tied_embeddings=True,
)
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
END, START, TURN = 256, 257, 258
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


class Weights:
    """Random weights by name, the same for the same seed; values that half precision holds exactly."""

    def __init__(self, spec: DecoderSpec = SPEC, seed: int = 0) -> None:
        self._spec, self._seed = spec, seed
        self._made: dict[str, Any] = {}

    def __call__(self, name: str) -> np.ndarray[Any, Any]:
        if name not in self._made:
            random = np.random.default_rng([self._seed, *name.encode()])
            shape = self._shape(name)
            scale = 1.0 if name.startswith("model.embed") else 1.5 / np.sqrt(shape[-1])
            values = random.normal(0, scale, shape) if len(shape) == 2 else random.uniform(0.5, 1.5, shape)
            self._made[name] = values.astype(np.float16).astype(np.float32)
        return self._made[name]

    def _shape(self, name: str) -> tuple[int, ...]:
        spec, part = self._spec, name.removesuffix(".weight").rsplit(".", 1)[-1]
        attention, keys = spec.num_heads * spec.head_size, spec.num_kv_heads * spec.head_size
        shapes = {
            "embed_tokens": (spec.vocab_size, spec.hidden_size),
            "lm_head": (spec.vocab_size, spec.hidden_size),
            "q_proj": (attention, spec.hidden_size),
            "k_proj": (keys, spec.hidden_size),
            "v_proj": (keys, spec.hidden_size),
            "o_proj": (spec.hidden_size, attention),
            "gate_proj": (spec.intermediate_size, spec.hidden_size),
            "up_proj": (spec.intermediate_size, spec.hidden_size),
            "down_proj": (spec.hidden_size, spec.intermediate_size),
        }
        return shapes.get(part, (spec.hidden_size,))


def paged(max_blocks: int = 64, seed: int = 0) -> PagedModel:
    model = build_decoder(SPEC, Weights(seed=seed), lambda _: "fp16")
    return PagedModel(model, RunnerConfig(1 << 24, max_blocks=max_blocks, properties=tuple(EXACT.items())))


def write_folder(folder: Path) -> Path:
    """A complete model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ov.serialize(build_decoder(SPEC, Weights(), lambda _: "fp16"), str(folder / "decoder.xml"))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()), "utf-8")
    ModelManifest(
        architecture="llama",
        name="tiny",
        source_sha256="0" * 64,
        num_parameters=1,
        context_length=SPEC.context_length,
        vocab_size=SPEC.vocab_size,
        weight_format="fp16",
        runtime_properties=EXACT,
        bos_token=None,
        eos_token="<|end|>",
        end_token_ids=[END],
        chat_template=TEMPLATE,
    ).write(folder)
    return folder


def _tokenizer() -> dict[str, Any]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    letters = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    special = {"id": 0, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    names = ["<|end|>", "<|start|>", "<|turn|>", "<|spare|>"]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    vocabulary = {letters[b]: b for b in range(256)} | {name: 256 + i for i, name in enumerate(names)}
    return {
        "version": "1.0",
        "added_tokens": [{**special, "id": 256 + i, "content": name} for i, name in enumerate(names)],
        "pre_tokenizer": level,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }


def write_gguf(path: Path) -> Path:
    """The model as llama.cpp would store it."""
    spec, weights = SPEC, Weights()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_block_count(spec.num_layers)
    writer.add_context_length(spec.context_length)
    writer.add_embedding_length(spec.hidden_size)
    writer.add_feed_forward_length(spec.intermediate_size)
    writer.add_head_count(spec.num_heads)
    writer.add_head_count_kv(spec.num_kv_heads)
    writer.add_key_length(spec.head_size)
    writer.add_rope_dimension_count(spec.head_size)
    writer.add_rope_freq_base(spec.rope_base)
    writer.add_layer_norm_rms_eps(spec.rms_epsilon)
    tokens = _tokenizer()
    vocabulary = sorted(tokens["model"]["vocab"], key=tokens["model"]["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([1] * 256 + [3] * (len(vocabulary) - 256))
    writer.add_eos_token_id(END)
    writer.add_bos_token_id(START)
    writer.add_chat_template(TEMPLATE)
    for name, shape in tensor_shapes(spec).items():
        values = weights(name)
        for part, heads in ((".q_proj.", spec.num_heads), (".k_proj.", spec.num_kv_heads)):
            if part in name:  # llama.cpp's order of rotary rows
                values = values.reshape(heads, 2, shape[0] // heads // 2, shape[1]).swapaxes(1, 2).reshape(shape)
        writer.add_tensor(GgufModel._gguf_name(name), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
