"""A fully trained model made ready for the engine: its checkpoint as transformers wrote it becomes a prepared folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from noria.engines.openvino import prepare
from noria.training._plan import ADAPTER, DataFacts

from ._reporting import Reporter

__all__ = ["export"]

_KEPT = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "noria-checkpoint.json")


def export(folder: Path, reporter: Reporter) -> None:
    """`FOLDER/result` becomes `FOLDER/prepared`, whole or not at all, with the checkpoint in it to train further from."""
    data = DataFacts.read(folder)
    assert data is not None
    reporter.send(type="progress", done=0, total=1, what="preparing the model")
    scratch, place = folder / ".prepared", folder / "prepared"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
    checkpoint = scratch / "checkpoint"
    shutil.copytree(folder / ADAPTER, checkpoint)
    for name in _KEPT:
        if (source := Path(data.checkpoint) / name).exists():
            shutil.copyfile(source, checkpoint / name)
    prepare(checkpoint, scratch)
    scratch.rename(place)
