"""A llama-architecture decoder written as an OpenVINO graph, operation by operation.

Knows nothing about files, tokens or scheduling. The graph is *stateful* (one read/assign pair of keys and values a
layer, `beam_idx` to reorder them), because that is what OpenVINO's own `paged_attention_transformation` recognises; the
paged form cannot be written to disk (its operation has no public opset), so the runner transforms after reading.

Shapes: B sequences, S new positions, H hidden, N query heads, K key/value heads, D head size, V vocabulary,
R rows whose logits are wanted. After the transformation B·S is one flat axis of all new positions of all sequences.

Inputs   input_ids [B, S] i64 · position_ids [B, S] i64 · beam_idx [B] i32 · logits_rows [R] i64
Output   logits [R, V] f32

Each projection is a MatMul whose friendly name is PEFT's module name (`model.layers.3.self_attn.q_proj`), the place where
a LoRA adapter binds.

Sources: Touvron et al. 2023 (arXiv:2302.13971), Su et al. 2021 (RoFormer), transformers' `modeling_llama.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from openvino import op as ov_op
from openvino import opset13 as ops
from openvino.op.util import Variable, VariableInfo

from noria.engines.openvino._compress import WeightFormat, compressed

__all__ = ["DecoderSpec", "build_decoder"]

Array = np.ndarray[Any, Any]
Fetch = Callable[[str], Array]


@dataclass(frozen=True)
class DecoderSpec:
    """Everything about a llama decoder that is not a weight."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    vocab_size: int
    context_length: int
    rope_base: float
    rms_epsilon: float
    tied_embeddings: bool


@dataclass(frozen=True)
class _Shared:
    """Nodes that every layer reads."""

    cos: Any  # [B, 1, S, D]
    sin: Any  # [B, 1, S, D]
    batch: Any  # [1], the number of sequences
    beam_idx: Any


def _i64(values: list[int]) -> Any:
    return ops.constant(np.array(values, np.int64))


def _scalar(value: float) -> Any:
    return ops.constant(np.array([[[value]]], np.float32))


