from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from file_server import FileServer


@pytest.fixture
def server() -> Generator[FileServer]:
    made = FileServer()
    yield made
    made.close()
