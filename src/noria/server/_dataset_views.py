"""Datasets, versions, rows and findings as the API shows them, and the bodies that it takes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from noria.errors import InvalidRequest
from noria.evals import Collect, FeedbackFilter
from noria.evals.datasets import CompletionFilter, CurationPolicy, FeedbackPolicy, FindingKind, Report, Row
from noria.fields import Many
from noria.store import Dataset, DatasetFinding, DatasetVersion
from noria.tracing import TraceFilter

from ._chat_bodies import Body

__all__ = [
    "AddRowsBody",
    "CollectBody",
    "CreateDatasetBody",
    "CurateBody",
    "DecideBody",
    "DecideManyBody",
    "ExportFileBody",
    "ImportBody",
    "RowBody",
    "UpdateDatasetBody",
    "show_dataset",
    "show_finding",
    "show_report",
    "show_row",
    "show_version",
]

Kind = FindingKind
Share = Field(default=0.1, ge=0, le=1)
DecisionWord = Literal["accepted", "rejected", "open"]


class CreateDatasetBody(Body):
    """POST /v1/noria/datasets. The shares hold for good: rows are put into splits by them."""

    name: str = Field(min_length=1, max_length=128)
    description: str = Field(default="", max_length=4000)
    metadata: dict[str, Any] | None = None
    validation_share: float = Share
    test_share: float = Share


class UpdateDatasetBody(Body):
    """POST /v1/noria/datasets/{dataset}."""

    name: str | None = Field(default=None, min_length=1, max_length=128)
    description: str | None = Field(default=None, max_length=4000)
    metadata: dict[str, Any] | None = None
    validation_share: float | None = Field(default=None, ge=0, le=1)
    test_share: float | None = Field(default=None, ge=0, le=1)


class RowBody(Body):
    """A row. An answer is a text or an assistant's message."""

    messages: Many[dict[str, Any]] = Field(min_length=1)
    tools: Many[dict[str, Any]] | None = None
    expected: str | dict[str, Any] | None = None
    chosen: str | dict[str, Any] | None = None
    rejected: str | dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class AddRowsBody(Body):
    """POST /v1/noria/datasets/{dataset}/rows: a new version with these rows, and without those in `remove`."""

    rows: Many[RowBody] = Field(default_factory=list[RowBody], max_length=10_000)
    remove: Many[str] = Field(default_factory=list[str], max_length=10_000)
    note: str = Field(default="", max_length=4000)


class ImportBody(Body):
    """POST /v1/noria/datasets/{dataset}/import as JSON: a file of /v1/files."""

    file_id: str = Field(max_length=64)
    format: Literal["auto", "noria", "openai", "dpo", "alpaca", "sharegpt", "csv", "parquet"] = "auto"
    strict: bool = Field(default=False, description="Nothing goes in where a line is wrong.")
    note: str = Field(default="", max_length=4000)


class TracesFilterBody(Body):
    """The filters of GET /v1/noria/traces."""

    from_: float | None = Field(default=None, alias="from", ge=0, lt=2**33)
    to: float | None = Field(default=None, ge=0, lt=2**33)
    model: str | None = None
    key_id: str | None = None
    status: Literal["ok", "error"] | None = None
    name: str | None = None
    service: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    min_latency_s: float | None = Field(default=None, ge=0, le=1e9)
    max_latency_s: float | None = Field(default=None, ge=0, le=1e9)
    min_cost_usd: float | None = Field(default=None, ge=0, le=1e12)
    max_cost_usd: float | None = Field(default=None, ge=0, le=1e12)
    min_tokens: int | None = Field(default=None, ge=0, le=2**53)
    max_tokens: int | None = Field(default=None, ge=0, le=2**53)
    text: str | None = Field(default=None, max_length=1000)
    prompt: str | None = Field(default=None, max_length=256)
    prompt_version: int | None = Field(default=None, ge=1, le=10**9)
    metadata: dict[str, str] = Field(default_factory=dict[str, str])

    def to_filter(self, project_id: str) -> TraceFilter:
        given = self.model_dump(exclude={"from_", "to"})
        since, until = (None if value is None else int(value * 1e9) for value in (self.from_, self.to))
        return TraceFilter(project=project_id, from_ns=since, to_ns=until, **given)


class FeedbackFilterBody(Body):
    """The filters of GET /v1/noria/feedback."""

    from_: float | None = Field(default=None, alias="from", ge=0, lt=2**33)
    to: float | None = Field(default=None, ge=0, lt=2**33)
    target: str | None = None
    trace_id: str | None = None
    models: Many[str] = Field(default_factory=list[str], max_length=256)
    label: str | None = None
    rating: Literal["up", "down"] | None = None
    author: str | None = None
    source: Literal["api", "cli", "console", "import"] | None = None
    corrected: bool | None = None

    def to_filter(self) -> FeedbackFilter:
        return FeedbackFilter(since=self.from_, until=self.to, **self.model_dump(exclude={"from_", "to"}))


