"""Where the API is and with which key the owner calls it.

Read anew for each call: a server that was restarted may listen elsewhere, with another token.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noria.errors import Unavailable
from noria.settings import provider_key

__all__ = ["Connection", "Endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`token` is the owner's, None where none is at hand."""

    url: str
    token: str | None


class Connection:
    """Finds the API of one home, or a given one."""

    def __init__(self, run_dir: Path, api_url: str | None = None) -> None:
        self.run_dir = run_dir
        self._api_url = api_url.rstrip("/") if api_url else None

    def find(self) -> Endpoint:
        """Raises Unavailable while no server runs in this home."""
        given = provider_key("NORIA_API_KEY")
        announced = self._announced()
        if self._api_url is None:
            if announced is None:
                raise Unavailable(
                    "No Noria server runs in this home.", code="api_unreachable", hint="Start it with: noria up", retry_after_s=2
                )
            return Endpoint(announced["url"], given or announced.get("token"))
        if announced is not None and announced["url"] == self._api_url:
            return Endpoint(self._api_url, given or announced.get("token"))
        return Endpoint(self._api_url, given)

    def _announced(self) -> dict[str, Any] | None:
        try:
            facts = json.loads((self.run_dir / "server.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return facts if isinstance(facts, dict) and isinstance(facts.get("url"), str) else None
