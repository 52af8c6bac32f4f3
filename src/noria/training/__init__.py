"""Fine-tuning: OpenAI's jobs (`supervised`, `dpo`) as durable work, trained in a process of its own.

`Tuning` is what routes and the wheel call. The training itself is `python -m noria.training`: only that process imports
torch. Knows nothing about HTTP, nor about who asks for a training.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noria.training._machine import require_extra
    from noria.training._records import show_checkpoint, show_event, show_job
    from noria.training._request import Hyperparameters, Method, NoriaOptions, TuningRequest
    from noria.training._service import Tuning

__all__ = [
    "Hyperparameters",
    "Method",
    "NoriaOptions",
    "Tuning",
    "TuningRequest",
    "require_extra",
    "show_checkpoint",
    "show_event",
    "show_job",
]

_HOMES = {
    "Hyperparameters": "_request",
    "Method": "_request",
    "NoriaOptions": "_request",
    "Tuning": "_service",
    "TuningRequest": "_request",
    "require_extra": "_machine",
    "show_checkpoint": "_records",
    "show_event": "_records",
    "show_job": "_records",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: the training process lives in this package and needs no database."""
    if name in _HOMES:
        return getattr(import_module(f"noria.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