class CompletionsFilterBody(Body):
    """Which stored completions."""

    from_: float | None = Field(default=None, alias="from", ge=0, lt=2**33)
    to: float | None = Field(default=None, ge=0, lt=2**33)
    model: str | None = None
    metadata: dict[str, str] | None = None

    def to_filter(self) -> CompletionFilter:
        return CompletionFilter(self.model, self.metadata, self.from_, self.to)


class PolicyBody(Body):
    """What counts as good in feedback."""

    thumbs_up: bool = True
    corrections: bool = True
    label_as_expected: bool = False
    pairs: bool = True
    min_score: float | None = None
    min_agreement: float = Field(default=0.5, ge=0, le=1)


class CollectBody(Body):
    """POST /v1/noria/datasets/{dataset}/collect: exactly one of `feedback`, `traces` and `completions`, each with its filters."""

    feedback: FeedbackFilterBody | None = None
    traces: TracesFilterBody | None = None
    completions: CompletionsFilterBody | None = None
    policy: PolicyBody = Field(default_factory=PolicyBody)
    expect: Literal["answer", "nothing"] = Field(
        default="answer", description="Of traces and completions: whether the answer given is the one expected."
    )
    note: str = Field(default="", max_length=4000)
    background: bool | None = Field(default=None, description="As a job, or while you wait; default: by how much there is.")

    @property
    def reads_traces(self) -> bool:
        """Whether what traces say goes into rows: what was answered, of feedback too, is read there."""
        return self.traces is not None or self.feedback is not None

    def to_collect(self, project_id: str) -> Collect:
        if sum(given is not None for given in (self.feedback, self.traces, self.completions)) != 1:
            raise InvalidRequest("Give exactly one of feedback, traces and completions.", param="feedback")
        return Collect(
            feedback=self.feedback.to_filter() if self.feedback else None,
            traces=self.traces.to_filter(project_id) if self.traces else None,
            completions=self.completions.to_filter() if self.completions else None,
            policy=FeedbackPolicy(**self.policy.model_dump()),
            expect=self.expect,
        )


class CurateBody(Body):
    """POST /v1/noria/datasets/{dataset}/curate."""

    version: int | None = Field(default=None, ge=1)
    kinds: Many[Kind] | None = Field(default=None, description="What to look for; default: everything.")
    near: float = Field(default=0.85, gt=0.5, le=1, description="Jaccard similarity from which inputs are nearly the same.")
    max_characters: int = Field(default=32_000, ge=1)
    accept: Many[Kind] = Field(default_factory=list[Kind], description="Kinds that are accepted and applied at once.")
    background: bool | None = None

    def to_policy(self) -> CurationPolicy:
        policy = CurationPolicy(near=self.near, max_characters=self.max_characters, accept=frozenset(self.accept))
        kinds = policy.kinds if self.kinds is None else frozenset(self.kinds)
        return CurationPolicy(kinds | policy.accept, policy.near, policy.max_characters, policy.accept)


class DecideBody(Body):
    """POST /v1/noria/datasets/{dataset}/findings/{finding}."""

    decision: DecisionWord
    by: str | None = Field(default=None, max_length=256)


class DecideManyBody(DecideBody):
    """POST /v1/noria/datasets/{dataset}/findings: decides all that match."""

    version: int | None = Field(default=None, ge=1)
    kind: Kind | None = None
    current: DecisionWord | None = Field(default="open", description="Only those decided so far like this; null: all.")


class ExportFileBody(Body):
    """POST /v1/noria/datasets/{dataset}/export: as a file of /v1/files, for training."""

    version: int | None = Field(default=None, ge=1)
    split: Literal["train", "validation", "test"] | None = None
    format: Literal["noria", "openai", "dpo", "alpaca", "sharegpt", "csv", "parquet"] = "openai"


def show_dataset(row: Dataset) -> dict[str, Any]:
    return {
        "object": "noria.dataset",
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "metadata": row.meta,
        "head": row.head,
        "validation_share": row.validation_share,
        "test_share": row.test_share,
        "created_at": row.created_at,
    }


def show_version(row: DatasetVersion) -> dict[str, Any]:
    return {
        "object": "noria.dataset.version",
        "id": f"{row.dataset_id}@{row.number}",
        "dataset_id": row.dataset_id,
        "version": row.number,
        "origin": row.origin,
        "counts": row.counts,
        "digest": row.digest,
        "note": row.note,
        "created_at": row.created_at,
    }


def show_row(row: Row) -> dict[str, Any]:
    return {"object": "noria.dataset.row", "id": row.row_id, "split": row.split, "added_in": row.added_in, **row.content}


def show_finding(row: DatasetFinding) -> dict[str, Any]:
    return {
        "object": "noria.dataset.finding",
        "id": row.id,
        "dataset_id": row.dataset_id,
        "version": row.version,
        "kind": row.kind,
        "row_ids": row.row_ids,
        "remove_ids": row.remove_ids,
        "detail": {key: value for key, value in row.detail.items() if key != "key"},
        "decision": row.decision,
        "decided_by": row.decided_by,
        "decided_at": row.decided_at,
        "created_at": row.created_at,
    }


def show_report(report: Report, dataset: Dataset) -> dict[str, Any]:
    return {"object": "noria.dataset.addition", "dataset_id": dataset.id, "job": None, **report.to_dict()}
