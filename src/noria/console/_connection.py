"""Where the API is and with which key the owner calls it.

Read anew for each call: a server that was restarted may listen elsewhere, with another token.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from noria.client import announced
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
        server = announced(self.run_dir / "server.json")
        if self._api_url is None:
            if server is None:
                raise Unavailable(
                    "No Noria server runs in this home.", code="api_unreachable", hint="Start it with: noria up", retry_after_s=2
                )
            return Endpoint(server.url, given or server.token)
        if server is not None and server.url == self._api_url:
            return Endpoint(self._api_url, given or server.token)
        return Endpoint(self._api_url, given)
