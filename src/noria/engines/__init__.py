"""Engine processes and the weights that they run.

`WeightsStore` brings models onto the disk and makes them ready. `Supervisor` starts an engine process when it is first
asked for, watches it, restarts it and evicts it. An engine is anything that speaks OpenAI's API on a Unix socket or a
loopback port: Noria's own (`openvino/`, `embedding/`), llama-server, vLLM, or a URL on another machine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noria.engines._endpoint import Endpoint, EngineSpec, EngineState, EngineStatus
    from noria.engines._environment import environment_of_a_command, environment_of_our_own
    from noria.engines._hubs import HubAccess
    from noria.engines._manifest import Manifest
    from noria.engines._recipes import RECIPES, Recipe, WeightFile, recipe_for
    from noria.engines._spans import SPANS_COMMENT, SPANS_HEADER
    from noria.engines._supervisor import Supervisor
    from noria.engines._weights import Progress, PullProgress, WeightsStore

__all__ = [
    "RECIPES",
    "SPANS_COMMENT",
    "SPANS_HEADER",
    "Endpoint",
    "EngineSpec",
    "EngineState",
    "EngineStatus",
    "HubAccess",
    "Manifest",
    "Progress",
    "PullProgress",
    "Recipe",
    "Supervisor",
    "WeightFile",
    "WeightsStore",
    "environment_of_a_command",
    "environment_of_our_own",
    "recipe_for",
]

_HOMES = {
    "Endpoint": "_endpoint",
    "EngineSpec": "_endpoint",
    "EngineState": "_endpoint",
    "EngineStatus": "_endpoint",
    "HubAccess": "_hubs",
    "Manifest": "_manifest",
    "Progress": "_weights",
    "PullProgress": "_weights",
    "RECIPES": "_recipes",
    "Recipe": "_recipes",
    "SPANS_COMMENT": "_spans",
    "SPANS_HEADER": "_spans",
    "Supervisor": "_supervisor",
    "WeightFile": "_recipes",
    "WeightsStore": "_weights",
    "environment_of_a_command": "_environment",
    "environment_of_our_own": "_environment",
    "recipe_for": "_recipes",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: the engines' own processes live in this package and need none of it to start."""
    if name in _HOMES:
        return getattr(import_module(f"noria.engines.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
