"""API keys: 256 random bits shown once, kept as a SHA-256, with scopes, expiry and revocation.

A found key is remembered for a few seconds so that a busy caller costs no query a request; revoking clears that at
once in this process. Without any key Noria serves loopback only, and everyone there is the owner.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import func, select

from noria.errors import AuthenticationFailed, InvalidRequest, NotFound, PermissionDenied, Unavailable
from noria.store import DEFAULT_PROJECT, ApiKey, Cursor, Database, Page, new_id, page

__all__ = ["SCOPES", "IssuedKey", "Keys", "Principal", "Scope"]

Scope = Literal["inference", "data", "traces", "spans", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""`inference`: call models. `data`: files and vector stores. `traces`: read and delete traces, send spans. `spans`: send spans,
and nothing else. `admin`: all else."""

_REMEMBER_S = 10.0
_TOUCH_S = 60


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. `key_id` is None for the owner on loopback while no key exists."""

    project_id: str = DEFAULT_PROJECT
    key_id: str | None = None
    scopes: frozenset[str] = frozenset(SCOPES)
    requests_per_minute: int = 0

    def require(self, scope: Scope) -> None:
        if not {scope, "admin", "traces" if scope == "spans" else scope} & self.scopes:
            raise PermissionDenied(
                f"This key lacks the scope {scope!r}.", hint="Create one with: noria keys create --scope " + scope
            )


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A fresh key. `secret` exists only here; it cannot be shown again."""

    row: ApiKey
    secret: str


class Keys:
    def __init__(self, database: Database, *, default_rpm: int = 0) -> None:
        self._database, self._default_rpm = database, default_rpm
        self._known: dict[str, tuple[float, Principal, int | None]] = {}
        self._any: bool | None = None
        self._local: dict[str, Principal] = {}

    def issue_local(self, name: str = "local", scopes: Sequence[Scope] = SCOPES) -> str:
        """A key for this process's lifetime: the owner's, for who may read the home folder, unless scopes are given."""
        secret = f"sk-noria-local-{secrets.token_urlsafe(32)}"
        self._local[hashlib.sha256(secret.encode()).hexdigest()] = Principal(key_id=name, scopes=frozenset(scopes))
        return secret

    async def exist(self) -> bool:
        """Whether a key was ever made: then every call needs one. Revoking the last one does not open the door again."""
        if self._any is None:
            async with self._database.read() as session:
                self._any = (await session.scalar(select(func.count()).select_from(ApiKey)) or 0) > 0
        return self._any

    async def authenticate(self, secret: str | None) -> Principal:
        """The caller behind a bearer token. Raises AuthenticationFailed."""
        if not await self.exist():
            return Principal()
        if not secret:
            raise AuthenticationFailed("No API key was sent.", hint="Send it as `Authorization: Bearer sk-noria-…`.")
        digest = hashlib.sha256(secret.encode()).hexdigest()
        if (local := self._local.get(digest)) is not None:  # of 256 random bits a digest's timing tells nothing
            return local
        now = time.time()
        known = self._known.get(digest)
        if known is None or known[0] < now:
            known = (now + _REMEMBER_S, *await self._look_up(digest, secret))
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[digest] = known
        if known[2] is not None and known[2] < now:
            raise AuthenticationFailed("This API key has expired.", code="expired_api_key")
        return known[1]

    async def _look_up(self, digest: str, secret: str) -> tuple[Principal, int | None]:
        async with self._database.read() as session:
            row = await session.scalar(select(ApiKey).where(ApiKey.digest == digest))
        if row is None or row.revoked_at is not None:
            shown = f"{secret[:12]}…" if len(secret) > 12 else "given"
            raise AuthenticationFailed(
                f"The API key {shown} is not known or was revoked.", hint="`noria keys list` shows the live ones."
            )
        if row.last_used_at is None or row.last_used_at < time.time() - _TOUCH_S:
            with contextlib.suppress(Unavailable):  # a full disk must not lock everyone out
                async with self._database.write() as session:
                    if (live := await session.get(ApiKey, row.id)) is not None:
                        live.last_used_at = int(time.time())
        rpm = self._default_rpm if row.requests_per_minute is None else row.requests_per_minute
        return Principal(row.project_id, row.id, frozenset(map(str, row.scopes)), rpm), row.expires_at

    async def create(
        self,
        name: str,
        *,
        scopes: Sequence[str] = SCOPES,
        expires_at: int | None = None,
        requests_per_minute: int | None = None,
        project_id: str = DEFAULT_PROJECT,
    ) -> IssuedKey:
        if unknown := sorted(set(scopes) - set(SCOPES)):
            raise InvalidRequest(f"{unknown[0]!r} is not a scope.", param="scopes", hint=f"Scopes: {', '.join(SCOPES)}.")
        if not scopes:
            raise InvalidRequest("A key needs at least one scope.", param="scopes", hint=f"Scopes: {', '.join(SCOPES)}.")
        secret = f"sk-noria-{secrets.token_urlsafe(32)}"
        row = ApiKey(
            id=new_id("key_"),
            project_id=project_id,
            name=name,
            prefix=secret[:14],
            digest=hashlib.sha256(secret.encode()).hexdigest(),
            scopes=list(dict.fromkeys(scopes)),
            requests_per_minute=requests_per_minute,
            expires_at=expires_at,
        )
        async with self._database.write() as session:
            session.add(row)
        self._any = True
        return IssuedKey(row, secret)

    async def list(self, project_id: str, cursor: Cursor) -> Page[ApiKey]:
        async with self._database.read() as session:
            return await page(session, select(ApiKey).where(ApiKey.project_id == project_id), ApiKey.id, cursor)

    async def revoke(self, project_id: str, key_id: str) -> ApiKey:
        """Revokes a key. The row stays, so that traces still say whose call it was."""
        async with self._database.write() as session:
            row = await session.get(ApiKey, key_id)
            if row is None or row.project_id != project_id:
                raise NotFound(f"No API key {key_id!r}.", param="key_id")
            row.revoked_at = row.revoked_at or int(time.time())
        self._known.clear()
        return row
