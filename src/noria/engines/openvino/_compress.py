"""How a weight matrix lies in the graph: formats that the CPU plugin decodes inside its matrix kernels.

`compressed` returns a node of float32 [out, in] made of the very operations (Constant → Convert → Subtract → Multiply →
Reshape) that OpenVINO recognises as a compressed weight; anything else would be unfolded to floats at load.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import openvino as ov
from openvino import opset13 as ops

__all__ = ["WeightFormat", "compressed", "quantised_int8"]

Array = np.ndarray[Any, Any]
WeightFormat = Literal["int8", "uint4_g32", "uint4_g64", "fp16"]


def quantised_int8(weight: Array) -> tuple[Array, Array]:
    """Symmetric, one scale an output row: int8 [out, in], float32 [out, 1]."""
    scale = np.maximum(np.abs(weight).max(axis=1, keepdims=True), 1e-12) / 127.0
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale.astype(np.float32)


def compressed(weight: Array, fmt: WeightFormat) -> Any:
    """A node that yields `weight` [out, in] as float32, stored as `fmt` says."""
    if fmt == "fp16":
        return ops.convert(ops.constant(weight.astype(np.float16)), "f32")
    if fmt == "int8":
        values, scale = quantised_int8(weight)
        node = ops.convert(ops.constant(values), "f16")
        return ops.convert(ops.multiply(node, ops.constant(scale.astype(np.float16))), "f32")
    blocks = weight.reshape(weight.shape[0], -1, int(fmt.removeprefix("uint4_g")))
    low, high = np.minimum(blocks.min(-1, keepdims=True), 0), np.maximum(blocks.max(-1, keepdims=True), 0)
    scale = np.maximum((high - low) / 15.0, 1e-8).astype(np.float16)
    zero = np.clip(np.rint(-low / scale), 0, 15)
    values = np.clip(np.rint(blocks / scale) + zero, 0, 15)
    shifted = ops.subtract(ops.convert(_uint4(values), "f16"), ops.convert(_uint4(zero), "f16"))
    flat = ops.reshape(ops.multiply(shifted, ops.constant(scale)), ops.constant(np.array(weight.shape, np.int64)), False)
    return ops.convert(flat, "f32")


def _uint4(values: Array) -> Any:
    """A constant of four-bit numbers: two a byte, the first in the low half."""
    flat = values.reshape(-1).astype(np.uint8)
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    packed = flat[0::2] | (flat[1::2] << 4)
    tensor = ov.Tensor(ov.Type.u4, ov.Shape(list(values.shape)))
    tensor.data.reshape(-1).view(np.uint8)[:] = packed  # the tensor owns its memory; one made from an array would not
    return ops.constant(tensor)
