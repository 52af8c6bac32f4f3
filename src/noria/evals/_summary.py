"""What a run's outcomes come to: counts, usage by model, results by criterion, intervals, confusion, and whether it may gate."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from noria.store import Database, EvalItem, EvalRun

from ._calibration import standing
from ._outcomes import shown
from ._statistics import confusion, mean_interval, wilson
from ._templates import MissingVariable, look_up

__all__ = ["items_of", "summarise"]

_PIECE = 500
_MOST_LABELS = 50


async def items_of(database: Database, run_id: str, *columns: Any) -> AsyncIterator[Any]:
    """Chosen columns of a run's items, by position; few rows are held at a time."""
    after = -1
    while True:
        query = select(EvalItem.position, *columns).where(EvalItem.run_id == run_id, EvalItem.position > after)
        async with database.read() as session:
            rows = (await session.execute(query.order_by(EvalItem.position).limit(_PIECE))).all()
        for row in rows:
            yield row
        if len(rows) < _PIECE:
            return
        after = rows[-1].position


@dataclass(slots=True)
class _Criterion:
    type: str
    scores: list[float] = field(default_factory=list[float])
    clusters: list[Hashable] = field(default_factory=list[Hashable])
    passed: int = 0
    failed: int = 0
    errored: int = 0
    expected: list[str] = field(default_factory=list[str])
    given: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class _Sums:
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    criteria: dict[str, _Criterion] = field(default_factory=dict[str, _Criterion])
    usage: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    passes: list[float] = field(default_factory=list[float])
    clusters: list[Hashable] = field(default_factory=list[Hashable])

    def use(self, sample: Mapping[str, Any] | None) -> None:
        """Adds one call's tokens; a multi grader's calls are listed inside."""
        if not sample:
            return
        for inner in (sample.get("graders") or {}).values():
            self.use(inner)
        usage: Mapping[str, int] = sample.get("usage") or {}
        if not usage.get("total_tokens") or not sample.get("model"):
            return
        names = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens")
        sums = self.usage.setdefault(str(sample["model"]), {"invocation_count": 0, **dict.fromkeys(names, 0)})
        sums["invocation_count"] += 1
        for name in names:
            sums[name] += int(usage.get(name) or 0)

    def add(self, status: str, results: Sequence[Mapping[str, Any]], cluster: Hashable) -> None:
        self.counts[status] += 1
        self.passes.append(1.0 if status == "pass" else 0.0)
        self.clusters.append(cluster)
        for result in results:
            criterion = self.criteria.setdefault(str(result["name"]), _Criterion(str(result.get("type"))))
            if result.get("error"):
                criterion.errored += 1
                continue
            criterion.passed += bool(result["passed"])
            criterion.failed += not result["passed"]
            criterion.scores.append(float(result["score"]))
            criterion.clusters.append(cluster)
            detail = result.get("noria") or {}
            if "reference" in detail:
                criterion.expected.append(detail["reference"])
                criterion.given.append(detail["input"])


async def summarise(database: Database, run: EvalRun, criteria: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The values of a run's columns that its items decide."""
    path = run.options.get("cluster")
    sums = _Sums()
    columns = (EvalItem.status, EvalItem.results, EvalItem.sample, *((EvalItem.datasource_item,) if path else ()))
    async for item in items_of(database, run.id, *columns):
        sums.use(item.sample)
        for result in item.results:
            sums.use(result.get("sample"))
        sums.add(item.status, item.results, _cluster(path, item.datasource_item) if path else None)
    judges = await standing(database, run.project_id, criteria)
    statistics = await asyncio.to_thread(_statistics, sums, criteria, bool(path))
    uncalibrated = [name for name, facts in judges.items() if not facts["calibrated"]]
    return {
        "result_counts": shown(sums.counts),
        "per_criterion": [
            {"testing_criteria": name, "passed": found.passed, "failed": found.failed, "errored": found.errored}
            for name, found in sums.criteria.items()
        ],
        "usage": [{"model_name": model, **usage} for model, usage in sums.usage.items()],
        "statistics": {**statistics, "judges": judges, "can_gate": not uncalibrated, "uncalibrated": uncalibrated},
    }


def _cluster(path: str, item: Mapping[str, Any]) -> Hashable:
    try:
        return str(look_up(path, {"item": item}))
    except MissingVariable:
        return None


def _statistics(sums: _Sums, criteria: Sequence[Mapping[str, Any]], clustered: bool) -> dict[str, Any]:
    labelled = {
        str(each.get("name")) for each in criteria if each.get("type") == "string_check" and each.get("operation") == "eq"
    }
    found: dict[str, Any] = {"confidence": 0.95, "pass_rate": _share(sums.passes, sums.clusters, clustered), "criteria": {}}
    for name, criterion in sums.criteria.items():
        passes = [1.0] * criterion.passed + [0.0] * criterion.failed
        entry: dict[str, Any] = {
            "type": criterion.type,
            "pass_rate": wilson(criterion.passed, len(passes)).to_dict(),
            "score": mean_interval(criterion.scores, criterion.clusters if clustered else None).to_dict(),
            "errored": criterion.errored,
        }
        whole = len(criterion.expected) == len(criterion.scores)
        if name in labelled and whole and 2 <= len(set(criterion.expected)) <= _MOST_LABELS:
            entry["classification"] = confusion(criterion.expected, criterion.given)
        found["criteria"][name] = entry
    return found


def _share(passes: list[float], clusters: list[Hashable], clustered: bool) -> dict[str, Any]:
    if clustered:
        return mean_interval(passes, clusters).to_dict()
    return wilson(round(sum(passes)), len(passes)).to_dict()
