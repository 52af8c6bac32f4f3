"""The tiny decoder of the engine's tests as a model that can be trained: a GGUF file, a prepared folder, rows."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "engines" / "openvino"))
import tiny_decoder as tiny

from noria.engines.openvino import prepare, write_checkpoint

CARD = {
    "id": "tiny",
    "task": "chat",
    "source": "engine",
    "engine": "openvino",
    "folder": "models/tiny",
    "context_tokens": 1024,
    "memory_mb": 256,
}


def write_model(folder: Path) -> Path:
    """A prepared model with its checkpoint beside it."""
    (folder / "source").mkdir(parents=True)
    prepare(tiny.write_gguf(folder / "source" / "tiny.gguf"), folder)
    write_checkpoint(folder)
    return folder


def copy_model(made: Path, home: Path) -> None:
    shutil.copytree(made, home / "models" / "tiny")


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def preference(question: str, better: str, worse: str) -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "user", "content": question}]},
        "preferred_output": [{"role": "assistant", "content": better}],
        "non_preferred_output": [{"role": "assistant", "content": worse}],
    }


def jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def chats(number: int) -> bytes:
    return jsonl(chat(f"What is {n}?", "even" if n % 2 == 0 else "odd") for n in range(number))
