"""LoRA adapters in the graph: many at once, each token through its own.

`bind_adapters` adds ((x·Aᵀ) ⊙ gate)·B behind every projection x·Wᵀ. A [R, in] and B [R, out] are *inputs* of the graph that stack
the rows of all adapters of a step, and `gate` [T, R] is 1 where a token's adapter is and 0 elsewhere. So adapters and base mix in
one batch, and one comes or goes without another compilation.

`Stack` is that memory for a set of adapters: immutable, replaced as a whole. A step takes the range of rows from its first to
its last adapter, which is a view.

Sources: Hu et al. 2021 (arXiv:2106.09685), Chen et al. 2023 (Punica, arXiv:2310.18547) for the mixed batch. Shapes: T tokens,
R rows (sum of ranks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from noria.engines.openvino._adapter import Adapter

__all__ = ["GATE", "Stack", "bind_adapters", "projections"]

Array = np.ndarray[Any, Any]
Module = tuple[int, int]  # in, out

GATE = "lora_gate"
A, B = ".lora_A", ".lora_B"


def projections(model: ov.Model) -> dict[str, Module]:
    """The (in, out) of each MatMul that an adapter may change, by PEFT's module name."""
    found: dict[str, Module] = {}
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        if node.get_type_name() == "MatMul" and name.startswith("model.layers.") and name.endswith("_proj"):
            rows, columns = node.input_value(1).get_partial_shape()
            found[name] = (columns.get_length(), rows.get_length())
    return found


def bind_adapters(model: ov.Model, kind: Any) -> None:
    """Adds the inputs `gate` (float32) and A and B (`kind`, a numpy float type) of every projection. In place."""
    gate = _parameter([-1, -1], np.float32, GATE)
    parameters = [gate]
    flat: dict[tuple[str, int], Any] = {}  # what several projections read is flattened once
    sizes = projections(model)
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        if name not in sizes or node.get_type_name() != "MatMul":
            continue
        size_in, size_out = sizes[name]
        a, b = _parameter([-1, size_in], kind, name + A), _parameter([-1, size_out], kind, name + B)
        parameters += [a, b]
        x = node.input_value(0)
        key = (x.get_node().get_friendly_name(), x.get_index())
        if key not in flat:
            # [T, 1, in] to [T, in]: else each token would be a batch of its own, many times slower.
            flat[key] = ops.reshape(x, _i64([-1, size_in]), False)
        readers = node.output(0).get_target_inputs()
        low = ops.multiply(ops.matmul(flat[key], _float(a, kind), False, True), gate)
        update = ops.matmul(low, _float(b, kind), False, False)
        # Back to [T, 1, out], the shape that the projection itself has after the paged transformation.
        summed = ops.add(node.output(0), ops.unsqueeze(update, _i64([1])))
        for reader in readers:
            reader.replace_source_output(summed.output(0))
    model.add_parameters(parameters)


def _parameter(shape: list[int], kind: Any, name: str) -> Any:
    node = ops.parameter(shape, kind, name=name)
    node.output(0).get_tensor().set_names({name})
    return node


def _float(node: Any, kind: Any) -> Any:
    return node if kind is np.float32 else ops.convert(node, "f32")


def _i64(values: list[int]) -> Any:
    return ops.constant(np.array(values, np.int64))


class Stack:
    """The rows of some adapters, one below the other, in the float type that the compilation wants."""

    def __init__(self, adapters: Sequence[Adapter], modules: Mapping[str, Module], kind: Any) -> None:
        self.adapters = tuple(adapters)
        begins = np.cumsum([0, *(adapter.rank for adapter in adapters)])
        self._rows = {adapter.digest: (int(begins[i]), int(begins[i + 1])) for i, adapter in enumerate(adapters)}
        self._arrays = self._stacked(modules, kind, int(begins[-1]))
        self._tensors: dict[tuple[int, int], list[tuple[str, ov.Tensor]]] = {}

    def __contains__(self, adapter: Adapter) -> bool:
        return adapter.digest in self._rows

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())

    def _stacked(self, modules: Mapping[str, Module], kind: Any, num_rows: int) -> dict[str, Array]:
        arrays: dict[str, Array] = {}
        for name, sizes in modules.items():
            for part, (ending, size) in enumerate(zip((A, B), sizes, strict=True)):
                arrays[name + ending] = stacked = np.zeros((num_rows, size), kind)  # an untouched module stays zero
                for adapter in self.adapters:
                    if (halves := adapter.weights.get(name)) is not None:
                        begin, end = self._rows[adapter.digest]
                        stacked[begin:end] = halves[part]
        return arrays

    def range_of(self, adapters: Sequence[Adapter]) -> tuple[int, int]:
        """The rows from the first to the last of these adapters."""
        rows = [self._rows[adapter.digest] for adapter in adapters]
        return min(begin for begin, _ in rows), max(end for _, end in rows)

    def gate(self, counts: Sequence[tuple[int, Adapter | None]], rows: tuple[int, int]) -> Array:
        """[T, R] for consecutive tokens: (number of tokens, their adapter)."""
        first, last = rows
        gate = np.zeros((sum(count for count, _ in counts), last - first), np.float32)
        at = 0
        for count, adapter in counts:
            if adapter is not None:
                begin, end = self._rows[adapter.digest]
                gate[at : at + count, begin - first : end - first] = 1.0
            at += count
        return gate

    def tensors(self, rows: tuple[int, int]) -> list[tuple[str, ov.Tensor]]:
        """The inputs for these rows: views, made once."""
        if rows not in self._tensors:
            first, last = rows
            self._tensors[rows] = [
                (name, ov.Tensor(array[first:last], shared_memory=True)) for name, array in self._arrays.items()
            ]
        return self._tensors[rows]
