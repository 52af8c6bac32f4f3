"""The tables of the loop: feedback, datasets, prompts, evals, fine-tuning, the wheel. Each arrow is a foreign key or an id.

From an answer back: `TunedModel.job_id` → `TuningJob.training_file` → `File.origin` → `Dataset` and version → `DatasetRow` →
`RowSource` (feedback, completion, trace). From a trace forward: the same columns the other way, all indexed.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from ._tables import BIG_ID, Base, now

__all__ = [
    "Dataset",
    "DatasetFinding",
    "DatasetRow",
    "DatasetVersion",
    "Eval",
    "EvalItem",
    "EvalRun",
    "Feedback",
    "JudgeAgreement",
    "Prompt",
    "PromptVersion",
    "RowSource",
    "TunedModel",
    "TuningCheckpoint",
    "TuningEvent",
    "TuningJob",
    "Wheel",
    "WheelTurn",
]


class Feedback(Base):
    """What somebody said of an answer. `external_id` makes an import idempotent. `updated_at` is when it was last changed."""

    __tablename__ = "feedback"
    __table_args__ = (UniqueConstraint("project_id", "external_id"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    target_kind: Mapped[str] = mapped_column(String(16))  # trace, span, completion, response
    target_id: Mapped[str] = mapped_column(String(128), index=True)
    trace_id: Mapped[str | None] = mapped_column(String(32), index=True)
    span_id: Mapped[str | None] = mapped_column(String(16))
    model: Mapped[str | None] = mapped_column(String(256), index=True)  # that truly answered, a route's choice resolved
    rating: Mapped[int | None] = mapped_column(Integer)  # 1 up, -1 down
    score: Mapped[float | None] = mapped_column(Float)
    label: Mapped[str | None] = mapped_column(String(256))
    correction: Mapped[dict[str, Any] | None]  # the assistant message it should have been
    comment: Mapped[str | None] = mapped_column(Text)
    author: Mapped[str | None] = mapped_column(String(256))
    source: Mapped[str] = mapped_column(String(16), default="api")  # api, cli, console, import
    external_id: Mapped[str | None] = mapped_column(String(256))
    meta: Mapped[dict[str, Any]]
    created_at: Mapped[int] = mapped_column(BigInteger, default=now, index=True)
    updated_at: Mapped[int] = mapped_column(BigInteger, default=now, index=True)


class Dataset(Base):
    """`head` is the newest version's number, 0 while there is none. The split's shares hold for all of its versions."""

    __tablename__ = "dataset"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    name: Mapped[str] = mapped_column(String(256))
    description: Mapped[str] = mapped_column(Text, default="")
    meta: Mapped[dict[str, Any]]
    head: Mapped[int] = mapped_column(Integer, default=0)
    validation_share: Mapped[float] = mapped_column(Float, default=0.1)
    test_share: Mapped[float] = mapped_column(Float, default=0.1)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class DatasetVersion(Base):
    """A version never changes, save that rows of a deleted trace are erased from all. `digest` covers its rows' ids."""

    __tablename__ = "dataset_version"
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    origin: Mapped[dict[str, Any]]  # {"kind": import | traces | feedback | completions | curation | edit | deletion, …}
    counts: Mapped[dict[str, Any]]  # rows by split
    digest: Mapped[str] = mapped_column(String(64))
    note: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class DatasetRow(Base):
    """A row lives in versions `added_in` ≤ v < `removed_in`. `row_id` is its content's hash; `content` is None once erased.

    A version is prepared in small transactions: until it is published its rows carry the preparer's name in `staged` and an
    `added_in` beyond every version.
    """

    __tablename__ = "dataset_row"
    __table_args__ = (
        Index("ix_dataset_row_order", "dataset_id", "ordinal"),
        Index("ix_dataset_row_id", "dataset_id", "row_id"),
    )
    ordinal: Mapped[int] = mapped_column(BIG_ID, primary_key=True, autoincrement=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id", ondelete="CASCADE"))
    row_id: Mapped[str] = mapped_column(String(64))
    added_in: Mapped[int] = mapped_column(Integer)
    removed_in: Mapped[int | None] = mapped_column(Integer)
    split: Mapped[str] = mapped_column(String(16))  # train, validation, test
    content: Mapped[dict[str, Any] | None]  # messages, tools, expected, chosen, rejected, metadata
    erased_at: Mapped[int | None] = mapped_column(BigInteger)
    staged: Mapped[str | None] = mapped_column(String(64), index=True)


class RowSource(Base):
    """Where a row came from. A row may have several sources: it is erased when one of them is deleted.

    One that was `withdrawn` says something else by now; it stays, since earlier versions hold what it said.
    """

    __tablename__ = "row_source"
    id: Mapped[int] = mapped_column(BIG_ID, primary_key=True, autoincrement=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id", ondelete="CASCADE"))
    row_id: Mapped[str] = mapped_column(String(64), index=True)
    trace_id: Mapped[str | None] = mapped_column(String(32), index=True)
    span_id: Mapped[str | None] = mapped_column(String(16))
    feedback_id: Mapped[str | None] = mapped_column(String(64), index=True)
    completion_id: Mapped[str | None] = mapped_column(String(64), index=True)
    file_id: Mapped[str | None] = mapped_column(String(64), index=True)
    staged: Mapped[str | None] = mapped_column(String(64), index=True)
    withdrawn: Mapped[bool] = mapped_column(Boolean, default=False)


class DatasetFinding(Base):
    """Something that curation found in a version; a person (or the wheel) accepts or rejects it."""

    __tablename__ = "dataset_finding"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id", ondelete="CASCADE"), index=True)
    version: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(String(32), index=True)  # exact_duplicate, near_duplicate, contradiction, leakage, …
    row_ids: Mapped[list[Any]]
    remove_ids: Mapped[list[Any]]  # the rows that accepting it removes
    detail: Mapped[dict[str, Any]]
    decision: Mapped[str] = mapped_column(String(16), default="open")  # open, accepted, rejected
    decided_by: Mapped[str | None] = mapped_column(String(256))
    decided_at: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class Prompt(Base):
    """`labels` maps a label (`production`) to a version's number; `label_moves` says how each came to point there."""

    __tablename__ = "prompt"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    name: Mapped[str] = mapped_column(String(256))
    description: Mapped[str] = mapped_column(Text, default="")
    labels: Mapped[dict[str, Any]]
    label_moves: Mapped[list[Any]]  # {"label", "from", "to", "at", "undo"}, oldest first
    head: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class PromptVersion(Base):
    __tablename__ = "prompt_version"
    prompt_id: Mapped[str] = mapped_column(ForeignKey("prompt.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    template: Mapped[dict[str, Any]]  # noria.prompts.Template
    note: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class Eval(Base):
    __tablename__ = "eval"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    name: Mapped[str] = mapped_column(String(256), default="")
    data_source_config: Mapped[dict[str, Any]]
    testing_criteria: Mapped[list[Any]]
    meta: Mapped[dict[str, Any]]
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class EvalRun(Base):
    __tablename__ = "eval_run"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    eval_id: Mapped[str] = mapped_column(ForeignKey("eval.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(256), default="")
    model: Mapped[str | None] = mapped_column(String(256), index=True)
    data_source: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(String(16), default="queued")  # queued, in_progress, completed, canceled, failed
    num_items: Mapped[int | None] = mapped_column(Integer)
    result_counts: Mapped[dict[str, Any]]
    per_criterion: Mapped[list[Any]]
    usage: Mapped[list[Any]]
    statistics: Mapped[dict[str, Any]]  # intervals by criterion
    plan: Mapped[list[Any] | None]  # the logged calls that are its rows, pinned when it begins
    options: Mapped[dict[str, Any]]  # Noria's own: the prompt's version, the cluster of rows
    error: Mapped[dict[str, Any] | None]
    meta: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)


class EvalItem(Base):
    """One row's outcome. `position` is the row's place in the run, so that a resumed run asks no row twice."""

    __tablename__ = "eval_item"
    __table_args__ = (UniqueConstraint("run_id", "position"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    run_id: Mapped[str] = mapped_column(ForeignKey("eval_run.id", ondelete="CASCADE"), index=True)
    position: Mapped[int] = mapped_column(Integer)
    row_id: Mapped[str | None] = mapped_column(String(64), index=True)  # of a dataset; else the datasource item's hash
    datasource_item: Mapped[dict[str, Any]]
    sample: Mapped[dict[str, Any] | None]
    results: Mapped[list[Any]]
    status: Mapped[str] = mapped_column(String(16))  # pass, fail, error
    trace_id: Mapped[str | None] = mapped_column(String(32), index=True)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class JudgeAgreement(Base):
    """How well a model-as-judge agrees with people on labelled rows. Without one, a judge is uncalibrated and cannot gate."""

    __tablename__ = "judge_agreement"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    grader_digest: Mapped[str] = mapped_column(String(64), index=True)  # of the grader's whole definition, its model included
    grader: Mapped[dict[str, Any]]
    dataset_id: Mapped[str | None] = mapped_column(String(64))
    dataset_version: Mapped[int | None] = mapped_column(Integer)
    num_rows: Mapped[int] = mapped_column(Integer)
    agreement: Mapped[float] = mapped_column(Float)
    kappa: Mapped[float] = mapped_column(Float)
    detail: Mapped[dict[str, Any]]
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class TuningJob(Base):
    """OpenAI's fine_tuning.job. `method` is as asked, `resolved` the hyperparameters as run."""

    __tablename__ = "tuning_job"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    model: Mapped[str] = mapped_column(String(256))
    training_file: Mapped[str] = mapped_column(String(64), index=True)
    validation_file: Mapped[str | None] = mapped_column(String(64), index=True)
    method: Mapped[dict[str, Any]]
    resolved: Mapped[dict[str, Any]]
    seed: Mapped[int] = mapped_column(BigInteger)
    suffix: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(24), default="validating_files", index=True)
    error: Mapped[dict[str, Any] | None]
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    fine_tuned_model: Mapped[str | None] = mapped_column(String(256), index=True)
    result_files: Mapped[list[Any]]
    meta: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(String(64))
    estimated_finish: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)


class TuningEvent(Base):
    __tablename__ = "tuning_event"
    ordinal: Mapped[int] = mapped_column(BIG_ID, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    tuning_job_id: Mapped[str] = mapped_column(ForeignKey("tuning_job.id", ondelete="CASCADE"), index=True)
    level: Mapped[str] = mapped_column(String(8), default="info")
    kind: Mapped[str] = mapped_column(String(16), default="message")  # message, metrics
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any] | None]
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class TuningCheckpoint(Base):
    __tablename__ = "tuning_checkpoint"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tuning_job_id: Mapped[str] = mapped_column(ForeignKey("tuning_job.id", ondelete="CASCADE"), index=True)
    step: Mapped[int] = mapped_column(Integer)
    metrics: Mapped[dict[str, Any]]
    model: Mapped[str] = mapped_column(String(256))
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class TunedModel(Base):
    """A model that training made, served under `id` (`ft:…`). `marks` says which deleted traces it has learned from."""

    __tablename__ = "tuned_model"
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), primary_key=True)
    id: Mapped[str] = mapped_column(String(256), primary_key=True)
    base_model: Mapped[str] = mapped_column(String(256), index=True)
    kind: Mapped[str] = mapped_column(String(16))  # lora, full
    tuning_job_id: Mapped[str | None] = mapped_column(String(64), index=True)
    folder: Mapped[str] = mapped_column(String(1024))  # below the home
    sha256: Mapped[str] = mapped_column(String(64))
    detail: Mapped[dict[str, Any]]  # rank, targets, …
    marks: Mapped[list[Any]]
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class Wheel(Base):
    """`open_turn_id` is the one turn under way: two at once cannot be."""

    __tablename__ = "wheel"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    name: Mapped[str] = mapped_column(String(256))
    spec: Mapped[dict[str, Any]]
    route: Mapped[str] = mapped_column(String(256))
    dataset_id: Mapped[str | None] = mapped_column(String(64))
    open_turn_id: Mapped[str | None] = mapped_column(String(64))
    paused: Mapped[bool] = mapped_column(Boolean, default=False)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class WheelTurn(Base):
    """One turn. `data` holds what each step made (ids of versions, jobs, models, runs), written as the step ends."""

    __tablename__ = "wheel_turn"
    __table_args__ = (UniqueConstraint("wheel_id", "number"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    wheel_id: Mapped[str] = mapped_column(ForeignKey("wheel.id", ondelete="CASCADE"), index=True)
    number: Mapped[int] = mapped_column(Integer)
    step: Mapped[str] = mapped_column(String(24))
    outcome: Mapped[str | None] = mapped_column(String(24))  # promoted, rolled_back, rejected, skipped, failed, cancelled
    data: Mapped[dict[str, Any]]
    spec: Mapped[dict[str, Any]]  # the wheel's, as it was when the turn began
    error: Mapped[str | None] = mapped_column(Text)
    job_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)
    updated_at: Mapped[int] = mapped_column(BigInteger, default=now)
    ended_at: Mapped[int | None] = mapped_column(BigInteger)
