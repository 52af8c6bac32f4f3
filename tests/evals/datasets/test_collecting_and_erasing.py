"""Rows from feedback, traces and completions, and out again; the same on SQLite and PostgreSQL."""

from __future__ import annotations

import time
from typing import Any

import pytest
from opentelemetry import trace as otel
from sqlalchemy import select

from noria.evals import FeedbackFilter, FeedbackStore, Lineage, Opinion
from noria.evals._answers import Answer
from noria.evals.datasets import CompletionFilter, FeedbackPolicy, Format, Gone, NewRow, Row, Source, judge
from noria.store import DEFAULT_PROJECT, Completion, EvalItem, EvalRun, Feedback, File, TunedModel, TuningJob, new_id
from noria.store import Eval as EvalTable
from noria.tracing import TraceFilter, attach_payload, semconv
from tests.evals.datasets.conftest import Bench


def called(bench: Bench, asked: str, answered: str | None, *, scope: str = "noria.server", **attributes: Any) -> str:
    """A trace of one model call; its id."""
    tracer = bench.tracing.provider.get_tracer(scope)
    with tracer.start_as_current_span("POST /v1/chat/completions", context=otel.context_api.Context()) as root:
        with bench.tracing.provider.get_tracer("noria.models").start_as_current_span("chat m") as span:
            span.set_attributes(
                {semconv.OPERATION: "chat", semconv.REQUEST_MODEL: "m", semconv.RESPONSE_MODEL: "m", **attributes}
            )
            attach_payload(span, input={"model": "m", "messages": [{"role": "user", "content": asked}]})
            if answered is not None:
                choice = {"index": 0, "message": {"role": "assistant", "content": answered}, "finish_reason": "stop"}
                attach_payload(span, output={"choices": [choice]})
        return f"{root.get_span_context().trace_id:032x}"


async def rows_of(bench: Bench, name: str = "one", version: int | None = None) -> list[Row]:
    return [row async for row in bench.datasets.rows(name, version)]


def feedback_of(bench: Bench) -> FeedbackStore:
    return FeedbackStore(bench.database, bench.tracing.store, bench.tracing.flush)


async def test_traces_become_rows_without_evals_and_failures(bench: Bench) -> None:
    called(bench, "hi", "hello")
    called(bench, "hi", "hello")
    called(bench, "unanswered", None)
    called(bench, "a test", "x", scope="noria.evals")
    bench.tracing.flush()
    await bench.datasets.create("one")
    report = await bench.datasets.collect_traces("one", TraceFilter())
    assert (report.considered, report.added, report.duplicates) == (4, 1, 1)
    assert dict(report.skipped) == {"no_answer": 1, "eval": 1}
    (row,) = await rows_of(bench)
    assert row.content == {
        "messages": [{"role": "user", "content": "hi"}],
        "expected": {"role": "assistant", "content": "hello"},
        "metadata": {"model": "m"},
    }
    assert len(await bench.datasets.sources(await bench.datasets.get("one"), row.row_id)) == 2
    report = await bench.datasets.collect_traces("one", TraceFilter(text="unanswered"), expect="nothing")
    assert report.added == 1
    again = await bench.datasets.collect_traces("one", TraceFilter(text="unanswered"), expect="nothing")
    assert again.version is not None
    assert again.version.number == 2


async def test_feedback_and_completions_become_rows(bench: Bench) -> None:
    said = feedback_of(bench)
    liked, wrong, split = (called(bench, f"q{n}", f"a{n}") for n in range(3))
    completion = Completion(
        id=new_id("chatcmpl-"),
        project_id=DEFAULT_PROJECT,
        model="m",
        request={"model": "m", "messages": [{"role": "user", "content": "stored"}]},
        response={"choices": [{"message": {"role": "assistant", "content": "kept", "annotations": []}}]},
        meta={"app": "x"},
    )
    async with bench.database.write() as session:
        session.add(completion)
    await said.create(DEFAULT_PROJECT, liked, Opinion(rating="up"))
    await said.create(DEFAULT_PROJECT, wrong, Opinion(rating="down"))
    await said.create(DEFAULT_PROJECT, wrong, Opinion(correction={"role": "assistant", "content": "right"}))
    for label in ("x", "y"):
        await said.create(DEFAULT_PROJECT, split, Opinion(label=label))
    await said.create(DEFAULT_PROJECT, completion.id, Opinion(score=0.9))
    await bench.datasets.create("one")
    policy = FeedbackPolicy(label_as_expected=True, min_score=0.8)
    report = await bench.datasets.collect_feedback("one", FeedbackFilter(), policy)
    assert (report.added, dict(report.skipped)) == (3, {"labels_disagree": 1})
    found = {row.content["messages"][0]["content"]: row.content for row in await rows_of(bench)}
    assert found["q0"]["expected"]["content"] == "a0"
    assert [found["q1"][name]["content"] for name in ("expected", "chosen", "rejected")] == ["right", "right", "a1"]
    assert found["stored"] == {
        "messages": [{"role": "user", "content": "stored"}],
        "expected": {"role": "assistant", "content": "kept"},
        "metadata": {"app": "x", "model": "m"},
    }
    none = await bench.datasets.collect_feedback("one", policy=policy, since=time.time() + 5)
    assert (none.considered, none.added) == (0, 0)
    report = await bench.datasets.collect_completions("one", CompletionFilter(metadata={"app": "y"}))
    assert report.considered == 0
    stats = await said.stats(FeedbackFilter(), interval_s=86400)
    assert [(row.model, row.count, row.up, row.down) for row in stats] == [("m", 6, 1, 1)]


