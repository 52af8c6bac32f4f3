"""A training whose PostgreSQL is stopped and started again: it is neither ended nor begun anew, and tells every step once."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PG_BIN, Postgres, running_server

from .test_jobs import ENDED, create, messages, tries
from .tiny_model import CARD, chats, copy_model

pytestmark = [pytest.mark.postgres, pytest.mark.skipif(not (PG_BIN / "initdb").exists(), reason="needs PostgreSQL")]
SLOW = 7  # what the played training does at this seed


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    made = Postgres()
    made.start()
    yield made
    made.close()


def test_a_training_goes_on(postgres: Postgres, tiny_folder: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} {Path(__file__).parent / 'fake_trainer.py'}"
    copy_model(tiny_folder, tmp_path / "home")
    with running_server(tmp_path / "home", NORIA_TRAIN_COMMAND=command, NORIA_DATABASE_URL=postgres.url) as server:
        server.add_model(CARD)
        client = server.openai(max_retries=5)
        job = create(client, chats(12), seed=SLOW)
        deadline = time.monotonic() + 60
        while not any("Step 1/" in message for message in messages(client, job.id)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        postgres.stop()
        time.sleep(2)
        postgres.start()
        while (ended := client.fine_tuning.jobs.retrieve(job.id)).status not in ENDED:
            assert time.monotonic() < deadline, server.log()[-4000:]
            time.sleep(0.2)
        assert ended.status == "succeeded", (ended.error, server.log()[-4000:])
        assert len(tries(server, job.id)) == 1, "the process went on by itself meanwhile"
        steps = csv.DictReader(io.StringIO(client.files.content(ended.result_files[0]).text))
        assert [row["step"] for row in steps] == ["1", "2", "3", "4", "5", "6"]
        told = [message for message in messages(client, ended.id) if message.startswith("Step ")]
        assert len(told) == len(set(told)) == 6
