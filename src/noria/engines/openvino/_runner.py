"""Runs one step of the paged model: flat token arrays in, logits out.

Knows nothing about requests. The stateful graph is read from disk, OpenVINO's `paged_attention_transformation` turns
its attention into paged attention, and the shapes and precision of the key/value caches are read off the compiled
model, which alone knows them (a quantised cache keeps its scales in extra rows).

Shapes: T new tokens of all sequences, S sequences, R rows of logits, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino._offline_transformations import paged_attention_transformation

__all__ = ["PagedModel", "RunnerConfig", "Slice"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class RunnerConfig:
    """How the compiled model runs. `properties` are OpenVINO's, chosen when the model was prepared."""

    cache_bytes: int
    max_blocks: int | None = None
    threads: int | None = None
    properties: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Slice:
    """Consecutive tokens of one sequence to compute, with all of its blocks.

    `start` is how many of its tokens are computed already; `logits_from` the first token (within `tokens`) whose
    logits are wanted, len(tokens) for none.
    """

    tokens: Seq[int]
    start: int
    blocks: Seq[int]
    logits_from: int


class PagedModel:
    def __init__(self, graph: Path | ov.Model, config: RunnerConfig) -> None:
        core = ov.Core()
        model = core.read_model(str(graph)) if isinstance(graph, Path) else graph
        paged_attention_transformation(model)
        properties: dict[str, str] = {"PERFORMANCE_HINT": "LATENCY", **dict(config.properties)}
        if config.threads:
            properties["INFERENCE_NUM_THREADS"] = str(config.threads)
        compiled = core.compile_model(model, "CPU", properties)
        self._request = compiled.create_infer_request()
        caches = [port for port in compiled.inputs if "_cache." in port.get_any_name()]
        shapes = {port.get_any_name(): _dimensions(port) for port in caches}
        self.block_size = shapes["value_cache.0"][2]  # [blocks, heads, positions, size]
        block_bytes = sum(_bytes(port.get_element_type(), shapes[port.get_any_name()]) for port in caches)
        self.num_blocks = max(2, config.cache_bytes // block_bytes)
        if config.max_blocks is not None:
            self.num_blocks = min(self.num_blocks, config.max_blocks)
        self.block_bytes = block_bytes
        self._memory: list[Array] = []
        for port in caches:
            self._request.set_tensor(port.get_any_name(), self._cache_tensor(port, shapes[port.get_any_name()]))
        output = compiled.output(0).get_partial_shape()
        self.vocab_size: int = output[1].get_length()

    def _cache_tensor(self, port: Any, block_shape: list[int]) -> ov.Tensor:
        """Zeroed memory that the system hands out page by page: a large cache costs only what is used of it."""
        kind = port.get_element_type()
        words = {1: np.uint8, 2: np.uint16, 4: np.uint32}[kind.size]
        memory = np.zeros([self.num_blocks, *block_shape[1:]], words)
        self._memory.append(memory)
        return ov.Tensor(memory, ov.Shape(list(memory.shape)), kind)

    def run(self, slices: Seq[Slice]) -> Array:
        """Computes the slices together; returns logits [R, V], a view that the next call overwrites."""
        counts = np.array([len(s.tokens) for s in slices], np.int32)
        starts = np.array([s.start for s in slices], np.int32)
        begins = np.zeros(len(slices) + 1, np.int32)
        np.cumsum(counts, out=begins[1:])
        used = [-(-(s.start + len(s.tokens)) // self.block_size) for s in slices]
        block_begins = np.zeros(len(slices) + 1, np.int32)
        np.cumsum(np.array(used, np.int32), out=block_begins[1:])
        if len(slices) == begins[-1]:  # one token each: the common case
            tokens = np.array([s.tokens[0] for s in slices], np.int64)
            positions = starts.astype(np.int64)
            rows = np.array([i for i, s in enumerate(slices) if s.logits_from == 0], np.int64)
        else:
            tokens = np.concatenate([np.asarray(s.tokens, np.int64) for s in slices])
            positions = np.concatenate([np.arange(s.start, s.start + len(s.tokens), dtype=np.int64) for s in slices])
            wanted = [np.arange(b + s.logits_from, b + len(s.tokens)) for b, s in zip(begins, slices, strict=False)]
            rows = np.concatenate(wanted).astype(np.int64)
        blocks = np.concatenate([np.asarray(s.blocks[:n], np.int32) for s, n in zip(slices, used, strict=True)])
        inputs = {
            "input_ids": tokens,
            "position_ids": positions,
            "past_lens": starts,
            "subsequence_begins": begins,
            "block_indices": blocks,
            "block_indices_begins": block_begins,
            "max_context_len": np.array(int((starts + counts).max()), np.int32),
            # The graph wants at least one row; an all-prefill step computes one and the caller ignores it.
            "logits_rows": rows if rows.size else np.zeros(1, np.int64),
        }
        for name, values in inputs.items():
            self._request.set_tensor(name, ov.Tensor(values))
        self._request.infer()
        return self._request.get_output_tensor(0).data[: rows.size]


def _dimensions(port: Any) -> list[int]:
    """The static dimensions of a cache input, 0 for the free number of blocks."""
    return [d.get_length() if d.is_static else 0 for d in port.get_partial_shape()]


def _bytes(kind: ov.Type, block_shape: list[int]) -> int:
    return kind.size * int(np.prod(block_shape[1:]))