async def test_a_deletion_reaches_everything(bench: Bench) -> None:
    said = feedback_of(bench)
    gone, kept = called(bench, "secret question", "secret answer"), called(bench, "other", "fine")
    for trace_id in (gone, kept):
        await said.create(DEFAULT_PROJECT, trace_id, Opinion(rating="up"))
    one = await bench.datasets.create("one", shares=(0.0, 0.0))
    await bench.datasets.collect_feedback("one")
    file = await bench.datasets.export_file("one", split="train")
    held = {row.content["messages"][0]["content"]: row.row_id for row in await rows_of(bench)}
    async with bench.database.write() as session:
        session.add(
            TuningJob(id="ftjob-1", project_id=DEFAULT_PROJECT, model="m", training_file=file.id, method={}, resolved={}, seed=1,
                      result_files=[], meta={}, status="succeeded")
        )  # fmt: skip
        for name, base, job in (("ft:one", "m", "ftjob-1"), ("ft:two", "ft:one", None), ("ft:else", "m", None)):
            session.add(TunedModel(project_id=DEFAULT_PROJECT, id=name, base_model=base, kind="lora", tuning_job_id=job,
                                   folder="f", sha256="s", detail={}, marks=[]))  # fmt: skip
        session.add(EvalTable(id="eval_1", project_id=DEFAULT_PROJECT, data_source_config={}, testing_criteria=[], meta={}))
        await session.flush()
        source = {"type": "completions", "source": {"type": "noria_dataset", "dataset": one.id, "version": 1}}
        session.add(EvalRun(id="evalrun_1", project_id=DEFAULT_PROJECT, eval_id="eval_1", model="ft:one", data_source=source,
                            result_counts={}, per_criterion=[], usage=[], statistics={}, options={}, meta={}))  # fmt: skip
        await session.flush()
        session.add(EvalItem(id="item_1", project_id=DEFAULT_PROJECT, run_id="evalrun_1", position=0, status="pass",
                             row_id=held["secret question"], datasource_item={"input": "secret question"},
                             sample={"output": "secret"}, results=[], trace_id="e" * 32))  # fmt: skip
    lineage = Lineage(bench.database, bench.tracing.store)
    forward = await lineage.walk(DEFAULT_PROJECT, gone, direction="forward")
    assert {"ft:one", "evalrun_1", "ftjob-1", file.id, f"{one.id}@1"} <= set(forward.nodes)
    back = await lineage.walk(DEFAULT_PROJECT, "ft:two", direction="back")
    assert {gone, kept, "ft:one", "ftjob-1"} <= set(back.nodes)

    erased = await bench.datasets.eraser.erase(Gone(DEFAULT_PROJECT, "trace", [gone]))
    assert (erased.feedback, erased.rows, erased.files, erased.eval_traces) == (1, 1, [file.id], ["e" * 32])
    assert sorted(erased.models) == ["ft:one", "ft:two"]
    assert [row.content["messages"][0]["content"] for row in await rows_of(bench, version=1)] == ["other"]
    version = await bench.datasets.version("one")
    assert (version.number, version.origin["kind"], version.counts["total"]) == (2, "deletion", 1)
    assert not await bench.blobs.exists(file.sha256)
    async with bench.database.read() as session:
        item = await session.get_one(EvalItem, "item_1")
        assert (item.datasource_item, item.sample, item.status) == ({"erased": True}, None, "pass")
        assert [row.trace_id for row in await session.scalars(select(Feedback))] == [kept]
    assert not await bench.datasets.eraser.touches(Gone(DEFAULT_PROJECT, "trace", [gone]))
    again = await bench.datasets.eraser.erase(Gone(DEFAULT_PROJECT, "trace", [gone]))
    assert (again.rows, (await bench.datasets.version("one")).number) == (0, 2)
    assert gone not in (await lineage.walk(DEFAULT_PROJECT, "ft:one", direction="back")).nodes