class _Builder:
    def __init__(self, spec: DecoderSpec, fetch: Fetch, formats: Callable[[str], WeightFormat]) -> None:
        self.spec = spec
        self.fetch = fetch
        self.formats = formats
        self.sinks: list[Any] = []

    def project(self, x: Any, name: str) -> Any:
        """x · Wᵀ, named so that an adapter can find it."""
        node = ops.matmul(x, compressed(self.fetch(f"{name}.weight"), self.formats(name)), False, True)
        node.set_friendly_name(name)
        return node

    def rms_norm(self, x: Any, name: str) -> Any:
        """The exact shape of operations that the CPU plugin fuses into one RMS kernel."""
        mean = ops.reduce_mean(ops.power(x, _scalar(2.0)), _i64([-1]), keep_dims=True)
        inverse = ops.divide(_scalar(1.0), ops.sqrt(ops.add(mean, _scalar(self.spec.rms_epsilon))))
        gain = ops.constant(self.fetch(f"{name}.weight").astype(np.float32).reshape(1, 1, -1))
        return ops.multiply(ops.multiply(inverse, x), gain)

    def heads(self, x: Any, count: int) -> Any:
        """[B, S, count·D] to [B, count, S, D]."""
        split = ops.reshape(x, _i64([0, 0, count, self.spec.head_size]), True)
        return ops.transpose(split, _i64([0, 2, 1, 3]))

    def rotate(self, x: Any, shared: _Shared) -> Any:
        """Rotary positions, halves convention (GPT-NeoX): x·cos + (−x₂, x₁)·sin."""
        half = self.spec.head_size // 2
        last = _i64([3])
        low = ops.slice(x, _i64([0]), _i64([half]), _i64([1]), last)
        high = ops.slice(x, _i64([half]), _i64([np.iinfo(np.int64).max]), _i64([1]), last)
        minus_one = ops.constant(np.full((1, 1, 1, 1), -1.0, np.float32))
        turned = ops.concat([ops.multiply(high, minus_one), low], -1)
        return ops.add(ops.multiply(x, shared.cos), ops.multiply(turned, shared.sin))

    def cached(self, x: Any, name: str, shared: _Shared) -> Any:
        """Appends x [B, K, S, D] to the state `name` and returns all of it, repeated to N heads."""
        spec = self.spec
        info = VariableInfo()
        info.data_shape = ov.PartialShape([-1, spec.num_kv_heads, -1, spec.head_size])
        info.data_type = ov.Type.f32
        info.variable_id = name
        variable = Variable(info)
        empty_shape = ops.concat([shared.batch, _i64([spec.num_kv_heads]), _i64([0]), _i64([spec.head_size])], 0)
        empty = ops.broadcast(ops.constant(np.float32(0)), empty_shape)
        past = ops.gather(ops.read_value(empty, variable), shared.beam_idx, ops.constant(np.int64(0)))
        everything = ops.concat([past, x], 2)
        self.sinks.append(ops.assign(everything, variable))
        groups = spec.num_heads // spec.num_kv_heads
        if groups == 1:
            return everything
        target = ops.concat([shared.batch, _i64([spec.num_kv_heads, groups, 0, spec.head_size])], 0)
        wide = ops.broadcast(ops.unsqueeze(everything, ops.constant(np.int64(2))), target, broadcast_spec="BIDIRECTIONAL")
        return ops.reshape(wide, _i64([0, spec.num_heads, -1, spec.head_size]), True)

    def attention(self, x: Any, layer: str, shared: _Shared) -> Any:
        spec = self.spec
        query = self.rotate(self.heads(self.project(x, f"{layer}.self_attn.q_proj"), spec.num_heads), shared)
        key = self.rotate(self.heads(self.project(x, f"{layer}.self_attn.k_proj"), spec.num_kv_heads), shared)
        value = self.heads(self.project(x, f"{layer}.self_attn.v_proj"), spec.num_kv_heads)
        keys = self.cached(key, f"{layer}.key", shared)
        values = self.cached(value, f"{layer}.value", shared)
        # The transformation matches only attention with a mask input; paged attention is causal by itself and drops it.
        no_mask = ops.constant(np.zeros((1, 1, 1, 1), np.float32))
        attended = ops.scaled_dot_product_attention(query, keys, values, no_mask, causal=False)
        merged = ops.reshape(ops.transpose(attended, _i64([0, 2, 1, 3])), _i64([0, 0, spec.num_heads * spec.head_size]), True)
        return self.project(merged, f"{layer}.self_attn.o_proj")

    def mlp(self, x: Any, layer: str) -> Any:
        gate = ops.swish(self.project(x, f"{layer}.mlp.gate_proj"))
        return self.project(ops.multiply(gate, self.project(x, f"{layer}.mlp.up_proj")), f"{layer}.mlp.down_proj")

    def shared_nodes(self, input_ids: Any, position_ids: Any, beam_idx: Any) -> _Shared:
        spec = self.spec
        batch = ops.gather(ops.shape_of(input_ids), _i64([0]), ops.constant(np.int64(0)))
        exponents = np.arange(0, spec.head_size, 2, dtype=np.float64) / spec.head_size
        frequencies = (spec.rope_base**-exponents).astype(np.float32).reshape(1, -1, 1)
        spread = ops.broadcast(ops.constant(frequencies), ops.concat([batch, _i64([1, 1])], 0), broadcast_spec="BIDIRECTIONAL")
        positions = ops.convert(ops.unsqueeze(position_ids, ops.constant(np.int64(1))), "f32")
        angles = ops.transpose(ops.matmul(spread, positions, False, False), _i64([0, 2, 1]))  # [B, S, D/2]
        both = ops.concat([angles, angles], -1)
        one = ops.constant(np.int64(1))
        return _Shared(ops.unsqueeze(ops.cos(both), one), ops.unsqueeze(ops.sin(both), one), batch, beam_idx)

    def build(self) -> ov.Model:
        spec = self.spec
        input_ids = _parameter([-1, -1], np.int64, "input_ids")
        position_ids = _parameter([-1, -1], np.int64, "position_ids")
        beam_idx = _parameter([-1], np.int32, "beam_idx")
        logits_rows = _parameter([-1], np.int64, "logits_rows")
        embedding = compressed(self.fetch("model.embed_tokens.weight"), self.formats("lm_head"))
        shared = self.shared_nodes(input_ids, position_ids, beam_idx)
        x = ops.gather(embedding, ops.convert(input_ids, "i32"), ops.constant(np.int32(0)))
        for i in range(spec.num_layers):
            layer = f"model.layers.{i}"
            x = ops.add(x, self.attention(self.rms_norm(x, f"{layer}.input_layernorm"), layer, shared))
            x = ops.add(x, self.mlp(self.rms_norm(x, f"{layer}.post_attention_layernorm"), layer))
        flat = ops.reshape(x, _i64([-1, spec.hidden_size]), False)
        # Rows are chosen before the last norm and the head, so that a prefill does not pay for logits nobody reads.
        chosen = ops.unsqueeze(ops.gather(flat, logits_rows, ops.constant(np.int64(0))), ops.constant(np.int64(0)))
        last = self.rms_norm(chosen, "model.norm")  # [1, R, H]
        if spec.tied_embeddings:
            head = ops.matmul(last, embedding, False, True)
            head.set_friendly_name("lm_head")
        else:
            head = self.project(last, "lm_head")
        logits = ops.reshape(head, _i64([-1, spec.vocab_size]), False)
        logits.output(0).get_tensor().set_names({"logits"})
        results = [ops.result(logits)]
        # The library's own stubs declare two unrelated Model classes.
        return ov.Model(results, self.sinks, [input_ids, position_ids, beam_idx, logits_rows], "noria-llama")  # pyright: ignore[reportGeneralTypeIssues]


def _parameter(shape: list[int], dtype: Any, name: str) -> ov_op.Parameter:
    node = ops.parameter(shape, dtype, name=name)
    node.output(0).get_tensor().set_names({name})
    return node


def build_decoder(spec: DecoderSpec, fetch: Fetch, formats: Callable[[str], WeightFormat]) -> ov.Model:
    """Builds the graph; `fetch` gives float32 weights by transformers' names, `formats` how each is stored."""
    return _Builder(spec, fetch, formats).build()
