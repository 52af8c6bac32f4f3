"""Safetensors files: written one tensor at a time, read one tensor at a time.

Knows nothing about models. The `safetensors` library is not used: its `save_file` wants all tensors in memory at once, and its
numpy side cannot read bfloat16, which is widened to float32 here.

Source of the format: https://huggingface.co/docs/safetensors (8 bytes of header length, JSON, then the tensors' bytes).
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from noria.errors import ConfigurationError

__all__ = ["TensorFile", "write_tensors"]

Array = np.ndarray[Any, Any]

_KINDS: Mapping[str, Any] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def write_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]], fetch: Callable[[str], Array]) -> None:
    """Writes float32 tensors under these names, durably; `fetch` gives each when its turn comes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # without it transformers refuses the file
    at = 0
    for name, shape in shapes.items():
        end = at + 4 * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)))
        out.write(text)
        for name, shape in shapes.items():
            values = np.ascontiguousarray(fetch(name), np.float32)
            assert values.shape == shape, f"{name} is {values.shape}, not {shape}"
            out.write(values.data)
        out.flush()
        os.fsync(out.fileno())


class TensorFile:
    """One safetensors file. Floats of any width come out as float32. Raises ConfigurationError for what is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > min(path.stat().st_size, 100_000_000):
                    raise ValueError("its header is longer than the file")
                header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            self._start = 8 + length
            self._entries = {str(name): _entry(name, entry) for name, entry in header.items()}
            size = path.stat().st_size - self._start
            bad = next((name for name, (_, _, (_, end)) in self._entries.items() if end > size), None)
            if bad is not None:
                raise ValueError(f"the tensor {bad!r} lies beyond its end")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise ConfigurationError(f"{path} is not a readable safetensors file: {error}") from error

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, (_, shape, _) in self._entries.items()}

    def read(self, name: str) -> Array:
        """The tensor as float32."""
        kind, shape, (begin, end) = self._entries[name]
        with self.path.open("rb") as file:
            file.seek(self._start + begin)
            values = np.frombuffer(file.read(end - begin), _KINDS[kind]).reshape(shape)
        if kind == "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32)


def _entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    kind, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
    begin, end = (int(place) for place in entry["data_offsets"])
    if kind not in _KINDS:
        raise ValueError(f"the tensor {name!r} has the type {kind}, not a float's")
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(_KINDS[kind]).itemsize
    if min(shape, default=0) < 0 or begin < 0 or end - begin != size:
        raise ValueError(f"the tensor {name!r} contradicts its shape {list(shape)}")
    return kind, shape, (begin, end)
