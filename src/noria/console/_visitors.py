"""Who has signed in: with an API key, or as the owner by the secret address that the console has at its start.

Kept in memory only, gone with the process. A browser holds a grant, in its signed cookie; what the grant stands for never leaves
this side. A grant is new at each sign-in, so that a cookie that someone else planted before is worth nothing after it. Knows
nothing about the API's scopes.

Source of the manner: https://jupyter-server.readthedocs.io/en/latest/operators/security.html
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from noria.console._edge import is_loopback

__all__ = ["Visitors", "is_direct"]

_FORWARDING = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


def is_direct(client: str | None, headers: Mapping[str, str]) -> bool:
    """Whether a program of this machine calls, and not for someone behind it. `headers` by their names in small letters."""
    return client is not None and is_loopback(client) and not any(name in headers for name in _FORWARDING)


class Visitors:
    """The grants given out. `login_token` is the secret that makes its bearer the owner."""

    def __init__(self) -> None:
        self.login_token = secrets.token_urlsafe(32)
        self._grants: dict[str, str | None] = {}  # to the API key, None: the owner's
        self._tickets: dict[str, str] = {}

    def admit(self, key: str | None) -> str:
        """A new grant: for a visitor with this key, or for the owner."""
        grant = secrets.token_urlsafe(32)
        self._grants[grant] = key
        return grant

    def dismiss(self, grant: str | None) -> None:
        self._grants.pop(grant or "", None)

    def key(self, grant: str | None) -> str | None:
        return self._grants.get(grant or "")

    def is_owner(self, grant: str | None) -> bool:
        return grant is not None and self._grants.get(grant, "") is None

    def knows(self, grant: str | None) -> bool:
        return grant in self._grants

    def ticket(self, grant: str) -> str:
        """What a page, which can set no cookie, has its browser fetch the grant with, once."""
        ticket = secrets.token_urlsafe(32)
        self._tickets[ticket] = grant
        return ticket

    def redeem(self, token: str, *, direct: bool) -> str | None:
        """The grant for a ticket, or for the login token, which counts on this machine only."""
        if grant := self._tickets.pop(token, None):
            return grant
        if direct and secrets.compare_digest(token.encode(), self.login_token.encode()):
            return self.admit(None)
        return None
