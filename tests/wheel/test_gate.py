"""The gate's verdict on what was compared."""

from __future__ import annotations

from noria.wheel import Comparison
from noria.wheel._gate import decide
from noria.wheel._spec import Gate

GATE = Gate.model_validate(
    {"graders": [{"type": "string_check", "name": "exact", "operation": "eq", "input": "a", "reference": "b"}], "min_rows": 20}
)


def compared(rows: int, unanswered: int = 0) -> Comparison:
    return Comparison("exact", rows, 20, 2, rows - 22, 0.4, 0.8, 0.4, 0.2, 0.6, 1e-4, "mcnemar_exact", True, unanswered)


def test_a_base_that_could_not_answer_makes_no_fair_comparison() -> None:
    assert decide(GATE, [compared(60)], forgetting=None).passed
    assert decide(GATE, [compared(58, 2)], forgetting=None).passed
    refused = decide(GATE, [compared(45, 15)], forgetting=None)
    assert not refused.passed
    assert "15 of 60 rows" in refused.why
