"""Noria's own CPU text-generation engine: a worker process that speaks OpenAI's API.

Run `python -m noria.engines.openvino --model FOLDER --name NAME --uds PATH`; make a folder with
`python -m noria.engines.openvino.prepare MODEL.gguf FOLDER`. Design: design/0001-local-engine.md.

Importing this package imports no native library: its functions load them when called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noria.engines.openvino._manifest import ModelManifest
    from noria.engines.openvino._rendering import ChatRenderer

__all__ = ["chat_renderer", "merge", "model_facts", "prepare", "render_chat_ids", "write_checkpoint"]


def prepare(source: Path, out_dir: Path, *, randomise: int | None = None) -> None:
    """Writes a model folder from a GGUF file or a transformers folder, weights in the default format.

    A checkpoint that lies in `out_dir/checkpoint` stays there as what further training starts from. Raises ConfigurationError.
    """
    from noria.engines.openvino import _prepare

    _prepare.prepare(source, out_dir, randomise=randomise)


def merge(checkpoint: Path, adapter: Path | None, out: Path, *, name: str | None = None) -> Path:
    """Writes base + adapter as one transformers folder (float32 safetensors). Raises ConfigurationError, InvalidRequest."""
    from noria.engines.openvino import _merge

    return _merge.merge(checkpoint, adapter, out, name=name)


def model_facts(folder: Path) -> ModelManifest:
    """What a prepared model's folder says of it. Raises ConfigurationError where it is none, or damaged."""
    from noria.engines.openvino import _manifest

    return _manifest.ModelManifest.read(folder)


def write_checkpoint(prepared_or_gguf: Path, out_folder: Path | None = None) -> Path:
    """Writes (once) the transformers checkpoint of a GGUF file or a prepared model: exact float32 weights.

    Without `out_folder` it lies in the prepared folder, as `checkpoint/`. Returns its folder. Raises ConfigurationError.
    """
    from noria.engines.openvino import _checkpoint

    return _checkpoint.write_checkpoint(prepared_or_gguf, out_folder)


def chat_renderer(folder: Path) -> ChatRenderer:
    """What turns chats into token ids as the worker does; `folder` is a prepared model's or a checkpoint's."""
    from noria.engines.openvino import _rendering

    return _rendering.renderer(folder)


def render_chat_ids(
    folder: Path,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
) -> list[int]:
    """A chat's token ids, exactly as the worker computes them. Raises InvalidRequest for messages it would refuse."""
    return chat_renderer(folder).ids(messages, tools, add_generation_prompt=add_generation_prompt)
