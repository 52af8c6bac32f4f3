"""Versions: linear, immutable, split by input; the same on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from noria.errors import Conflict, InvalidRequest, NotFound
from noria.evals.datasets import (
    CurationPolicy,
    FindingFilter,
    NewRow,
    RowFilter,
    Source,
    check_content,
    list_rows,
    row_id_of,
    split_of,
)
from noria.store import Cursor, Dataset, DatasetRow, DatasetVersion, RowSource
from tests.evals.datasets.conftest import Bench, row


async def ids(bench: Bench, dataset: Dataset, version: int | None = None) -> set[str]:
    return {each.row_id async for each in bench.datasets.rows(dataset.id, version)}


def row_id(asked: str, answer: str | None = None) -> str:
    return row_id_of(check_content(row(asked, answer)))


async def test_versions_are_linear_and_do_not_change(bench: Bench) -> None:
    datasets = bench.datasets
    one = await datasets.create("one")
    assert await ids(bench, one) == set()
    with pytest.raises(NotFound, match="empty"):
        await datasets.version(one.id)
    first = await datasets.add(one.id, [row("a", "1"), row("b", "2"), row("a", "1")], note="first")
    assert (first.added, first.duplicates) == (2, 1)
    second = await datasets.add(one.id, [row("c", "3"), row("b", "2")], remove=[row_id("a", "1")])
    assert (second.added, second.removed, second.duplicates) == (1, 1, 1)
    assert await ids(bench, one, 1) == {row_id("a", "1"), row_id("b", "2")}
    assert await ids(bench, one, 2) == await ids(bench, one) == {row_id("b", "2"), row_id("c", "3")}
    nothing = await datasets.add(one.id, [row("c", "3")], remove=["row_that_is_not_there"])
    assert nothing.version is not None
    assert (nothing.version.number, nothing.added, nothing.removed) == (2, 0, 0)
    back = await datasets.add(one.id, [row("a", "1")], remove=[row_id("c", "3")])
    assert back.version is not None
    assert first.version is not None
    assert back.version.digest == first.version.digest, "the same rows, the same digest"
    assert back.version.counts["total"] == 2
    diff = await datasets.diff(one.id, 1, 3)
    assert diff.changes == []


async def test_a_dataset_of_duplicates_only_and_an_empty_addition(bench: Bench) -> None:
    one = await bench.datasets.create("one")
    done = await bench.datasets.add(one.id, [row("Same", "x")] * 500)
    assert (done.added, done.duplicates) == (1, 499)
    empty = await bench.datasets.create("two")
    assert (await bench.datasets.add(empty.id, [])).version is None


async def test_a_row_replaced_keeps_where_it_came_from(bench: Bench) -> None:
    one = await bench.datasets.create("one")
    source = Source(trace_id="0" * 32, feedback_id="fb_1")
    await bench.datasets.add(one.id, [NewRow(check_content(row("a", "1")), (source, source)), row("b", "2")])
    await bench.datasets.add(one.id, [NewRow(check_content(row("a", "1")), (source,))])  # known already
    dataset = await bench.datasets.get("one")
    await bench.datasets.replace_row(dataset, row_id("a", "1"), row("a", "better"))
    assert await bench.datasets.sources(dataset, row_id("a", "better")) == [{"trace_id": "0" * 32, "feedback_id": "fb_1"}]
    diff = await bench.datasets.diff(one.id, 1, 2)
    assert [(change.kind, change.before, change.after) for change in diff.changes] == [
        ("changed", row_id("a", "1"), row_id("a", "better"))
    ]
    async with bench.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(RowSource).where(RowSource.staged.is_not(None))) == 0


async def test_additions_at_once_make_versions_one_after_another(bench: Bench) -> None:
    one = await bench.datasets.create("one")
    await asyncio.gather(*(bench.datasets.add(one.id, [row(f"{n}", "x"), row("shared", "y")]) for n in range(8)))
    version = await bench.datasets.version(one.id)
    assert (version.number, version.counts["total"]) == (8, 9)
    assert len([each async for each in bench.datasets.rows(one.id)]) == 9


async def test_what_fails_leaves_nothing(bench: Bench) -> None:
    one = await bench.datasets.create("one")
    with pytest.raises(InvalidRequest, match="role"):
        await bench.datasets.add(one.id, [row("a", "1"), {"messages": [{"role": "nobody", "content": "x"}]}])
    staging = bench.datasets.versions.begin(one)
    await bench.datasets.versions.stage(staging, [NewRow(check_content(row("half", "done")), (Source(trace_id="1" * 32),))])
    assert await ids(bench, one) == set()
    await bench.datasets.versions.discard(staging.tag)
    async with bench.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(DatasetRow)) == 0
        assert await session.scalar(select(func.count()).select_from(RowSource)) == 0
    with pytest.raises(Conflict):
        await bench.datasets.create("one")
    for name in ("", "a/b", "ds_x", "a b"):
        with pytest.raises(InvalidRequest):
            await bench.datasets.create(name)


async def test_shares_hold_for_good(bench: Bench) -> None:
    one = await bench.datasets.create("one", shares=(0.5, 0.5))
    await bench.datasets.update(one, {"shares": (0.2, 0.3), "description": "x"})
    await bench.datasets.add(one.id, [row("a", "1")])
    with pytest.raises(Conflict, match="cross"):
        await bench.datasets.update(await bench.datasets.get("one"), {"shares": (0.1, 0.1)})
    with pytest.raises(InvalidRequest):
        await bench.datasets.create("two", shares=(0.9, 0.2))


async def test_rows_are_listed_by_page_split_text_and_metadata(bench: Bench) -> None:
    one = await bench.datasets.create("one", shares=(0.2, 0.2))
    await bench.datasets.add(one.id, [row(f"Frage {n}: 天气", f"Antwort_{n}%", metadata={"n": str(n)}) for n in range(40)])
    whole: list[str] = []
    after = None
    while True:
        page = await list_rows(bench.database, one.id, 1, RowFilter(), Cursor(7, "asc", after))
        whole += [each.row_id for each in page.data]
        if not page.has_more:
            break
        after = page.data[-1].row_id
    assert whole == [each.row_id async for each in bench.datasets.rows(one.id)]

    async def found(**wanted: Any) -> list[str]:
        page = await list_rows(bench.database, one.id, 1, RowFilter(**wanted), Cursor(100, "desc"))
        return [each.content["messages"][0]["content"] for each in page.data]

    assert len(await found(text="天气")) == 40
    assert await found(text="FRAGE 7:") == ["Frage 7: 天气"]
    assert await found(text="antwort_3%") == ["Frage 3: 天气"]
    assert await found(text="role") == []
    assert await found(metadata={"n": "5"}) == ["Frage 5: 天气"]
    assert len(await found(split="train")) + len(await found(split="test")) + len(await found(split="validation")) == 40


async def test_findings_are_decided_and_applied(bench: Bench) -> None:
    datasets = bench.datasets
    one = await datasets.create("one", shares=(0.0, 0.0))
    rows = [
        row("What is it?", "yes"),
        row("what is it", "yes"),
        row("Mail bob@example.org", "ok"),
        row("fine", "yes"),
        row("o", "no"),
    ]
    await datasets.add(one.id, rows)
    found = await datasets.curate(one.id)
    assert found.counts == {"exact_duplicate": 1, "personal_data": 1}
    dataset = await datasets.get("one")
    listed = (await datasets.findings.list(dataset, FindingFilter(), Cursor(10, "asc"))).data
    assert "bob" not in str([finding.detail for finding in listed])
    by_kind = {finding.kind: finding for finding in listed}
    await datasets.findings.decide(dataset, by_kind["personal_data"].id, "rejected", "ann")
    assert await datasets.findings.decide_all(dataset, FindingFilter(decision="open"), "accepted", "ann") == 1
    applied = await datasets.findings.apply(dataset, 1)
    assert (applied.removed, applied.version and applied.version.number) == (1, 2)
    again = await datasets.curate(one.id)
    assert again.counts == {}, "what was rejected is not found again"
    at_once = await datasets.curate(
        one.id, policy=CurationPolicy(kinds=frozenset({"oversize"}), max_characters=1, accept=frozenset({"oversize"}))
    )
    assert at_once.version.number == 3
    assert await ids(bench, one) == set()


TURNS = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "curate"]),
        st.lists(st.tuples(st.text("abAB ?!好", max_size=4), st.sampled_from("xyz")), max_size=6),
    ),
    max_size=6,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TURNS, st.sampled_from([(0.1, 0.1), (0.3, 0.4), (0.0, 1.0)]))
async def test_no_input_ever_crosses_splits(bench: Bench, turns: Any, shares: tuple[float, float]) -> None:
    """Whatever is added, removed and added again, in whatever spelling: one input has one split in every version."""
    async with bench.database.write() as session:
        for dataset in await session.scalars(select(Dataset)):
            await session.delete(dataset)
    one = await bench.datasets.create("one", shares=shares)
    for kind, given_rows in turns:
        contents = [check_content(row(asked, answer)) for asked, answer in given_rows]
        if kind == "add":
            await bench.datasets.add(one.id, contents)
        elif kind == "remove":
            await bench.datasets.add(one.id, [], remove=[row_id_of(content) for content in contents])
        elif (await bench.datasets.get(one.id)).head:
            await bench.datasets.curate(one.id, policy=CurationPolicy(accept=frozenset({"exact_duplicate", "contradiction"})))
    seen: dict[str, set[str]] = {}
    async with bench.database.read() as session:
        for each in await session.scalars(select(DatasetRow).where(DatasetRow.dataset_id == one.id)):
            assert each.content is not None
            asked = "".join(letter for letter in each.content["messages"][0]["content"].casefold() if letter.isalnum())
            key = asked or each.content["messages"][0]["content"].strip()
            seen.setdefault(key, set()).add(each.split)
            assert each.split == split_of(each.content, *shares)
    head = (await bench.datasets.get(one.id)).head
    for number in range(1, head + 1):
        version = await bench.datasets.version(one.id, number)
        assert version.counts["total"] == len(await ids(bench, one, number))


async def test_the_shares_are_met() -> None:
    found = [split_of(check_content(row(f"question {n}")), 0.1, 0.2) for n in range(4000)]
    assert 0.08 < found.count("validation") / 4000 < 0.12
    assert 0.18 < found.count("test") / 4000 < 0.22


async def test_exports_are_made_once(bench: Bench) -> None:
    one = await bench.datasets.create("one", shares=(0.0, 0.0))
    await bench.datasets.add(one.id, [row("a", "1"), row("b")])
    file = await bench.datasets.export_file("one", split="train", format="openai")
    assert (await bench.datasets.export_file("one", split="train", format="openai")).id == file.id
    assert file.purpose == "fine-tune"
    assert file.origin == {"kind": "dataset", "dataset_id": one.id, "version": 1, "split": "train", "format": "openai",
                           "written": 1, "left_out": 1}  # fmt: skip
    with pytest.raises(InvalidRequest, match="dpo"):
        await bench.datasets.export_file("one", format="dpo")
    with pytest.raises(InvalidRequest, match="no rows"):
        await bench.datasets.export_file("one", split="test")


async def test_a_file_to_learn_from_holds_answered_rows_only(bench: Bench) -> None:
    one = await bench.datasets.create("one", shares=(0.0, 0.0))
    pair = {"chosen": {"role": "assistant", "content": "good"}, "rejected": {"role": "assistant", "content": "bad"}}
    await bench.datasets.add(one.id, [row("a", "1"), row("b"), row("c", **pair)])
    file = await bench.datasets.export_file("one", format="openai")
    lines = [json.loads(line) for line in (await bench.blobs.get(file.sha256)).splitlines()]
    assert [line["messages"][-1] for line in lines] == [{"role": "assistant", "content": "1"}]
    pairs = await bench.datasets.export_file("one", format="dpo")
    assert len((await bench.blobs.get(pairs.sha256)).splitlines()) == 1


async def test_a_dataset_goes_with_its_rows_and_files(bench: Bench) -> None:
    one = await bench.datasets.create("one")
    await bench.datasets.add(one.id, [NewRow(check_content(row("a", "1")), (Source(trace_id="1" * 32),))])
    file = await bench.datasets.export_file("one")
    await bench.datasets.delete(await bench.datasets.get("one"))
    assert not await bench.blobs.exists(file.sha256)
    async with bench.database.read() as session:
        for table in (DatasetRow, DatasetVersion, RowSource):
            assert await session.scalar(select(func.count()).select_from(table)) == 0


async def test_of_two_who_change_a_row_one_is_told(bench: Bench) -> None:
    one = await bench.datasets.create("one")
    await bench.datasets.add(one.id, [row("a", "1")])
    edits = (bench.datasets.replace_row(one, row_id("a", "1"), row("a", answer)) for answer in ("2", "3"))
    outcomes = await asyncio.gather(*edits, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "Published"]
    assert len(await ids(bench, one)) == 1
    with pytest.raises(Conflict, match="no more"):
        await bench.datasets.replace_row(one, row_id("a", "1"), row("a", "4"))
    async with bench.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(DatasetRow).where(DatasetRow.staged.is_not(None))) == 0
    (left,) = await ids(bench, one)
    same = await bench.datasets.replace_row(one, left, (await bench.datasets.row(one, left)).content)
    assert (same.added, same.removed) == (1, 1)


async def test_rows_split_by_shares_that_were_changed_do_not_go_in(bench: Bench) -> None:
    one = await bench.datasets.create("one")
    staging = bench.datasets.versions.begin(await bench.datasets.get("one"))
    await bench.datasets.versions.stage(staging, [NewRow(check_content(row("a", "1")))])
    await bench.datasets.update(one, {"shares": (0.0, 0.5)})
    with pytest.raises(Conflict, match="shares"):
        await bench.datasets.versions.publish(staging, {"kind": "edit"})
    assert (await bench.datasets.get("one")).head == 0
