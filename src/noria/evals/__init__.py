"""Feedback, datasets, graders, runs and their statistics. What is evaluated is any async callable."""

from ._calibration import Templates
from ._compare import Comparison
from ._evals import Evals, NewRun
from ._runs import Means
from ._target import Answer, Ask, ask_hub
from ._templates import Variables
from .graders import Grade, GradeFailed, Row, parse_grader

__all__ = [
    "Answer",
    "Ask",
    "Comparison",
    "Evals",
    "Grade",
    "GradeFailed",
    "Means",
    "NewRun",
    "Row",
    "Templates",
    "Variables",
    "ask_hub",
    "parse_grader",
]
