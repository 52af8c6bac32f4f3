"""Runs one step of the paged model: flat token arrays in, logits out.

Knows nothing about requests. The stateful graph is read from disk, OpenVINO's `paged_attention_transformation` turns
its attention into paged attention, and the shapes and precision of the key/value caches are read off the compiled
model, which alone knows them (a quantised cache keeps its scales in extra rows).

Two compilations of the graph share the caches: *narrow* for steps of few tokens (decoding), where float32 with
dynamically quantised activations is faster, and *wide* for the others (prompts), where half floats on matrix units are.
Steps with adapters run on a third (`_lora`), wide and made when the first adapter comes, so that steps of the base alone cost
what they cost without.

Shapes: T new tokens of all sequences, S sequences, R rows of logits, V vocabulary.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino._offline_transformations import paged_attention_transformation

from noria.engines.openvino._adapter import Adapter
from noria.engines.openvino._lora import GATE, Stack, bind_adapters, projections
from noria.errors import ConfigurationError

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
    logits are wanted, len(tokens) for none. `adapter` changes the model for these tokens alone.
    """

    tokens: Seq[int]
    start: int
    blocks: Seq[int]
    logits_from: int
    adapter: Adapter | None = None


@dataclass
class _Adapted:
    """The compilation with adapters, and what its inputs hold now."""

    request: ov.InferRequest
    bound: tuple[Stack, tuple[int, int]] | None = None


class PagedModel:
    def __init__(self, graph: Path | ov.Model, config: RunnerConfig) -> None:
        self._core, self._config = ov.Core(), config
        self._graph = graph if isinstance(graph, Path) else graph.clone()
        self._paged = model = self._read()
        self.modules = projections(model)
        paged_attention_transformation(model)
        self._adapted: _Adapted | None = None
        self._adapted_lock = threading.Lock()
        self.stack: Stack | None = None  # replaced by whoever loads an adapter; read once a step
        compiled = self._compile(model, config.properties)
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
        compiled = self._compile(self._paged, properties)
        caches = _caches(compiled)
        if caches != self._caches:  # this processor supports only one of the precisions
            _log.warning("the wide compilation wants another cache than the narrow one; the narrow one runs every step")
            return
        request = compiled.create_infer_request()
        self._attach(request, caches)
        self._wide = request

    def adapt(self) -> None:
        """Compiles the form that takes adapters, once. May run beside `run`, in another thread."""
        with self._adapted_lock:
            if self._adapted is None:
                self._adapted = self._adapted_form()

    def stack_of(self, adapters: Seq[Adapter]) -> Stack:
        """These adapters' rows in memory, each once."""
        return Stack(list({adapter.digest: adapter for adapter in adapters}.values()), self.modules, self._adapter_kind)

    @property
    def _adapter_kind(self) -> Any:
        """Half floats beside half floats: the graph would convert others in every step."""
        return np.float32 if self._config.wide_properties is None else np.float16

    def _adapted_form(self) -> _Adapted:
        model = self._read()
        bind_adapters(model, self._adapter_kind)
        paged_attention_transformation(model)
        for properties in (self._config.wide_properties, self._config.properties):
            if properties is None:
                continue
            compiled = self._compile(model, properties)
            if _caches(compiled) == self._caches:  # else this processor lacks that precision
                request = compiled.create_infer_request()
                self._attach(request, self._caches)
                return _Adapted(request)
        raise ConfigurationError("With adapters this processor wants another key/value cache; they cannot be served here.")

    def _read(self) -> ov.Model:
        """The graph anew: the transformation changes it in place."""
        return self._core.read_model(str(self._graph)) if isinstance(self._graph, Path) else self._graph.clone()

    def _compile(self, model: ov.Model, properties: tuple[tuple[str, str], ...]) -> ov.CompiledModel:
        wanted = {"PERFORMANCE_HINT": "LATENCY", **dict(properties)}
        if self._config.threads:
            wanted["INFERENCE_NUM_THREADS"] = str(self._config.threads)
        return self._core.compile_model(model, "CPU", wanted)

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
        adapters = [s.adapter for s in slices if s.adapter is not None]
        if adapters:
            request, inputs[GATE] = self._with_adapters(adapters, [(len(s.tokens), s.adapter) for s in slices])
        else:
            request = self._narrow if len(tokens) < WIDE_FROM_TOKENS else self._wide
        for name, values in inputs.items():
            request.set_tensor(name, ov.Tensor(values))
        request.infer()
        return request.get_output_tensor(0).data[: rows.size]

    def _with_adapters(self, adapters: list[Adapter], counts: list[tuple[int, Adapter | None]]) -> tuple[ov.InferRequest, Array]:
        """The request that holds the rows of these adapters, and the gate for its tokens."""
        self.adapt()
        assert self._adapted is not None
        form, stack = self._adapted, self.stack
        if stack is None or not all(adapter in stack for adapter in adapters):
            # One was unloaded while its answer was still being written: it comes back until that ends.
            stack = self.stack = self.stack_of([*(stack.adapters if stack else ()), *adapters])
        rows = stack.range_of(adapters)
        if form.bound != (stack, rows):
            for name, tensor in stack.tensors(rows):
                form.request.set_tensor(name, tensor)
            form.bound = (stack, rows)
        return form.request, stack.gate(counts, rows)


def _caches(compiled: ov.CompiledModel) -> dict[str, _Cache]:
    """The cache inputs by name, in order. Their shapes and kinds are the plugin's choice."""
    found: dict[str, _Cache] = {}
    for port in compiled.inputs:
        name = port.get_any_name()
        if "_cache." in name:
            shape = tuple(d.get_length() if d.is_static else 0 for d in port.get_partial_shape())
            found[name] = _Cache(shape, port.get_element_type())
    return found
