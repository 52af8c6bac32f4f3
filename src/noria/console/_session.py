"""What a page needs of its visitor: their language, theme and time zone, the API with their key, and notices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from nicegui import app, context, ui

from noria.console._api import Api
from noria.console._connection import Connection
from noria.console.texts import Texts, choose_language
from noria.errors import AuthenticationFailed, NoriaError

__all__ = ["Backend", "Session"]


@dataclass
class Backend:
    """What all visitors share. `keys` are those they signed in with, by session: in memory only, gone with the process."""

    connection: Connection
    client: httpx.AsyncClient
    lend_owner: bool
    keys: dict[str, str] = field(default_factory=dict[str, str])
    reachable: bool = True


class Session:
    """One visit of one browser. Made while a page is being built."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._leaving = False
        self.store: MutableMapping[str, Any] = app.storage.user
        self._id: str = app.storage.browser["id"]
        request = context.client.request
        self.language = choose_language(self.store.get("language"), request.headers.get("accept-language", "") if request else "")
        self.t = Texts(self.language)
        self.reload: Callable[[], Awaitable[None]] | None = None  # set while the page shown is one that failed to load
        self.api = Api(backend.connection, backend.client, lambda: backend.keys.get(self._id), lend_owner=backend.lend_owner)

    @property
    def theme(self) -> str:
        return self.store.get("theme", "auto")

    @property
    def zone(self) -> tzinfo:
        try:
            return ZoneInfo(str(self.store.get("zone") or "UTC"))
        except (KeyError, ValueError, OSError):  # a name that this machine does not know
            return UTC

    def time(self, seconds: float | None, *, date: bool = True) -> str:
        """A moment in the visitor's own time; today's without the date."""
        if seconds is None:
            return "–"
        moment, now = datetime.fromtimestamp(seconds, self.zone), datetime.now(self.zone)
        if not date or moment.date() == now.date():
            return moment.strftime("%H:%M:%S")
        return moment.strftime("%m-%d %H:%M" if moment.year == now.year else "%Y-%m-%d %H:%M")

    @property
    def signed_in(self) -> bool:
        return self._id in self.backend.keys

    def sign_in(self, key: str) -> None:
        self.backend.keys[self._id] = key

    def sign_out(self) -> None:
        self.backend.keys.pop(self._id, None)

    def to_sign_in(self) -> None:
        """Leads there once: a second lead would break the first one off."""
        if not self._leaving:
            self._leaving = True
            ui.navigate.to("/sign-in")

    def explain(self, error: NoriaError) -> str:
        """The error for a reader: what Noria says of itself in their language, what the API says as it is."""
        if error.code in {"api_unreachable", "api_timeout", "api_cut_off"}:
            return self.t(f"error.{error.code}")
        return str(error)

    def notice(self, error: NoriaError) -> None:
        """Shows a failure; one that a key would mend leads to the sign-in page."""
        if isinstance(error, AuthenticationFailed):
            self.to_sign_in()
            return
        close = [{"label": self.t("close"), "color": "white"}]  # a plain close button has the theme's colour: unreadable on red
        ui.notify(self.explain(error), type="negative", multi_line=True, actions=close, timeout=8000, position="top")

    def done(self, text: str) -> None:
        ui.notify(text, type="positive", timeout=2500, position="top")

    @contextmanager
    def reporting(self) -> Generator[None]:
        """Turns an expected failure inside the block into a notice."""
        try:
            yield
        except NoriaError as error:
            self.notice(error)
