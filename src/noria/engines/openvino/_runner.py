"""Runs one step of the paged model: flat token arrays in, logits out.

Knows nothing about requests. The stateful graph is read from disk, OpenVINO's `paged_attention_transformation` turns
its attention into paged attention, and the shapes and precision of the key/value caches are read off the compiled
model, which alone knows them (a quantised cache keeps its scales in extra rows).

Two compilations of the graph share the caches: *narrow* for steps of few tokens (decoding), where float32 with
dynamically quantised activations is faster, and *wide* for the others (prompts), where half floats on matrix units are.

Shapes: T new tokens of all sequences, S sequences, R rows of logits, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino._offline_transformations import paged_attention_transformation

WIDE_FROM_TOKENS = 48
"""Where the two compilations break even (measured: design/0001-local-engine.md)."""

__all__ = ["PagedModel", "RunnerConfig", "Slice"]

Array = np.ndarray[Any, Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunnerConfig:
    """How the compiled model runs. Properties are OpenVINO's, chosen when the model was prepared.

    Without `wide_properties` one compilation runs every step: less memory for weights, and an answer's numbers
    depend less on what else is in the step.
    """

    cache_bytes: int
    max_blocks: int | None = None
    threads: int | None = None
    properties: tuple[tuple[str, str], ...] = ()
    wide_properties: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True)
class _Cache:
    shape: tuple[int, ...]  # 0 for the free number of blocks
    kind: ov.Type

    @property
    def block_bytes(self) -> int:
        return self.kind.size * int(np.prod(self.shape[1:]))


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
        self._core, self._paged, self._config = core, model, config
        compiled = self._compile(config.properties)
        self._caches = caches = _caches(compiled)
        self._narrow = self._wide = compiled.create_infer_request()
        self.block_size = caches["value_cache.0"].shape[2]  # [blocks, heads, positions, size]
        self.block_bytes = sum(cache.block_bytes for cache in caches.values())
        self.num_blocks = max(2, config.cache_bytes // self.block_bytes)
        if config.max_blocks is not None:
            self.num_blocks = min(self.num_blocks, config.max_blocks)
        self._memory = {name: self._zeros(cache) for name, cache in caches.items()}
        self._attach(self._narrow, caches)
        self.vocab_size: int = compiled.output(0).get_partial_shape()[1].get_length()

    def widen(self) -> None:
        """Compiles the wide form; until then the narrow one runs every step. May run beside `run`, in another thread."""
        properties = self._config.wide_properties
        if properties is None:
            return
        compiled = self._compile(properties)
        caches = _caches(compiled)
        if caches != self._caches:  # this processor supports only one of the precisions
            _log.warning("the wide compilation wants another cache than the narrow one; the narrow one runs every step")
            return
        request = compiled.create_infer_request()
        self._attach(request, caches)
        self._wide = request

    def _compile(self, properties: tuple[tuple[str, str], ...]) -> ov.CompiledModel:
        wanted = {"PERFORMANCE_HINT": "LATENCY", **dict(properties)}
        if self._config.threads:
            wanted["INFERENCE_NUM_THREADS"] = str(self._config.threads)
        return self._core.compile_model(self._paged, "CPU", wanted)

    def _attach(self, request: ov.InferRequest, caches: dict[str, _Cache]) -> None:
        for name, cache in caches.items():
            memory = self._memory[name]
            request.set_tensor(name, ov.Tensor(memory, ov.Shape(list(memory.shape)), cache.kind))

    def _zeros(self, cache: _Cache) -> Array:
        """Zeroed memory that the system hands out page by page: a large cache costs only what is used of it."""
        words = {1: np.uint8, 2: np.uint16, 4: np.uint32}[cache.kind.size]
        return np.zeros([self.num_blocks, *cache.shape[1:]], words)

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
        request = self._narrow if len(tokens) < WIDE_FROM_TOKENS else self._wide
        for name, values in inputs.items():
            request.set_tensor(name, ov.Tensor(values))
        request.infer()
        return request.get_output_tensor(0).data[: rows.size]


def _caches(compiled: ov.CompiledModel) -> dict[str, _Cache]:
    """The cache inputs by name, in order. Their shapes and kinds are the plugin's choice."""
    found: dict[str, _Cache] = {}
    for port in compiled.inputs:
        name = port.get_any_name()
        if "_cache." in name:
            shape = tuple(d.get_length() if d.is_static else 0 for d in port.get_partial_shape())
            found[name] = _Cache(shape, port.get_element_type())
    return found
