"""What a long addition tells of itself, and what it comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from noria.store import DatasetVersion

__all__ = ["MOST_ERRORS", "Report", "Told"]

MOST_ERRORS = 100
Told = Callable[["Report"], Awaitable[None]]


@dataclass(slots=True)
class Report:
    """Counts of one addition. `skipped` says why something made no row, by reason; of `errors` the first hundred are kept."""

    considered: int = 0
    total: int | None = None
    added: int = 0
    duplicates: int = 0
    removed: int = 0
    failed: int = 0
    version: DatasetVersion | None = None
    skipped: Counter[str] = field(default_factory=Counter[str])
    errors: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def fail(self, place: int | str, reason: str) -> None:
        self.failed += 1
        if len(self.errors) < MOST_ERRORS:
            key = "line" if isinstance(place, int) else "id"
            self.errors.append({key: place, "message": reason})

    def to_dict(self) -> dict[str, Any]:
        """As JSON; `version` is the newest version's number, None while there is none."""
        return {
            "considered": self.considered,
            "added": self.added,
            "duplicates": self.duplicates,
            "removed": self.removed,
            "failed": self.failed,
            "skipped": dict(self.skipped),
            "errors": self.errors,
            "version": self.version.number if self.version else None,
        }
