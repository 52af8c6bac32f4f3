"""Feedback as rows of a wheel's dataset: collected, curated by the policy, written out for training.

Whatever it is asked again after a crash comes to the same: rows are known by their content, versions by their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import func, select

from noria.errors import Conflict, NotFound
from noria.evals import FeedbackFilter
from noria.evals.datasets import (
    CurationPolicy,
    Datasets,
    FeedbackPolicy,
    Fill,
    Format,
    alive,
    input_media,
    split_key,
)
from noria.store import Database, Dataset, DatasetFinding, DatasetRow

from ._parts import Collected, CollectOrder, Curated, Split
from ._spec import Data, WheelSpec

__all__ = ["DatasetRows"]

_KINDS: dict[str, str] = {
    "exact_duplicate": "exact_duplicates",
    "near_duplicate": "near_duplicates",
    "contradiction": "contradictions",
    "leakage": "leakage",
    "personal_data": "personal_data",
    "oversize": "oversize",
}
"""Curation's kinds, and the field of the specification that says what to do with each."""


class DatasetRows:
    def __init__(self, database: Database, datasets: Datasets) -> None:
        self._database, self._datasets = database, datasets

    async def prepare(self, project_id: str, spec: WheelSpec) -> str:
        """The wheel's dataset, of its own name: made, or the one of an earlier wheel of that name. Raises Conflict."""
        shares = (spec.data.validation_share, spec.data.test_share)
        description = f"Feedback on {spec.route}, collected by the wheel {spec.name}."
        try:
            dataset = await self._datasets.create(spec.name, project_id=project_id, description=description, shares=shares)
        except Conflict:
            dataset = await self.check_shares(project_id, spec, spec.name)
        return dataset.id

    async def check_shares(self, project_id: str, spec: WheelSpec, dataset_id: str) -> Dataset:
        """The wheel's dataset, by id or name. Raises NotFound, or Conflict where its shares are not those asked for."""
        dataset = await self._datasets.get(dataset_id, project_id)
        if (dataset.validation_share, dataset.test_share) != (spec.data.validation_share, spec.data.test_share):
            raise Conflict(
                f"The dataset {dataset.name!r} is there with other shares ({dataset.validation_share:g} for validation, "
                f"{dataset.test_share:g} for test).",
                param="data.test_share",
                hint="A dataset's shares hold for good: give the wheel the same, or make one of another name.",
            )
        return dataset

    # --- collect ------------------------------------------------------------------------------------------------------

    async def collect(self, order: CollectOrder) -> Collected:
        good, since = order.spec.good, order.since
        if (days := order.spec.traffic.since_days) is not None:
            since = max(since or 0.0, order.until - days * 86400)
        policy = FeedbackPolicy(
            thumbs_up=good.thumbs_up,
            corrections=good.corrections,
            label_as_expected=good.labels,
            pairs=order.spec.train.method == "dpo",
            min_agreement=good.min_agreement,
            route=None if order.spec.traffic.models else order.spec.route,
            metadata=order.spec.traffic.metadata,
        )
        report = await self._datasets.collect_feedback(
            order.dataset_id,
            FeedbackFilter(models=tuple(order.models)),
            policy,
            since=since,
            until=order.until,
            fill=Fill(note=f"wheel {order.spec.name}", project_id=order.project_id),
        )
        dataset = await self._datasets.get(order.dataset_id, order.project_id)
        new = await self._count_newer(dataset, order.trained)
        return Collected(dataset.id, dataset.head, report.considered, new, dict(report.skipped))

    async def _count_newer(self, dataset: Dataset, trained: int) -> int:
        """Rows of the head that the version trained on last had not."""
        query = select(func.count()).where(
            DatasetRow.dataset_id == dataset.id, DatasetRow.added_in > trained, alive(dataset.head)
        )
        async with self._database.read() as session:
            return int(await session.scalar(query) or 0)

    # --- curate -------------------------------------------------------------------------------------------------------

    async def curate(self, project_id: str, spec: WheelSpec, collected: Collected) -> Curated:
        number, removed = collected.version, Counter[str]()
        if leaked := await self._leaked(project_id, spec, collected):
            origin = {"kind": "curation", "looked_at": collected.version, "findings": {"gate_leakage": len(leaked)}}
            made = await self._datasets.add(collected.dataset_id, [], origin=origin, remove=leaked, project_id=project_id)
            number = made.version.number if made.version else number
            removed["gate_leakage"] = len(leaked)
        handling: dict[str, str] = {kind: getattr(spec.data, name) for kind, name in _KINDS.items()}
        looked_for = frozenset(kind for kind, how in handling.items() if how != "keep")
        policy = CurationPolicy(
            kinds=looked_for,  # type: ignore[arg-type]
            accept=frozenset(kind for kind, how in handling.items() if how == "remove"),  # type: ignore[arg-type]
        )
        found = await self._datasets.curate(collected.dataset_id, number, policy, fill=Fill(project_id=project_id))
        accepted, kept = await self._found(collected.dataset_id, number)
        stopped = tuple(kind for kind, how in handling.items() if how == "stop" and kept.get(kind))
        return Curated(found.version.number, dict(removed + accepted), dict(kept), stopped)

    async def _found(self, dataset_id: str, number: int) -> tuple[Counter[str], Counter[str]]:
        """Rows that accepted findings of a version removed, and findings that are open, by kind."""
        query = select(DatasetFinding.kind, DatasetFinding.decision, DatasetFinding.remove_ids)
        query = query.where(DatasetFinding.dataset_id == dataset_id, DatasetFinding.version == number)
        accepted: dict[str, set[str]] = {}
        kept = Counter[str]()
        async with self._database.read() as session:
            for kind, decision, ids in await session.execute(query):
                if decision == "accepted":
                    accepted.setdefault(kind, set()).update(ids)
                elif decision == "open":
                    kept[kind] += 1
        return Counter({kind: len(ids) for kind, ids in accepted.items()}), kept

    async def _leaked(self, project_id: str, spec: WheelSpec, collected: Collected) -> list[str]:
        """Rows to train on whose question is in the gate's own dataset."""
        if not (tested := await self._tested(project_id, spec)):
            return []
        rows = self._datasets.rows(collected.dataset_id, collected.version, project_id=project_id)
        return [row.row_id async for row in rows if row.split != "test" and _asked(row.content["messages"]) in tested]

    async def _tested(self, project_id: str, spec: WheelSpec) -> set[tuple[str, str]]:
        if spec.gate.dataset is None:
            return set()
        split: Any = spec.gate.split
        rows = self._datasets.rows(spec.gate.dataset, None, split, project_id=project_id)
        return {_asked(row.content["messages"]) async for row in rows}

    # --- split --------------------------------------------------------------------------------------------------------

    async def split(self, project_id: str, spec: WheelSpec, dataset_id: str, version: int) -> Split:
        format: Format = "dpo" if spec.train.method == "dpo" else "openai"
        counts, answers, usable = Counter[str](), set[bytes](), list[str]()
        if version > 0:
            async for row in self._datasets.rows(dataset_id, version, project_id=project_id):
                if not _is_usable(row.content, spec):
                    continue
                counts[row.split] += 1
                if row.split == "train":
                    usable.append(row.row_id)
                    if len(answers) < 2:
                        answers.add(orjson.dumps(row.content.get("expected"), option=orjson.OPT_SORT_KEYS))
        files: dict[str, str | None] = {"train": None, "validation": None}
        if counts["train"] >= spec.data.min_rows:
            newest = _newest(spec.data, usable)
            training = await self._datasets.export_file(
                dataset_id, version, "train", format, project_id=project_id, newest=newest
            )
            files["train"] = training.id
            if counts["validation"]:
                exported = await self._datasets.export_file(dataset_id, version, "validation", format, project_id=project_id)
                files["validation"] = exported.id
        train_rows = min(counts["train"], spec.data.max_rows or counts["train"])
        # Preferences differ by their pair, not by having several answers.
        num_answers = 2 if spec.train.method == "dpo" and train_rows else len(answers)
        return Split(version, train_rows, counts["validation"], counts["test"], num_answers, files["train"], files["validation"])

    async def check_dataset(self, project_id: str, name: str) -> None:
        """Raises NotFound where the gate's dataset is not there or empty."""
        dataset = await self._datasets.get(name, project_id)
        if dataset.head == 0:
            raise NotFound(f"The dataset {name!r} is empty.", param="gate.dataset", hint="Add rows first.")


def _asked(messages: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Equal for questions of the same words about the same images, sounds and files."""
    return split_key(messages), input_media(messages)


def _is_usable(content: dict[str, Any], spec: WheelSpec) -> bool:
    if spec.train.method == "dpo":
        return content.get("chosen") is not None and content.get("rejected") is not None
    return content.get("expected") is not None


def _newest(data: Data, usable: list[str]) -> set[str] | None:
    """The rows to train on where there are more than `max_rows`; rows come in the order in which they were added."""
    if data.max_rows is None or len(usable) <= data.max_rows:
        return None
    return set(usable[-data.max_rows :])
