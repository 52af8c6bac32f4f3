"""The turns of `test_server.py` once more, on a real PostgreSQL: what the whole wheel reads and writes is the same there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import NoriaServer, running_server
from tests.training.tiny_model import CARD, copy_model
from tests.wheel import test_server as turns
from tests.wheel.test_server import TRAINER, api, tiny_folder

__all__ = ["api", "tiny_folder"]  # fixtures

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def server(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[NoriaServer]:
    home = tmp_path_factory.mktemp("home")
    copy_model(tiny_folder, home)
    settings = {"NORIA_TRAIN_COMMAND": f"{sys.executable} {TRAINER}", "NORIA_DATABASE_URL": postgres_url}
    with running_server(home, **settings) as server:
        server.add_model(CARD)
        yield server


test_promotion_and_back = turns.test_a_turn_from_feedback_to_promotion_and_back
test_a_deleted_trace = turns.test_a_trace_that_was_deleted_is_learned_from_no_more
test_all_duplicates = turns.test_all_duplicates_are_one_row
test_other_traffic = turns.test_feedback_on_other_traffic_of_the_base_is_not_the_wheels
test_a_drop_is_rolled_back = turns.test_live_feedback_rolls_a_canary_back
