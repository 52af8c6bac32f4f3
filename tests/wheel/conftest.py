from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .world import Turning, open_world


@pytest.fixture
async def turning(tmp_path: Path) -> AsyncIterator[Turning]:
    made = await open_world(tmp_path)
    yield made
    await made.records.database.aclose()
