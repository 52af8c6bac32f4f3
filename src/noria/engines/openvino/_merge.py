"""Merges an adapter into its base: a checkpoint like any other, for export or to be served by itself.

W + scaling · B·A in float32, one tensor at a time. As a program, `python -m noria.engines.openvino._merge BASE OUT`, it writes
`OUT/safetensors` and `OUT/openvino`, each whole or not at all, and says on stdout what it is at.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from noria.engines.openvino._adapter import Adapter, read_adapter
from noria.engines.openvino._checkpoint import whole_folder, write_checkpoint, write_configuration
from noria.engines.openvino._manifest import MANIFEST_NAME
from noria.engines.openvino._source import Source, open_source, tensor_shapes
from noria.engines.openvino._tensors import write_tensors
from noria.errors import NoriaError

__all__ = ["main", "merge"]

Array = np.ndarray[Any, Any]


def merge(checkpoint: Path, adapter: Path | None, out: Path, *, name: str | None = None) -> Path:
    """Writes the merged model as a transformers folder (float32 safetensors) and returns it; without an adapter the base alone.

    The folder arrives whole or not at all; the same merge done before is left as it is. Raises ConfigurationError,
    InvalidRequest.
    """
    source = open_source(checkpoint)
    shapes = tensor_shapes(source.spec)
    modules = {tensor.removesuffix(".weight"): (shape[1], shape[0]) for tensor, shape in shapes.items() if "_proj." in tensor}
    update = read_adapter(adapter.name, adapter, modules) if adapter is not None else None
    digest = source.note.source_sha256
    if update is not None:
        digest = hashlib.sha256(bytes.fromhex(digest) + update.digest).hexdigest()
    note = source.note.model_copy(update={"name": name or source.note.name, "source_sha256": digest})
    merged = Source(source.spec, note, source.tokenizer_json, lambda tensor: _weight(source, update, tensor))
    with whole_folder(out, digest) as partial:
        if partial is not None:
            write_tensors(partial / "model.safetensors", shapes, merged.weight)
            write_configuration(partial, merged)
    return out


def _weight(source: Source, update: Adapter | None, tensor: str) -> Array:
    weight = source.weight(tensor)
    halves = update.weights.get(tensor.removesuffix(".weight")) if update is not None else None
    return weight if halves is None else weight + halves[1].T @ halves[0]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m noria.engines.openvino._merge")
    parser.add_argument("base", type=Path, help="a prepared model's folder or a checkpoint")
    parser.add_argument("out", type=Path)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--format", choices=("safetensors", "openvino", "both"), default="both")
    options = parser.parse_args(arguments)
    try:
        print("checkpoint", flush=True)
        prepared = (options.base / MANIFEST_NAME).exists()
        checkpoint = write_checkpoint(options.base) if prepared else options.base
        print("merging", flush=True)
        merged = merge(checkpoint, options.adapter, options.out / "safetensors", name=options.name)
        if options.format != "safetensors":
            print("preparing", flush=True)
            _prepare_whole(merged, options.out / "openvino")
        if options.format == "openvino":
            shutil.rmtree(merged)
    except NoriaError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _prepare_whole(checkpoint: Path, out: Path) -> None:
    from noria.engines.openvino._prepare import prepare

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    prepare(checkpoint, partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


if __name__ == "__main__":
    from noria.engines._process import die_with_parent

    die_with_parent()
    sys.exit(main())
