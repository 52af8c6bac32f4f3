"""Merges an adapter into its base: a checkpoint like any other, for export or to be served by itself.

W + scaling · B·A in float32, one tensor at a time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from noria.engines.openvino._adapter import read_adapter
from noria.engines.openvino._checkpoint import whole_folder, write_configuration
from noria.engines.openvino._source import Source, open_source, tensor_shapes
from noria.engines.openvino._tensors import write_tensors

__all__ = ["merge"]

Array = np.ndarray[Any, Any]


def merge(checkpoint: Path, adapter: Path, out: Path, *, name: str | None = None) -> Path:
    """Writes the merged model as a transformers folder (float32 safetensors) and returns it.

    The folder arrives whole or not at all; the same merge done before is left as it is. Raises ConfigurationError,
    InvalidRequest.
    """
    source = open_source(checkpoint)
    shapes = tensor_shapes(source.spec)
    modules = {tensor.removesuffix(".weight"): (shape[1], shape[0]) for tensor, shape in shapes.items() if "_proj." in tensor}
    update = read_adapter(name or adapter.name, adapter, modules)

    def fetch(tensor: str) -> Array:
        weight = source.weight(tensor)
        halves = update.weights.get(tensor.removesuffix(".weight"))
        return weight if halves is None else weight + halves[1].T @ halves[0]

    digest = hashlib.sha256(bytes.fromhex(source.note.source_sha256) + update.digest).hexdigest()
    note = source.note.model_copy(update={"name": name or f"{source.note.name} + {adapter.name}", "source_sha256": digest})
    merged = Source(source.spec, note, source.tokenizer_json, fetch)
    with whole_folder(out, digest) as partial:
        if partial is not None:
            write_tensors(partial / "model.safetensors", shapes, fetch)
            write_configuration(partial, merged)
    return out
