"""Noria's own CPU text-generation engine: a worker process that speaks OpenAI's API.

Run `python -m noria.engines.openvino --model FOLDER --name NAME --uds PATH`; make a folder with
`python -m noria.engines.openvino.prepare MODEL.gguf FOLDER`. Design: design/0001-local-engine.md.

Importing this package imports no native library: `prepare` loads them when called.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["prepare"]


def prepare(gguf_path: Path, out_dir: Path, *, randomise: int | None = None) -> None:
    """Writes a model folder from a GGUF file, weights in the default format. Raises ConfigurationError."""
    from noria.engines.openvino import _prepare

    _prepare.prepare(gguf_path, out_dir, randomise=randomise)
