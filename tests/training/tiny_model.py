"""The tiny decoder of the engine's tests as a model that can be trained: a GGUF file, a prepared folder, rows."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "engines" / "openvino"))
import tiny_decoder as tiny

from noria.engines.openvino import prepare, write_checkpoint
from noria.engines.openvino._gguf import GgufModel
from noria.engines.openvino._source import tensor_shapes

CARD = {
    "id": "tiny",
    "task": "chat",
    "source": "engine",
    "engine": "openvino",
    "folder": "models/tiny",
    "context_tokens": 1024,
    "memory_mb": 256,
}


def write_gguf(path: Path) -> Path:
    """The tiny decoder as llama.cpp would store it."""
    spec, weights = tiny.SPEC, tiny.Weights()
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
    tokens = tiny._tokenizer()
    vocabulary = sorted(tokens["model"]["vocab"], key=tokens["model"]["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([1] * 256 + [3] * (len(vocabulary) - 256))
    writer.add_eos_token_id(tiny.END)
    writer.add_bos_token_id(tiny.START)
    writer.add_chat_template(tiny.TEMPLATE)
    for name, shape in tensor_shapes(spec).items():
        values = weights(name)
        for part, heads in ((".q_proj.", spec.num_heads), (".k_proj.", spec.num_kv_heads)):
            if part in name:
                values = values.reshape(heads, 2, shape[0] // heads // 2, shape[1]).swapaxes(1, 2).reshape(shape)
        writer.add_tensor(GgufModel._gguf_name(name), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_model(folder: Path) -> Path:
    """A prepared model with its checkpoint beside it."""
    (folder / "source").mkdir(parents=True)
    prepare(write_gguf(folder / "source" / "tiny.gguf"), folder)
    write_checkpoint(folder)
    return folder


def copy_model(made: Path, home: Path) -> None:
    shutil.copytree(made, home / "models" / "tiny")


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def preference(question: str, better: str, worse: str) -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "user", "content": question}]},
        "preferred_output": [{"role": "assistant", "content": better}],
        "non_preferred_output": [{"role": "assistant", "content": worse}],
    }


def jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def chats(number: int) -> bytes:
    return jsonl(chat(f"What is {n}?", "even" if n % 2 == 0 else "odd") for n in range(number))
