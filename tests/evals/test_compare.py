"""Two runs on the same rows where some rows could not be answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from noria.evals._compare import compare
from noria.store import DEFAULT_PROJECT, Database, Eval, EvalItem, EvalRun


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(f"sqlite:///{tmp_path}/noria.db")
    async with database.write() as session:
        session.add(Eval(id="eval_1", project_id=DEFAULT_PROJECT, data_source_config={}, testing_criteria=[], meta={}))
    yield database
    await database.aclose()


async def run(database: Database, name: str, scores: Sequence[float | None], passing: float = 0.5) -> EvalRun:
    """An ended run; None is a row that could not be answered."""
    empty = {"per_criterion": [], "usage": [], "data_source": {}, "result_counts": {}, "options": {}, "meta": {}}
    made = EvalRun(
        id=name, project_id=DEFAULT_PROJECT, eval_id="eval_1", status="completed", statistics={"can_gate": True}, **empty
    )
    async with database.write() as session:
        session.add(made)
        await session.flush()
        for position, score in enumerate(scores):
            result = {"name": "grade", "score": score or 0.0, "passed": (score or 0.0) >= passing}
            session.add(
                EvalItem(
                    id=f"{name}-{position}",
                    project_id=DEFAULT_PROJECT,
                    run_id=name,
                    position=position,
                    row_id=f"row-{position}",
                    datasource_item={},
                    sample={},
                    results=[] if score is None else [result],
                    status="error" if score is None else "pass" if result["passed"] else "fail",
                )
            )
    return made


async def test_the_first_runs_accidents_are_no_gain_where_they_are_left_out(database: Database) -> None:
    same = [1.0] * 60
    first, second = await run(database, "a", [None] * 15 + same[15:]), await run(database, "b", same)
    counted = await compare(database, first, second, None)
    assert (counted.count("win"), len(counted.pairs)) == (15, 60)
    fair = await compare(database, first, second, None, answered_by_a=True)
    assert (fair.count("win"), len(fair.pairs), fair.left_out, fair.only_b) == (0, 45, 15, 0)
    assert fair.passes.p_value == 1.0


async def test_a_row_without_an_answer_has_the_lowest_score(database: Database) -> None:
    first = await run(database, "a", [0.5] * 50)
    second = await run(database, "b", [0.9] * 10 + [None] * 40)
    found = await compare(database, first, second, "grade")
    assert found.scores is not None
    assert found.scores.difference.estimate == pytest.approx(10 / 50 * 0.4 - 40 / 50 * 0.5)
    assert found.passes.difference.estimate == pytest.approx(-40 / 50)
