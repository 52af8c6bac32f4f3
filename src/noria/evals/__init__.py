"""Feedback, datasets, graders, runs and their statistics. What is evaluated is any async callable."""

from ._answers import read_judged
from ._calibration import Templates, asks_models
from ._compare import Comparison
from ._data_jobs import Collect, DataJobs, ImportOptions, show_curation
from ._evals import Evals, NewRun
from ._feedback import FeedbackFilter, FeedbackStats, FeedbackStore, Opinion
from ._feedback_import import ImportReport, import_feedback
from ._forgetting import Forgetting
from ._lineage import Graph, Lineage
from ._runs import Means
from ._target import Answer, Ask, ask_hub
from ._templates import Variables
from .graders import Grade, GradeFailed, Row, parse_grader

__all__ = [
    "Answer",
    "Ask",
    "Collect",
    "Comparison",
    "DataJobs",
    "Evals",
    "FeedbackFilter",
    "FeedbackStats",
    "FeedbackStore",
    "Forgetting",
    "Grade",
    "GradeFailed",
    "Graph",
    "ImportOptions",
    "ImportReport",
    "Lineage",
    "Means",
    "NewRun",
    "Opinion",
    "Row",
    "Templates",
    "Variables",
    "ask_hub",
    "asks_models",
    "import_feedback",
    "parse_grader",
    "read_judged",
    "show_curation",
]