@pytest.mark.parametrize("format", ["noria", "openai", "alpaca", "sharegpt", "csv"])
async def test_a_deletion_reaches_the_copies_in_other_datasets(bench: Bench, format: Format) -> None:
    gone, _ = called(bench, "secret", "an answer"), called(bench, "other", "fine")
    bench.tracing.flush()
    for name in ("one", "two", "three"):
        await bench.datasets.create(name, shares=(0.0, 0.0))
    await bench.datasets.collect_traces("one", TraceFilter())
    first = await bench.datasets.export_file("one", format=format)
    await bench.datasets.import_file("two", first)
    second = await bench.datasets.export_file("two", format="openai")
    loaded = File(id="file-up", project_id=DEFAULT_PROJECT, filename="up.jsonl", purpose="fine-tune", bytes=second.bytes,
                  sha256=second.sha256)  # fmt: skip
    async with bench.database.write() as session:
        session.add(loaded)  # downloaded, and uploaded again
    await bench.datasets.import_file("three", loaded)
    two = await bench.datasets.get("two")
    held = {row.content["messages"][0]["content"]: row.row_id for row in await rows_of(bench, "two")}
    assert gone in {source.get("trace_id") for source in await bench.datasets.sources(two, held["secret"])}

    erased = await bench.datasets.eraser.erase(Gone(DEFAULT_PROJECT, "trace", [gone]))
    assert (erased.rows, sorted(erased.files)) == (3, sorted([first.id, second.id]))
    for name in ("one", "two", "three"):
        assert [row.content["messages"][0]["content"] for row in await rows_of(bench, name)] == ["other"]
        assert [row.content["messages"][0]["content"] for row in await rows_of(bench, name, 1)] == ["other"]


async def test_a_deletion_follows_copies_that_know_only_their_file(bench: Bench) -> None:
    gone = called(bench, "secret", "an answer")
    bench.tracing.flush()
    await bench.datasets.create("one")
    await bench.datasets.create("two")
    await bench.datasets.collect_traces("one", TraceFilter())
    file = await bench.datasets.export_file("one")
    (row,) = await rows_of(bench, "one")
    await bench.datasets.add("two", [NewRow(row.content, (Source(file_id=file.id),))])
    assert (await bench.datasets.eraser.erase(Gone(DEFAULT_PROJECT, "trace", [gone]))).rows == 2
    assert await rows_of(bench, "two") == []


def opinion(**said: Any) -> Feedback:
    return Feedback(
        id="fb", rating=said.get("rating"), score=said.get("score"), label=said.get("label"), correction=said.get("correction")
    )


ANSWERED = Answer("m", None, [{"role": "user", "content": "q"}], {"role": "assistant", "content": "a"})
RIGHT = {"role": "assistant", "content": "right"}


@pytest.mark.parametrize(
    ("said", "policy", "expected"),
    [
        ([{"rating": 1}], {}, {"expected": ANSWERED.output}),
        ([{"rating": 1}, {"rating": -1}], {}, "ratings_disagree"),
        ([{"rating": -1}], {}, "nothing_expected"),
        ([{"rating": 1}], {"thumbs_up": False}, "nothing_expected"),
        ([{"correction": RIGHT}], {}, {"expected": RIGHT}),
        ([{"correction": RIGHT}, {"rating": -1}], {}, {"expected": RIGHT, "chosen": RIGHT, "rejected": ANSWERED.output}),
        ([{"correction": RIGHT}, {"rating": -1}], {"pairs": False}, {"expected": RIGHT}),
        ([{"correction": ANSWERED.output, "rating": -1}], {}, {"expected": ANSWERED.output}),
        ([{"correction": RIGHT}], {"corrections": False}, "nothing_expected"),
        ([{"label": "x"}], {}, "nothing_expected"),
        ([{"label": "x", "rating": 1}], {}, {"expected": ANSWERED.output, "label": "x"}),
        ([{"label": "x"}] * 2 + [{"label": "y"}], {"label_as_expected": True},
         {"expected": {"role": "assistant", "content": "x"}, "label": "x"}),
        ([{"label": "x"}] * 2 + [{"label": "y"}], {"label_as_expected": True, "min_agreement": 0.7}, "labels_disagree"),
        ([{"label": "x"}, {"label": "y"}], {"label_as_expected": True, "min_agreement": 0.0}, "labels_disagree"),
        ([{"score": 0.9}, {"score": 0.5}], {"min_score": 0.7}, {"expected": ANSWERED.output}),
        ([{"score": 0.9, "rating": -1}], {"min_score": 0.7}, "nothing_expected"),
        ([{"score": 0.9}], {}, "nothing_expected"),
    ],
)  # fmt: skip
def test_what_counts_as_good(said: list[dict[str, Any]], policy: dict[str, Any], expected: Any) -> None:
    assert judge([opinion(**each) for each in said], ANSWERED, FeedbackPolicy(**policy)) == expected


def test_an_answer_that_failed_is_nothing_to_expect() -> None:
    failed = Answer("m", None, ANSWERED.messages, None)
    assert judge([opinion(rating=1)], failed, FeedbackPolicy()) == "no_answer"
    assert judge([opinion(rating=-1, correction=RIGHT)], failed, FeedbackPolicy()) == {"expected": RIGHT}
