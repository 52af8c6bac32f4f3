"""What a page needs of its visitor: their language, theme and time zone, the API with their key, and notices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from fastapi import Request
from nicegui import app, context, ui

from noria.console._api import Api
from noria.console._connection import Connection
from noria.console._visitors import Visitors, is_direct
from noria.console.texts import Texts, choose_language
from noria.errors import AuthenticationFailed, NoriaError

__all__ = ["Backend", "Session"]

_ADMISSION_S = 1.5  # NiceGUI gives a page 3 s to be built, and answers with a bare 500 after that
_ENTER_S = 10.0


@dataclass
class Backend:
    """What all visitors share. `loopback`: the console listens on this machine only."""

    connection: Connection
    client: httpx.AsyncClient
    loopback: bool
    visitors: Visitors = field(default_factory=Visitors)
    reachable: bool = True


class Session:
    """One visit of one browser. Made while a page is being built."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._leaving = False
        self.store: MutableMapping[str, Any] = app.storage.user
        self._grant: str | None = app.storage.browser.get("grant")
        request = context.client.request
        self.direct = backend.loopback and is_direct(_address(request), request.headers)
        self.language = choose_language(self.store.get("language"), request.headers.get("accept-language", "") if request else "")
        self.t = Texts(self.language)
        self.reload: Callable[[], Awaitable[None]] | None = None  # set while the page shown is one that failed to load
        self.api = Api(backend.connection, backend.client, self._token)

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
        return self.backend.visitors.knows(self._grant)

    def _token(self, owners: str | None) -> str | None:
        """Its own key, or the owner's where it was signed in as the owner. With neither, this machine calls without any,
        which the API allows while it has no keys; others do not call at all."""
        visitors = self.backend.visitors
        if key := visitors.key(self._grant):
            return key
        if not self.direct:
            raise AuthenticationFailed("Sign in with an API key.")
        return owners if visitors.is_owner(self._grant) else None

    async def admitted(self) -> bool:
        """Whether this visitor may see pages: all but the API's refusal counts, which pages tell better.

        Nothing is lent here: while the API is away or slow, each page still asks it, as this visitor.
        """
        try:
            self.api.endpoint()  # refuses those who have no key to ask with
            if self.backend.reachable:
                async with asyncio.timeout(_ADMISSION_S):
                    await self.api.get("/v1/noria/status")
        except AuthenticationFailed:
            return False
        except TimeoutError:
            self.backend.reachable = False  # until the API's health is looked at next
        except NoriaError:
            pass
        return True

    async def sign_in(self, key: str) -> str:
        """Tries the key, and gives the path that makes the browser keep the sign-in. Raises what the API says against it."""
        grant = self.backend.visitors.admit(key)
        before, self._grant = self._grant, grant
        try:
            status = await self.api.get("/v1/noria/status")
            if not status.get("keys_required"):  # any text would pass for a key
                raise AuthenticationFailed(self.t("sign_in.no_keys"), code="no_api_key")
        except NoriaError:
            self.backend.visitors.dismiss(grant)
            self._grant = before
            raise
        return f"/enter?token={self.backend.visitors.ticket(grant)}"

    async def stay_owner(self) -> None:
        """After the first key was made here: who could make it stays the owner, where all others sign in from now on."""
        if self.signed_in or not self.direct:
            return
        self._grant = self.backend.visitors.admit(None)
        ticket = self.backend.visitors.ticket(self._grant)
        with suppress(TimeoutError):  # a slow browser asks for it all the same
            await ui.run_javascript(f"fetch('/enter?token={ticket}').then(answer => answer.ok)", timeout=_ENTER_S)

    def sign_out(self) -> None:
        self.backend.visitors.dismiss(self._grant)

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


def _address(request: Request) -> str | None:
    return request.client.host if request.client else None
