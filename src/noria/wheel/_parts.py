"""What a turn asks of the rest of Noria: rows, a trainer, an evaluator, a route, live figures. One to three methods each.

`start` of each long piece of work is idempotent by its key: asked again after a crash it returns what it had started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from ._spec import WheelSpec

__all__ = [
    "CollectOrder",
    "Collected",
    "Comparer",
    "Comparison",
    "Curated",
    "Evaluator",
    "Live",
    "LiveFigures",
    "Parts",
    "Rows",
    "RunState",
    "Split",
    "TestOrder",
    "Traffic",
    "TrainOrder",
    "Trainer",
    "TrainingState",
]


@dataclass(frozen=True, slots=True)
class Collected:
    """`feedback` records were looked at; `new_rows` came into the dataset, which now is at `version`."""

    dataset_id: str
    version: int
    feedback: int
    new_rows: int
    skipped: Mapping[str, int] = field(default_factory=dict[str, int])
    """Answers that gave no row, by reason."""


@dataclass(frozen=True, slots=True)
class Curated:
    """`removed` counts rows by the kind of finding; `stopped_by` names kinds that the policy stops at."""

    version: int
    removed: Mapping[str, int] = field(default_factory=dict[str, int])
    kept: Mapping[str, int] = field(default_factory=dict[str, int])
    stopped_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """Files to train on; `num_answers` is how many different answers the training rows have."""

    version: int
    train_rows: int
    validation_rows: int
    test_rows: int
    num_answers: int
    train_file: str | None = None
    validation_file: str | None = None


@dataclass(frozen=True, slots=True)
class CollectOrder:
    """Feedback on answers of `models`, given in `[since, until)` (Unix seconds). Rows newer than version `trained` are new."""

    project_id: str
    dataset_id: str
    spec: WheelSpec
    models: Sequence[str]
    since: float | None
    until: float
    trained: int


class Rows(Protocol):
    """Feedback as a dataset. Each may be asked again after a crash and comes to the same."""

    async def collect(self, order: CollectOrder) -> Collected: ...

    async def curate(self, project_id: str, spec: WheelSpec, collected: Collected) -> Curated: ...

    async def split(self, project_id: str, spec: WheelSpec, dataset_id: str, version: int) -> Split: ...


@dataclass(frozen=True, slots=True)
class TrainOrder:
    """One training. `turn` is its key."""

    turn: str
    project_id: str
    spec: WheelSpec
    train_file: str
    validation_file: str | None


@dataclass(frozen=True, slots=True)
class TrainingState:
    status: Literal["running", "succeeded", "failed", "cancelled"]
    model: str | None = None
    error: str | None = None
    done: float = 0.0
    total: float | None = None
    forgetting: float | None = None
    """How much less of the general set is right than before; None where it was not checked."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Trainer(Protocol):
    async def start(self, order: TrainOrder) -> str: ...

    async def state(self, project_id: str, job_id: str) -> TrainingState: ...

    async def cancel(self, project_id: str, job_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class TestOrder:
    """One evaluation of one model. `turn` and `role` (base, candidate) are its key."""

    __test__ = False

    turn: str
    role: str
    project_id: str
    spec: WheelSpec
    model: str
    dataset: str
    version: int | None
    split: str | None


@dataclass(frozen=True, slots=True)
class RunState:
    status: Literal["running", "completed", "failed", "cancelled"]
    rows: int = 0
    errors: int = 0
    error: str | None = None
    done: float = 0.0
    total: float | None = None
    scores: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """By grader: the mean with its 95 % interval."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One grader's paired comparison of candidate and base on the same rows. `p` is two-sided."""

    grader: str
    rows: int
    wins: int
    losses: int
    ties: int
    base: float
    candidate: float
    difference: float
    low: float
    high: float
    p: float
    test: str
    can_gate: bool = True
    """False for a judge whose agreement with people was not measured."""
    unanswered: int = 0
    """Rows beside `rows` that the base could not answer or that could not be graded then."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Evaluator(Protocol):
    async def start(self, order: TestOrder) -> str: ...

    async def state(self, project_id: str, run_id: str) -> RunState: ...

    async def cancel(self, project_id: str, run_id: str) -> None: ...


class Comparer(Protocol):
    async def compare(self, project_id: str, base_run: str, candidate_run: str) -> Sequence[Comparison]:
        """One a grader, in the order of the specification."""
        ...


class Traffic(Protocol):
    """A route's weights."""

    async def warm(self, project_id: str, model: str) -> None:
        """Loads a model whole, so that no request meets one that is half loaded."""
        ...

    async def set_shares(self, project_id: str, route: str, shares: Mapping[str, float], salt: str) -> None: ...

    async def shares(self, project_id: str, route: str) -> Mapping[str, float] | None:
        """The weights by model, as they stand; None when there is no such route."""
        ...


@dataclass(frozen=True, slots=True)
class LiveFigures:
    """One variant of a route in a window of time."""

    requests: int = 0
    errors: int = 0
    slow: int = 0
    """Requests slower than the bound that was asked about."""
    latency_p95_s: float | None = None
    feedback: int = 0
    negative: int = 0


@dataclass(frozen=True, slots=True)
class Against:
    """What feedback counts as negative, beside a thumb down and a correction."""

    score_below: float | None = None
    labels: bool = False
    """A label that is not what was answered."""


class Live(Protocol):
    async def requests(self, project_id: str, route: str) -> int:
        """How many the route has seen."""
        ...

    async def figures(
        self, project_id: str, route: str, model: str, *, since: float, slower_than_s: float | None, against: Against
    ) -> LiveFigures: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """All of them."""

    rows: Rows
    trainer: Trainer
    evaluator: Evaluator
    comparer: Comparer
    traffic: Traffic
    live: Live
