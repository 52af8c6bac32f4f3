"""What was said of an answer is said anew: the dataset follows, and nothing that was taken out comes back by itself."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import select, update

from noria.errors import InvalidRequest
from noria.evals import FeedbackFilter, Opinion
from noria.evals.datasets import CurationPolicy, Gone, check_content
from noria.store import DEFAULT_PROJECT, Cursor, Feedback, RowSource
from noria.tracing import TraceFilter
from tests.evals.datasets.conftest import Bench
from tests.evals.datasets.test_collecting_and_erasing import called, feedback_of, rows_of

RIGHT = {"role": "assistant", "content": "right"}
ACCEPT = CurationPolicy(accept=frozenset({"contradiction"}))


async def answers(bench: Bench) -> list[str]:
    return sorted(row.content["expected"]["content"] for row in await rows_of(bench))


async def liked(bench: Bench, asked: str, answered: str) -> tuple[str, str]:
    """The ids of a trace and of the thumb up on it."""
    trace_id = called(bench, asked, answered)
    return trace_id, (await feedback_of(bench).create(DEFAULT_PROJECT, trace_id, Opinion(rating="up"))).id


async def age(bench: Bench, seconds: int = 100) -> float:
    """Makes all feedback that old; the time from which on all else is new."""
    async with bench.database.write() as session:
        values = {"created_at": Feedback.created_at - seconds, "updated_at": Feedback.updated_at - seconds}
        await session.execute(update(Feedback).values(values))
    return time.time() - seconds // 2


async def test_one_wrong_label_does_not_erase_ten_right_ones(bench: Bench) -> None:
    for _ in range(10):
        await liked(bench, "Is it open?", "yes")
    await liked(bench, "Is it open?", "no")
    await bench.datasets.create("one")
    report = await bench.datasets.collect_feedback("one")
    assert report.added == 2
    found = await bench.datasets.curate("one", policy=ACCEPT)
    assert (found.removed, await answers(bench)) == (1, ["yes"])


async def test_people_who_agree_on_one_answer_count_each(bench: Bench) -> None:
    said = feedback_of(bench)
    many, _ = await liked(bench, "Is it open?", "yes")
    await said.create(DEFAULT_PROJECT, many, Opinion(rating="up"))
    await liked(bench, "Is it open?", "no")
    await bench.datasets.create("one")
    await bench.datasets.collect_feedback("one")
    await bench.datasets.curate("one", policy=ACCEPT)
    assert await answers(bench) == ["yes"]


async def test_a_tie_stays_undecided_and_a_later_voice_decides(bench: Bench) -> None:
    for answer in ("yes", "no"):
        await liked(bench, "Is it open?", answer)
    await bench.datasets.create("one")
    await bench.datasets.collect_feedback("one")
    await bench.datasets.curate("one", policy=ACCEPT)
    assert await answers(bench) == []
    since = await age(bench)
    assert (await bench.datasets.collect_feedback("one", since=since - 100)).added == 0
    await liked(bench, "Is it open?", "no")
    await bench.datasets.collect_feedback("one", since=since)
    await bench.datasets.curate("one", policy=ACCEPT)
    assert await answers(bench) == ["no"]


async def test_a_correction_replaces_what_a_thumb_made(bench: Bench) -> None:
    trace_id, _ = await liked(bench, "q", "wrong")
    await bench.datasets.create("one")
    await bench.datasets.collect_feedback("one")
    since = await age(bench)
    await feedback_of(bench).create(DEFAULT_PROJECT, trace_id, Opinion(correction=RIGHT))
    report = await bench.datasets.collect_feedback("one", since=since)
    assert (report.added, report.removed, await answers(bench)) == (1, 1, ["right"])
    again = await bench.datasets.collect_feedback("one")
    assert (again.added, again.removed, await answers(bench)) == (0, 0, ["right"])
    assert [row.content["expected"]["content"] for row in await rows_of(bench, version=1)] == ["wrong"]


@pytest.mark.parametrize("changes", [{"rating": "down"}, {"rating": None, "comment": "hm"}])
async def test_a_thumb_taken_down_takes_its_row_away_and_up_brings_it_back(bench: Bench, changes: dict[str, Any]) -> None:
    _, feedback_id = await liked(bench, "q", "a")
    await bench.datasets.create("one")
    await bench.datasets.collect_feedback("one")
    since = await age(bench)
    await feedback_of(bench).update(feedback_id, changes)
    report = await bench.datasets.collect_feedback("one", since=since)
    assert (report.considered, report.removed, await answers(bench)) == (1, 1, [])
    await feedback_of(bench).update(feedback_id, {"rating": "up"})
    assert (await bench.datasets.collect_feedback("one", since=since)).added == 1
    assert await answers(bench) == ["a"]
    async with bench.database.read() as session:
        assert [source.withdrawn for source in await session.scalars(select(RowSource))] == [False]


async def test_ratings_that_disagree_take_the_row_away(bench: Bench) -> None:
    trace_id, _ = await liked(bench, "q", "a")
    await bench.datasets.create("one")
    await bench.datasets.collect_feedback("one")
    await feedback_of(bench).create(DEFAULT_PROJECT, trace_id, Opinion(rating="down"))
    report = await bench.datasets.collect_feedback("one")
    assert (dict(report.skipped), await answers(bench)) == ({"ratings_disagree": 1}, [])


async def test_a_row_stays_while_another_answer_says_it(bench: Bench) -> None:
    said, given = feedback_of(bench), [await liked(bench, "q", "a") for _ in range(2)]
    await bench.datasets.create("one")
    await bench.datasets.collect_feedback("one")
    await said.update(given[0][1], {"rating": "down"})
    await bench.datasets.collect_feedback("one")
    assert await answers(bench) == ["a"]
    await said.update(given[1][1], {"correction": RIGHT})
    await bench.datasets.collect_feedback("one")
    assert await answers(bench) == ["right"]


async def test_a_deletion_finds_what_was_replaced(bench: Bench) -> None:
    trace_id, feedback_id = await liked(bench, "q", "a")
    await bench.datasets.create("one")
    await bench.datasets.collect_feedback("one")
    await feedback_of(bench).update(feedback_id, {"correction": RIGHT})
    await bench.datasets.collect_feedback("one")
    erased = await bench.datasets.eraser.erase(Gone(DEFAULT_PROJECT, "trace", [trace_id]))
    assert erased.rows == 2
    assert await rows_of(bench, version=1) == []


async def test_a_row_of_a_trace_is_replaced_by_a_correction_only(bench: Bench) -> None:
    trace_id = called(bench, "q", "a")
    bench.tracing.flush()
    await bench.datasets.create("one")
    await bench.datasets.collect_traces("one", TraceFilter())
    given = await feedback_of(bench).create(DEFAULT_PROJECT, trace_id, Opinion(comment="hm"))
    await bench.datasets.collect_feedback("one")
    assert await answers(bench) == ["a"]
    await feedback_of(bench).update(given.id, {"correction": RIGHT})
    await bench.datasets.collect_feedback("one")
    assert await answers(bench) == ["right"]


async def test_of_two_corrections_the_one_changed_last_counts(bench: Bench) -> None:
    said, trace_id = feedback_of(bench), called(bench, "q", "a")
    first, _ = [
        await said.create(DEFAULT_PROJECT, trace_id, Opinion(correction={"role": "assistant", "content": text}))
        for text in ("one", "two")
    ]
    await age(bench)
    await said.update(first.id, {"correction": RIGHT})
    await bench.datasets.create("one")
    await bench.datasets.collect_feedback("one")
    assert await answers(bench) == ["right"]


async def test_what_a_person_edited_stays_edited(bench: Bench) -> None:
    await liked(bench, "q", "a")
    one = await bench.datasets.create("one")
    await bench.datasets.collect_feedback("one")
    (row,) = await rows_of(bench)
    await bench.datasets.replace_row(one, row.row_id, check_content({**row.content, "expected": "edited"}))
    report = await bench.datasets.collect_feedback("one")
    assert (dict(report.skipped), await answers(bench)) == ({"taken_out": 1}, ["edited"])


async def test_lists_go_by_when_it_was_given_and_collections_by_when_it_changed(bench: Bench) -> None:
    said = feedback_of(bench)
    _, feedback_id = await liked(bench, "q", "a")
    since = await age(bench)
    before = await said.get(feedback_id)
    with pytest.raises(InvalidRequest):
        await said.update(feedback_id, {"rating": None})
    assert (await said.get(feedback_id)).updated_at == before.updated_at
    changed = await said.update(feedback_id, {"comment": "good"})
    assert changed.created_at == before.created_at < since <= changed.updated_at
    assert (await said.list(FeedbackFilter(since=since), Cursor())).data == []
    await bench.datasets.create("one")
    assert (await bench.datasets.collect_feedback("one", since=since)).added == 1
