"""Reads a GGUF file of the llama architecture: sizes, weights under transformers' names, vocabulary.

Knows nothing about OpenVINO. Query and key rows are put back from llama.cpp's interleaved rotary order to the halves
order of the original checkpoint, so that LoRA adapters trained on the original fit.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, llama.cpp's `convert_hf_to_gguf.py`.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np

from noria.engines.openvino._graph import DecoderSpec
from noria.errors import ConfigurationError

__all__ = ["GgufModel"]

Array = np.ndarray[Any, Any]

_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


class GgufModel:
    """One opened file. Weights are dequantised one at a time, when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._reader = gguf.GGUFReader(str(path))
        except (OSError, ValueError, IndexError) as error:
            raise ConfigurationError(f"{path} is not a readable GGUF file: {error}") from error
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.architecture = str(self.field("general.architecture"))
        if self.architecture != "llama":
            raise ConfigurationError(
                f"{path} has the architecture {self.architecture!r}.",
                hint="Noria's own engine runs GGUF files of the llama architecture; serve others with llama-server.",
            )
        if "rope_freqs.weight" in self._tensors or self.field("llama.rope.scaling.type", "none") != "none":
            raise ConfigurationError(f"{path} scales its rotary positions, which Noria's own engine does not do.")
        if "blk.0.ffn_gate_inp.weight" in self._tensors:
            raise ConfigurationError(f"{path} is a mixture of experts, which Noria's own engine does not run.")

    @property
    def num_parameters(self) -> int:
        return sum(int(np.prod(tensor.shape)) for tensor in self._tensors.values())

    @property
    def name(self) -> str:
        return str(self.field("general.name", self.path.stem))

    @cached_property
    def tokens(self) -> list[str]:
        return self.field("tokenizer.ggml.tokens")

    @property
    def add_bos(self) -> bool:
        return bool(self.field("tokenizer.ggml.add_bos_token", False))

    @property
    def chat_template(self) -> str | None:
        return self.field("tokenizer.chat_template", "") or None

    def sha256(self) -> str:
        """The file's hash, by which what was made of it is known again."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def special_token(self, role: Literal["bos", "eos", "padding", "unknown"]) -> str | None:
        number = int(self.field(f"tokenizer.ggml.{role}_token_id", -1))
        return self.tokens[number] if 0 <= number < len(self.tokens) else None

    def end_token_ids(self) -> list[int]:
        """The tokens that end an answer: the file's own, and those of its vocabulary that always do."""
        ends = {i for i, token in enumerate(self.tokens) if token in ("<|endoftext|>", "<|im_end|>", "<|eot_id|>")}
        return sorted(ends | {int(self.field("tokenizer.ggml.eos_token_id"))})

    def field(self, key: str, default: Any = None) -> Any:
        """The value under a metadata key; without a default a missing key is an error."""
        found = self._reader.fields.get(key)
        if found is not None:
            return found.contents()
        if default is not None:
            return default
        raise ConfigurationError(f"{self.path} lacks the metadata key {key!r}.")

    def spec(self) -> DecoderSpec:
        heads = int(self.field("llama.attention.head_count"))
        hidden = int(self.field("llama.embedding_length"))
        head_size = int(self.field("llama.attention.key_length", hidden // heads))
        if int(self.field("llama.rope.dimension_count", head_size)) != head_size:
            raise ConfigurationError(f"{self.path} rotates only a part of each head, which Noria's engine does not do.")
        return DecoderSpec(
            num_layers=int(self.field("llama.block_count")),
            hidden_size=hidden,
            intermediate_size=int(self.field("llama.feed_forward_length")),
            num_heads=heads,
            num_kv_heads=int(self.field("llama.attention.head_count_kv", heads)),
            head_size=head_size,
            vocab_size=int(self._tensors["token_embd.weight"].shape[1]),
            context_length=int(self.field("llama.context_length")),
            rope_base=float(self.field("llama.rope.freq_base", 10000.0)),
            rms_epsilon=float(self.field("llama.attention.layer_norm_rms_epsilon")),
            tied_embeddings="output.weight" not in self._tensors,
        )

    def weight(self, name: str) -> Array:
        """Float32 weights under transformers' name, [out, in] for matrices."""
        tensor = self._tensors.get(self._gguf_name(name))
        if tensor is None:
            raise ConfigurationError(f"{self.path} lacks the tensor for {name!r}.")
        values = np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)
        if ".q_proj." in name:
            return _halves(values, int(self.field("llama.attention.head_count")))
        if ".k_proj." in name:
            return _halves(values, self.spec().num_kv_heads)
        return values

    @staticmethod
    def _gguf_name(name: str) -> str:
        stem, _, kind = name.rpartition(".")
        if stem in _TOP:
            return f"{_TOP[stem]}.{kind}"
        _, _, layer, part = stem.split(".", 3)
        return f"blk.{layer}.{_PARTS[part]}.{kind}"


def _halves(weight: Array, heads: int) -> Array:
    """Undoes llama.cpp's permutation of rotary rows: pairs (2i, 2i+1) go back to (i, i + D/2)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
