"""Names that the shell completes: asked of the server that runs, if one does, in well under a second.

Knows nothing of the commands. Without a running server there is nothing to complete; none is started for it.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from noria.client import announced

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


def _of(path: str, field: str = "name") -> Callable[[str], list[str]]:
    """Completes this field of what is listed at `path`, of the newest hundred where there are more."""

    def complete(incomplete: str) -> list[str]:
        return _names(path, field, incomplete)

    return complete


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
        server = announced(home / "run" / "server.json")
        if server is None:
            return
        url, token = server.url, server.token
    request = urllib.request.Request(f"{url}{path}")  # noqa: S310  (our own server's URL)
    if token:
        request.add_header("authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:  # noqa: S310
        yield from json.load(reply)["data"]


complete_dataset = _of("/v1/noria/datasets?limit=100")
complete_eval = _of("/v1/evals?limit=100")
complete_job = _of("/v1/noria/jobs?limit=100", "id")
complete_model = _of("/v1/noria/models", "id")
complete_prompt = _of("/v1/noria/prompts?limit=100")
complete_store = _of("/v1/vector_stores?limit=100")
complete_tuning_job = _of("/v1/fine_tuning/jobs?limit=100", "id")
complete_wheel = _of("/v1/noria/wheels?limit=100")
