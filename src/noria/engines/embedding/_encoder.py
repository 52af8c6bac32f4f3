"""Token ids in, unit vectors out: the compiled graph, and the shapes it is run at.

It knows nothing about requests or text. On a CPU with bfloat16 instructions the graph runs in bf16, which keeps a cosine
of 0.9999 with f32 at several times the speed. Tried and not kept: int8 weights, with and without dynamic quantisation
(1.3 to 1.8 times slower than bf16 at 8 × 128 tokens), and a graph compiled for each shape (0.5 to 0.7 of the speed of
one with dynamic shapes).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from noria.engines.embedding._model_folder import GRAPH, EmbeddingCard
from noria.errors import ConfigurationError

__all__ = ["BATCH_TOKENS", "Encoder", "cut_batches", "padded_length"]

BATCH_TOKENS = 1024
"""Padded tokens a batch: throughput is flat from about 600 to 1,200 (measured on 2 cores), and a query that arrives
while a batch runs waits for no more than this."""

STEP = 8
"""Lengths are padded to multiples of this, so that few shapes occur: each new one is prepared by the plugin, once."""


class Encoder:
    """The compiled model. Not thread-safe: one thread runs it."""

    def __init__(self, folder: Path, card: EmbeddingCard, *, num_threads: int | None = None) -> None:
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if num_threads is not None:
            settings["INFERENCE_NUM_THREADS"] = num_threads
        core = ov.Core()
        if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            settings["INFERENCE_PRECISION_HINT"] = "bf16"
        try:
            compiled: Any = core.compile_model(folder / GRAPH, "CPU", settings)
        except RuntimeError as error:
            raise ConfigurationError(f"OpenVINO cannot load {folder / GRAPH}: {error}.", hint="Pull the model again.") from error
        self._card = card
        self._request: Any = compiled.create_infer_request()

    def encode(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """One vector a row: `[len(batch), dimensions]`."""
        length = min(padded_length(max(map(len, batch))), self._card.max_tokens)
        ids_BS = np.full((len(batch), length), self._card.pad_id, np.int32)
        mask_BS = np.zeros((len(batch), length), np.int32)
        for row, tokens in enumerate(batch):
            ids_BS[row, : len(tokens)] = tokens
            mask_BS[row, : len(tokens)] = 1
        result = self._request.infer({"input_ids": ids_BS, "attention_mask": mask_BS})
        return np.array(result[0], np.float32)  # a copy: the next run writes over the tensor

    def warm(self) -> None:
        """Runs the shapes of short queries once, so that the first user does not pay for their preparation."""
        for length in range(STEP, 5 * STEP, STEP):
            self.encode([[self._card.bos_id] * length])


def padded_length(num_tokens: int) -> int:
    return -(-num_tokens // STEP) * STEP


def cut_batches(lengths: Sequence[int], budget: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Cuts inputs into batches of like length: yields indices; each batch, padded, holds at most `budget` tokens (or one
    input). Longest first, so that what remains for the end is cheap and evens out.
    """
    batch: list[int] = []
    padded = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and padded * (len(batch) + 1) > budget:
            yield batch
            batch = []
        if not batch:
            padded = padded_length(lengths[index])
        batch.append(index)
    if batch:
        yield batch
