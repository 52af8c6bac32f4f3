"""Where a server or a console says that it listens: a file in its home's `run` folder, written at its start."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Announced", "announced"]


@dataclass(frozen=True, slots=True)
class Announced:
    """`token` is the owner's; `pid` is the process that wrote it, which may have ended."""

    url: str
    token: str | None
    pid: int | None


def announced(path: Path) -> Announced | None:
    """What the file says; None where there is none, or none that can be read."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        url, token, pid = facts["url"], facts.get("token"), facts.get("pid")
        return Announced(str(url), str(token) if token else None, int(pid) if pid is not None else None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
