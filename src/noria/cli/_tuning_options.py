"""Hyperparameters as they stand on a command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from noria.errors import InvalidRequest

__all__ = ["hyperparameters", "noria_options"]


def hyperparameters(**given: Any) -> dict[str, Any]:
    """Those that were given; the server resolves the others."""
    return {name: value for name, value in given.items() if value is not None}


def noria_options(pairs: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE`, the value as JSON where it is some (`8`, `true`, `["q_proj"]`), else as text."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"--option {pair!r} is not NAME=VALUE.", hint="For example: --option lora_rank=8")
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options
