"""Findings kept: made by curation, decided by a person or a policy, applied as a new version.

A finding that was rejected once is not made again for the same rows.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import delete, func, insert, select, update

from noria.errors import NotFound
from noria.store import Cursor, Database, Dataset, DatasetFinding, DatasetVersion, Page, new_id, page

from ._curation import CurationPolicy, Digest, Finding, digest_of, find
from ._progress import Report, Told
from ._versions import PLAIN, Published, Row, Versions, chunks

__all__ = ["Curation", "Decision", "FindingFilter", "Findings"]

Decision = Literal["open", "accepted", "rejected"]
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Curation:
    """What a look at a version came to. `version` is the newest one: another than was looked at where findings were applied."""

    looked_at: int
    version: DatasetVersion
    rows: int
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    removed: int = 0


@dataclass(frozen=True, slots=True)
class FindingFilter:
    version: int | None = None
    kind: str | None = None
    decision: Decision | None = None

    def apply(self, query: Any, dataset_id: str) -> Any:
        query = query.where(DatasetFinding.dataset_id == dataset_id)
        for name in ("version", "kind", "decision"):
            if (value := getattr(self, name)) is not None:
                query = query.where(getattr(DatasetFinding, name) == value)
        return query


class Findings:
    def __init__(self, database: Database, versions: Versions) -> None:
        self._database, self._versions = database, versions

    async def curate(self, dataset: Dataset, number: int, policy: CurationPolicy, report: Report, told: Told) -> Curation:
        """Looks at a version and keeps what is found; what the policy accepts is applied."""
        rows: list[Digest] = []
        async for batch in self._versions.batches(dataset.id, number):
            weights = await self._versions.weigh(dataset.id, batch) if "contradiction" in policy.kinds else {}
            rows += await asyncio.to_thread(_digests, batch, policy, weights)
            report.considered = len(rows)
            await told(report)
        found = await asyncio.to_thread(find, rows, policy)
        found = await self._keep(dataset.id, number, found, policy)
        counts = Counter(finding.kind for finding in found)
        published = None
        if policy.accept:
            published = await self.apply(dataset, number)
        version = published.version if published and published.version else await self._versions.get(dataset)
        return Curation(number, version, len(rows), dict(counts), published.removed if published else 0)

    async def _keep(self, dataset_id: str, number: int, found: Sequence[Finding], policy: CurationPolicy) -> list[Finding]:
        here = (DatasetFinding.dataset_id == dataset_id, DatasetFinding.kind.in_(policy.kinds))
        async with self._database.read() as session:
            query = select(DatasetFinding.detail).where(*here, DatasetFinding.decision == "rejected")
            rejected = {detail.get("key") for detail in await session.scalars(query)}
        kept = [(finding, key) for finding in found if (key := _key(finding)) not in rejected]
        now = int(time.time())
        rows = [
            {
                "id": new_id("finding_"),
                "dataset_id": dataset_id,
                "version": number,
                "kind": finding.kind,
                "row_ids": finding.row_ids,
                "remove_ids": finding.remove_ids,
                "detail": {**finding.detail, "key": key},
                "decision": "accepted" if finding.kind in policy.accept else "open",
                "decided_by": "policy" if finding.kind in policy.accept else None,
                "decided_at": now if finding.kind in policy.accept else None,
                "created_at": now,
            }
            for finding, key in kept
        ]
        async with self._database.write() as session:  # a look again replaces what nobody has decided
            undecided = (DatasetFinding.version == number, DatasetFinding.decision == "open")
            await session.execute(delete(DatasetFinding).where(*here, *undecided).execution_options(**PLAIN))
        for chunk in chunks(rows, _CHUNK):
            async with self._database.write() as session:
                await session.execute(insert(DatasetFinding), list(chunk))
        return [finding for finding, _ in kept]

    async def apply(self, dataset: Dataset, number: int | None = None) -> Published:
        """Makes a version without the rows that accepted findings (of a version, or of all) remove."""
        query = FindingFilter(number, decision="accepted").apply(select(DatasetFinding), dataset.id)
        async with self._database.read() as session:
            accepted = list(await session.scalars(query))
        remove = {row_id for finding in accepted for row_id in finding.remove_ids}
        kinds = Counter(finding.kind for finding in accepted if finding.remove_ids)
        origin = {"kind": "curation", "looked_at": number, "findings": dict(kinds)}
        return await self._versions.publish(self._versions.begin(dataset), origin, remove=remove)

    async def get(self, dataset: Dataset, finding_id: str) -> DatasetFinding:
        """Raises NotFound."""
        async with self._database.read() as session:
            row = await session.get(DatasetFinding, finding_id)
        if row is None or row.dataset_id != dataset.id:
            raise NotFound(f"No finding {finding_id!r} in {dataset.name}.", param="finding_id")
        return row

    async def list(self, dataset: Dataset, wanted: FindingFilter, cursor: Cursor) -> Page[DatasetFinding]:
        async with self._database.read() as session:
            return await page(session, wanted.apply(select(DatasetFinding), dataset.id), DatasetFinding.id, cursor)

    async def counts(self, dataset: Dataset, number: int | None = None) -> dict[str, dict[str, int]]:
        """How many findings there are, by kind and decision."""
        query = FindingFilter(number).apply(select(DatasetFinding.kind, DatasetFinding.decision, func.count()), dataset.id)
        found: dict[str, dict[str, int]] = {}
        async with self._database.read() as session:
            counted: Any = await session.execute(query.group_by(DatasetFinding.kind, DatasetFinding.decision))
            for kind, decision, count in counted:
                found.setdefault(kind, {})[decision] = count
        return found

    async def decide(self, dataset: Dataset, finding_id: str, decision: Decision, by: str | None) -> DatasetFinding:
        """Raises NotFound."""
        await self.get(dataset, finding_id)
        async with self._database.write() as session:
            row = await session.get_one(DatasetFinding, finding_id)
            row.decision, row.decided_by = decision, by
            row.decided_at = None if decision == "open" else int(time.time())
        return row

    async def decide_all(self, dataset: Dataset, wanted: FindingFilter, decision: Decision, by: str | None) -> int:
        """Decides every finding that matches; how many there were."""
        at = None if decision == "open" else int(time.time())
        ids = wanted.apply(select(DatasetFinding.id), dataset.id)
        async with self._database.write() as session:
            values = {"decision": decision, "decided_by": by, "decided_at": at}
            statement = update(DatasetFinding).where(DatasetFinding.id.in_(ids)).values(values).returning(DatasetFinding.id)
            return len((await session.execute(statement.execution_options(**PLAIN))).all())


def _digests(batch: Sequence[Row], policy: CurationPolicy, weights: Mapping[str, int]) -> list[Digest]:
    return [digest_of(row, policy, weights.get(row.row_id, 1)) for row in batch]


def _key(finding: Finding) -> str:
    named = "\0".join((finding.kind, *sorted(finding.row_ids), str(finding.detail.get("split", ""))))
    return hashlib.sha256(named.encode()).hexdigest()[:32]
