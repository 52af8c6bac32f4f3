"""The loop: feedback → dataset → training → gate → canary → promotion or roll-back, as turns of a wheel."""

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
from ._report import PLOTS, markdown, plot
from ._spec import WheelSpec, check_spec, parse_toml
from ._traffic import HubTraffic
from ._triggers import Triggers
from ._wheels import Preparation, Wheels

__all__ = [
    "PLOTS",
    "CollectOrder",
    "Collected",
    "Comparer",
    "Comparison",
    "Curated",
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
    "WheelSpec",
    "Wheels",
    "check_spec",
    "markdown",
    "parse_toml",
    "plot",
]
