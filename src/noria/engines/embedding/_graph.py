"""Builds multilingual-e5-small as one OpenVINO graph: tokens in, one unit vector a text out.

A BERT encoder (post-norm, GELU by erf), mean pooling over the real tokens and L2 normalisation inside the graph. The
graph is written with opset operations, so that neither torch nor transformers is needed. The embedding table stays in
4 bits: rows are gathered packed and unpacked after, which keeps 350 MB of f32 out of memory.

Shapes: B texts, S tokens, H heads, D width of a head, E = H · D the hidden width.
Source: Devlin et al. 2018 (BERT), Wang et al. 2024 (arXiv 2402.05672, multilingual E5).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops

from noria.engines.embedding._e5_format import BLOCK, E5File, E5Shape, FloatArray

__all__ = ["build_e5"]

Node = Any  # openvino's Node; its Python stubs do not cover the operations' results


def build_e5(file: E5File) -> ov.Model:
    """The graph of `input_ids[B, S] i32, attention_mask[B, S] i32 → embedding[B, E] f32`."""
    ids_BS = ops.parameter([-1, -1], np.int32, name="input_ids")
    mask_BS = ops.parameter([-1, -1], np.int32, name="attention_mask")
    mask_f_BS = ops.convert(mask_BS, "f32")

    hidden_BSE = _embed(file, ids_BS)
    # 0 where a token may be looked at, a very negative number where it is padding
    blocked_BS = ops.multiply(ops.subtract(mask_f_BS, _f32(1.0)), _f32(1e9))
    bias_B11S = ops.unsqueeze(blocked_BS, _i64([1, 2]))
    for layer in range(file.shape.layers):
        hidden_BSE = _layer(file, layer, hidden_BSE, bias_B11S)

    weights_BS1 = ops.unsqueeze(mask_f_BS, _i64([2]))
    sum_BE = ops.reduce_sum(ops.multiply(hidden_BSE, weights_BS1), _i64([1]), keep_dims=False)
    # The mean's divisor would cancel in the normalisation, so the sum is normalised as it is.
    unit_BE = ops.normalize_l2(sum_BE, _i64([1]), eps=1e-12, eps_mode="add")
    unit_BE.set_friendly_name("embedding")
    result = ops.result(unit_BE)
    result.get_output_tensor(0).set_names({"embedding"})
    model_type: Any = ov.Model  # its stub's constructor does not accept its own subclass
    return model_type([result], [ids_BS, mask_BS], "multilingual-e5-small")


def _embed(file: E5File, ids_BS: Node) -> Node:
    shape = file.shape
    table = file.table("emb.word", shape.vocabulary, shape.hidden)
    blocks = shape.hidden // BLOCK
    packed = ops.gather(ops.constant(table.packed), ids_BS, _i64(0))
    packed_BSKN = ops.convert(_reshape(packed, [0, 0, blocks, BLOCK // 2]), "f32")
    scale_BSK = ops.convert(ops.gather(ops.constant(table.scales), ids_BS, _i64(0)), "f32")
    high = ops.floor(ops.multiply(packed_BSKN, _f32(1 / 16)))
    low = ops.subtract(packed_BSKN, ops.multiply(high, _f32(16.0)))
    nibbles = ops.subtract(ops.concat([low, high], 3), _f32(8.0))
    words_BSE = _reshape(ops.multiply(nibbles, ops.unsqueeze(scale_BSK, _i64([3]))), [0, 0, shape.hidden])

    positions = file.vector("emb.pos").reshape(shape.positions, shape.hidden)
    positions = positions + file.vector("emb.type").reshape(-1, shape.hidden)[0]  # every token is of type 0
    length = ops.gather(ops.shape_of(ids_BS, "i64"), _i64(1), _i64(0))
    indices_S = ops.range(_i64(0), length, _i64(1), "i64")
    positions_SE = ops.gather(ops.constant(positions), indices_S, _i64(0))
    return _layer_norm(file, "emb.ln", ops.add(words_BSE, positions_SE))


def _layer(file: E5File, layer: int, hidden_BSE: Node, bias_B11S: Node) -> Node:
    shape = file.shape
    name = f"l{layer}"
    attended = _attention(file, name, hidden_BSE, bias_B11S)
    hidden_BSE = _layer_norm(file, f"{name}.aln", ops.add(attended, hidden_BSE))
    wide = _linear(hidden_BSE, file.matrix(f"{name}.fi.w", shape.feed_forward, shape.hidden), _bias(file, name, "fi"))
    narrow = _linear(
        ops.gelu(wide, "erf"), file.matrix(f"{name}.fo.w", shape.hidden, shape.feed_forward), _bias(file, name, "fo")
    )
    return _layer_norm(file, f"{name}.oln", ops.add(narrow, hidden_BSE))


def _attention(file: E5File, name: str, hidden_BSE: Node, bias_B11S: Node) -> Node:
    shape = file.shape
    width = shape.hidden

    # One product for q, k and v: a third of the calls, which is what a short query's latency is made of.
    weight = np.concatenate([file.matrix(f"{name}.{part}.w", width, width) for part in "qkv"])
    bias = np.concatenate([_bias(file, name, part) for part in "qkv"])
    thirds = ops.split(_linear(hidden_BSE, weight, bias), _i64(2), 3)

    def heads_BHSD(part: int) -> Node:
        return ops.transpose(_split_heads(thirds.output(part), shape), _i64([0, 2, 1, 3]))

    mixed_BHSD = ops.scaled_dot_product_attention(heads_BHSD(0), heads_BHSD(1), heads_BHSD(2), bias_B11S, causal=False)
    mixed_BSE = _reshape(ops.transpose(mixed_BHSD, _i64([0, 2, 1, 3])), [0, 0, width])
    return _linear(mixed_BSE, file.matrix(f"{name}.ao.w", width, width), _bias(file, name, "ao"))


def _split_heads(projected_BSE: Node, shape: E5Shape) -> Node:
    return _reshape(projected_BSE, [0, 0, shape.heads, shape.hidden // shape.heads])


def _bias(file: E5File, name: str, part: str) -> FloatArray:
    return file.vector(f"{name}.{part}b", f"{name}.{part}.b")


def _linear(x: Node, weight_OI: FloatArray, bias_O: FloatArray) -> Node:
    return ops.add(ops.matmul(x, ops.constant(weight_OI), False, True), ops.constant(bias_O))


def _layer_norm(file: E5File, name: str, x: Node) -> Node:
    normed = ops.mvn(x, _i64([-1]), True, file.shape.layer_norm_eps, "inside_sqrt")
    return ops.add(ops.multiply(normed, ops.constant(file.vector(f"{name}.w"))), ops.constant(file.vector(f"{name}.b")))


def _reshape(x: Node, shape: list[int]) -> Node:
    """0 keeps a dimension as it is."""
    return ops.reshape(x, _i64(shape), True)


def _i64(value: int | list[int]) -> Node:
    return ops.constant(np.array(value, np.int64))


def _f32(value: float) -> Node:
    return ops.constant(np.array(value, np.float32))
