"""A tiny model on a temporary home, and a server whose trainings are played by `fake_trainer.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import NoriaServer, running_server

from .tiny_model import CARD, copy_model, write_model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def played(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    """A server with the model `tiny`; its files are prepared truly, its trainings played."""
    home = tmp_path_factory.mktemp("home")
    copy_model(tiny_folder, home)
    command = f"{sys.executable} {Path(__file__).parent / 'fake_trainer.py'}"
    with running_server(home, NORIA_TRAIN_COMMAND=command) as server:
        server.add_model(CARD)
        yield server
