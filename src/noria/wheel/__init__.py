"""The loop: feedback → dataset → training → gate → canary → promotion or roll-back, as turns of a wheel."""

from ._dataset_rows import DatasetRows
from ._eval_runs import EvalRuns, check_graders
from ._live import RecordedLive
from ._parts import (
    Collected,
    CollectOrder,
    Comparer,
    Comparison,
    Curated,
    Evaluator,
    Live,
    LiveFigures,
    Parts,
    Rows,
    RunState,
    Split,
    TestOrder,
    Traffic,
    Trainer,
    TrainingState,
    TrainOrder,
)
from ._records import STEPS
from ._report import PLOTS, markdown, plot
from ._spec import WheelSpec, check_spec, parse_toml
from ._traffic import HubTraffic
from ._triggers import Triggers
from ._tuning_jobs import TuningJobs, check_train, loss_of
from ._wheels import Preparation, Wheels

__all__ = [
    "PLOTS",
    "STEPS",
    "CollectOrder",
    "Collected",
    "Comparer",
    "Comparison",
    "Curated",
    "DatasetRows",
    "EvalRuns",
    "Evaluator",
    "HubTraffic",
    "Live",
    "LiveFigures",
    "Parts",
    "Preparation",
    "RecordedLive",
    "Rows",
    "RunState",
    "Split",
    "TestOrder",
    "Traffic",
    "TrainOrder",
    "Trainer",
    "TrainingState",
    "Triggers",
    "TuningJobs",
    "WheelSpec",
    "Wheels",
    "check_graders",
    "check_spec",
    "check_train",
    "loss_of",
    "markdown",
    "parse_toml",
    "plot",
]
