"""Checkpoints that are whole or absent: written beside, moved into place. Two kinds: to go on from, and to serve."""

from __future__ import annotations

import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

from transformers import Trainer

from noria.training._plan import CHECKPOINTS

__all__ = ["DiskFull", "Keeper", "is_disk_full", "resumable"]

_PATTERN = re.compile(r"checkpoint-(\d+)")


class DiskFull(Exception):
    """A checkpoint or the result did not fit on the disk."""


def is_disk_full(error: BaseException, folder: Path) -> bool:
    """Several libraries wrap the system's error in their own; the disk itself is asked, too."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return True
    told = any(word in str(error) for word in ("No space left", "StreamWriter failed", "unexpected pos", "file write failed"))
    return told or shutil.disk_usage(folder).free < 2**20


def resumable(folder: Path) -> tuple[int, Path] | None:
    """The newest checkpoint to go on from, with its step."""
    found = [
        (int(match.group(1)), path)
        for path in (folder / CHECKPOINTS).glob("checkpoint-*")
        if (match := _PATTERN.fullmatch(path.name)) and (path / "trainer_state.json").exists()
    ]
    return max(found, default=None)


class Keeper:
    """Saves one training's checkpoints. `saved_step` is the newest that can be gone on from."""

    def __init__(self, folder: Path, trainer: Any, clock: Any) -> None:
        self._folder, self._trainer, self._clock = folder, trainer, clock
        found = resumable(folder)
        self.saved_step = found[0] if found else 0
        trainer._get_output_dir = lambda trial=None: str(self._staging)
        self._staging = folder / ".staging"
        shutil.rmtree(self._staging, ignore_errors=True)

    def save(self) -> bool:
        """A checkpoint of everything, the optimiser included. False where the disk is full: the earlier one stays."""
        step = int(self._trainer.state.global_step)
        if step == self.saved_step:
            return True
        place = self._folder / CHECKPOINTS / f"checkpoint-{step}"
        try:
            self._staging.mkdir(parents=True, exist_ok=True)
            Trainer._save_checkpoint(self._trainer, self._trainer.model, trial=None)  # pyright: ignore[reportPrivateUsage]
            made = self._staging / f"checkpoint-{step}"
            json.loads((made / "trainer_state.json").read_text())
            self._clock.save(made, self._trainer.learned_seen)
            move(made, place)
        except Exception as error:
            if not is_disk_full(error, self._folder):
                raise
            return False
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)
        self.saved_step = step
        for other in (self._folder / CHECKPOINTS).glob("checkpoint-*"):
            if other != place:
                shutil.rmtree(other, ignore_errors=True)
        return True

    def serve(self, name: str) -> Path:
        """The weights alone, as `FOLDER/NAME`. Raises DiskFull."""
        staging, place = self._folder / f".{name.replace('/', '-')}.staging", self._folder / name
        shutil.rmtree(staging, ignore_errors=True)
        try:
            self._trainer.model.save_pretrained(staging, safe_serialization=True)
            (staging / "README.md").unlink(missing_ok=True)
            move(staging, place)
        except Exception as error:
            if not is_disk_full(error, self._folder):
                raise
            raise DiskFull(f"{place.name} did not fit on the disk.") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return place


def move(made: Path, place: Path) -> None:
    """Puts a whole folder in its place; what an earlier try left there gives way."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        shutil.rmtree(place)
    made.replace(place)
