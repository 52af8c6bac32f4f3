"""Engine processes and the weights that they run.

`WeightsStore` brings models onto the disk and makes them ready. `Supervisor` starts an engine process when it is first
asked for, watches it, restarts it and evicts it. An engine is anything that speaks OpenAI's API on a Unix socket or a
loopback port: Noria's own (`openvino/`, `embedding/`), llama-server, vLLM, or a URL on another machine.
"""

from noria.engines._endpoint import Endpoint, EngineSpec, EngineState, EngineStatus
from noria.engines._hubs import HubAccess
from noria.engines._manifest import Manifest
from noria.engines._recipes import RECIPES, Recipe, WeightFile, recipe_for
from noria.engines._supervisor import Supervisor
from noria.engines._weights import Progress, PullProgress, WeightsStore

__all__ = [
    "RECIPES",
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
    "recipe_for",
]
