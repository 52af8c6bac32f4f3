"""Noria's own CPU text-generation engine: a worker process that speaks OpenAI's API.

Run `python -m noria.engines.openvino --model FOLDER --name NAME --uds PATH`; make a folder with
`python -m noria.engines.openvino.prepare MODEL.gguf FOLDER`. Design: design/0001-local-engine.md.

Importing this package imports no native library: `prepare` loads them when called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noria.engines.openvino.prepare import prepare

__all__ = ["prepare"]


def __getattr__(name: str) -> Any:
    if name == "prepare":
        from noria.engines.openvino.prepare import prepare

        return prepare
    raise AttributeError(name)
