from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_e5 import make_model

from noria.engines import WeightsStore


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def real_model() -> Path:
    """The default embedder, where it has been pulled."""
    cache = Path(os.environ.get("NORIA_CACHE") or Path.home() / ".cache" / "noria")
    folder = WeightsStore(cache / "models").find("multilingual-e5-small")
    if folder is None:
        pytest.skip("multilingual-e5-small is not on this machine: run `make install`")
    return folder
