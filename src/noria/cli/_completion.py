"""Names that the shell completes: asked of the server that runs, if one does, in well under a second.

Knows nothing of the commands. Without a running server there is nothing to complete; none is started for it.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "complete_dataset",
    "complete_eval",
    "complete_job",
    "complete_model",
    "complete_prompt",
    "complete_store",
    "complete_tuning_job",
    "complete_wheel",
]

_TIMEOUT_S = 1.0


def complete_store(incomplete: str) -> list[str]:
    """Names of vector stores."""
    return _names("/v1/vector_stores?limit=100", "name", incomplete)


def complete_model(incomplete: str) -> list[str]:
    """Ids of models."""
    return _names("/v1/noria/models", "id", incomplete)


def complete_dataset(incomplete: str) -> list[str]:
    """Names of datasets."""
    return _names("/v1/noria/datasets?limit=100", "name", incomplete)


def complete_prompt(incomplete: str) -> list[str]:
    """Names of prompts."""
    return _names("/v1/noria/prompts?limit=100", "name", incomplete)


def complete_eval(incomplete: str) -> list[str]:
    """Names of evals."""
    return _names("/v1/evals?limit=100", "name", incomplete)


def complete_wheel(incomplete: str) -> list[str]:
    """Names of wheels."""
    return _names("/v1/noria/wheels?limit=100", "name", incomplete)


def complete_job(incomplete: str) -> list[str]:
    """Ids of jobs, of the newest hundred."""
    return _names("/v1/noria/jobs?limit=100", "id", incomplete)


def complete_tuning_job(incomplete: str) -> list[str]:
    """Ids of fine-tuning jobs, of the newest hundred."""
    return _names("/v1/fine_tuning/jobs?limit=100", "id", incomplete)


def _names(path: str, field: str, incomplete: str) -> list[str]:
    try:
        return sorted({str(row[field]) for row in _rows(path) if str(row[field]).startswith(incomplete)})
    except (OSError, ValueError, KeyError):
        return []


def _rows(path: str) -> Iterator[dict[str, Any]]:
    # urllib and the file itself: the client library and the settings would take longer to import than the call.
    url, token = os.environ.get("NORIA_URL"), os.environ.get("NORIA_API_KEY")
    if not url:
        home = Path(os.environ.get("NORIA_HOME") or Path.home() / ".noria").expanduser()
        facts = json.loads((home / "run" / "server.json").read_text(encoding="utf-8"))
        url, token = facts["url"], facts["token"]
    request = urllib.request.Request(f"{url}{path}")  # noqa: S310  (our own server's URL)
    if token:
        request.add_header("authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:  # noqa: S310
        yield from json.load(reply)["data"]
