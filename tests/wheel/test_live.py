"""Live figures from what was recorded."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from noria.store import DEFAULT_PROJECT, Completion, Database, Feedback, new_id
from noria.tracing import Tracing, TracingOptions, configure
from noria.wheel import RecordedLive
from noria.wheel._parts import Against, LiveFigures

MODEL = "ft:small"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(f"sqlite:///{tmp_path}/noria.db")
    yield database
    await database.aclose()


@pytest.fixture
def tracing(tmp_path: Path) -> Tracing:
    return configure(TracingOptions(url=f"sqlite:///{tmp_path}/traces.db"), set_global=False)


def feedback(completion_id: str, **opinion: object) -> Feedback:
    about = {"target_kind": "completion", "target_id": completion_id, "model": MODEL}
    return Feedback(id=new_id("fb_"), project_id=DEFAULT_PROJECT, meta={}, **about, **opinion)


async def said(database: Database, answer: str, **opinion: object) -> None:
    """An answer, and what somebody said of it."""
    completion = Completion(
        id=new_id("chatcmpl-"),
        project_id=DEFAULT_PROJECT,
        model=MODEL,
        request={"model": MODEL, "messages": [{"role": "user", "content": "Is it?"}]},
        response={"choices": [{"message": {"role": "assistant", "content": answer}}]},
        meta={},
        created_at=int(time.time()),
    )
    async with database.write() as session:
        session.add(completion)
        session.add(feedback(completion.id, **opinion))


async def test_a_label_that_is_not_what_was_answered_is_negative_where_labels_count(database: Database, tracing: Tracing) -> None:
    live = RecordedLive(database, tracing.store, tracing.flush)

    async def figures(against: Against) -> tuple[int, int]:
        found: LiveFigures = await live.figures(
            DEFAULT_PROJECT, "detector", MODEL, since=time.time() - 60, slower_than_s=None, against=against
        )
        return found.feedback, found.negative

    await said(database, "Yes", label="Yes")
    await said(database, " yes\n", label="Yes")
    await said(database, "Yes", label="No")
    await said(database, "Yes", rating=-1)
    await said(database, "Yes", rating=1, label="No")  # the thumb is about the answer: it decides
    await said(database, "Yes", score=0.2)
    assert await figures(Against()) == (3, 1)
    assert await figures(Against(score_below=0.5)) == (3, 2)
    assert await figures(Against(labels=True)) == (6, 2)
    await said(database, "No", label="Yes")
    assert await figures(Against(labels=True)) == (7, 3)
    async with database.write() as session:
        session.add(feedback("chatcmpl-gone", label="No"))
    assert await figures(Against(labels=True)) == (7, 3)  # of an answer that is gone nothing is known
    tracing.close()
