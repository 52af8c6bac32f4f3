"""Idempotency-Key on POST: the same request of the same caller answers the same bytes, and the work is done once.

The first call claims the key in the database before it runs; a second one that arrives meanwhile gets 409. Answers are kept a
day; what may pass (5xx, 409, 429, a stream that broke off) and answers over 8 MiB free the key. Each API key has its own: no
other caller can have an answer replayed, so it passed the check of scopes when it was made. Shape: IETF
draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from noria.access import Principal
from noria.errors import Conflict, InvalidRequest, NoriaError, PayloadTooLarge
from noria.store import Database, Idempotency

from ._errors import error_response, gone_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ._wiring import Noria

__all__ = ["Idempotent", "forget_old_answers", "forgetting_answers"]

_log = logging.getLogger("noria.server")
_KEEP_S = 86_400
_SWEEP_EVERY_S = 3600.0
_PASSING = {408, 409, 429, 499}
_MAX_BYTES = 8 * 1024 * 1024
_SECRET = frozenset({"/v1/noria/keys"})  # done once as the others, but what they answer is kept nowhere


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a call claims: `key` stands for the caller's API key and its Idempotency-Key, `digest` for its request."""

    project_id: str
    given: str
    key: str
    digest: str

    @classmethod
    def of(cls, caller: Principal, given: str, scope: Scope, body: bytes) -> _Claim:
        key = hashlib.sha256(f"{caller.key_id}\0{given}".encode()).hexdigest()
        request = b"\0".join([scope["path"].encode(), scope["query_string"], body])
        return cls(caller.project_id, given, key, hashlib.sha256(request).hexdigest())


class Idempotent:
    def __init__(self, app: ASGIApp, noria: Noria) -> None:
        self._app, self._noria = app, noria

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        key = headers.get(b"idempotency-key")
        if key is None or scope["path"].startswith("/v1/files"):  # uploads are not kept in memory to be compared
            await self._app(scope, receive, send)
            return
        try:
            await self._once(key.decode("latin-1"), scope, receive, send)
        except NoriaError as error:
            await error_response(error)(scope, receive, send)
        except ClientDisconnect:  # nothing is claimed by half a request
            await gone_response()(scope, receive, send)
        except HTTPException as error:  # the body was too large, found while it was read here
            await error_response(PayloadTooLarge(str(error.detail)))(scope, receive, send)

    async def _once(self, given: str, scope: Scope, receive: Receive, send: Send) -> None:
        if not 1 <= len(given) <= 256:
            raise InvalidRequest("The Idempotency-Key must have 1 to 256 characters.", param="Idempotency-Key")
        body = await _read(receive)
        claim = _Claim.of(scope["noria.caller"], given, scope, body)
        kept = await self._claim(claim)
        if kept is not None:
            await _replay(kept, send)
            return
        answer = _Recorder(send, secret=scope["path"] in _SECRET)
        try:
            await self._app(scope, _replayed(body, receive), answer)
        finally:
            kept = answer.complete and answer.status < 500 and answer.status not in _PASSING and "noria.error" not in scope
            await asyncio.shield(self._settle(claim, answer if kept else None))

    async def _claim(self, claim: _Claim) -> Idempotency | None:
        """None when the key is now ours; the kept answer when there is one."""
        now = int(time.time())
        # A claim from before this process is of a call that died with the last one.
        oldest_claim = int(self._noria.started_at)
        async with self._noria.database.write() as session:
            row = await session.get(Idempotency, (claim.project_id, claim.key))
            if row is not None and row.created_at < (now - _KEEP_S if row.status else oldest_claim):
                await session.delete(row)
                await session.flush()
                row = None
            if row is None:
                try:
                    async with session.begin_nested():
                        session.add(Idempotency(project_id=claim.project_id, key=claim.key, request_sha256=claim.digest))
                except IntegrityError:  # PostgreSQL: another call was quicker
                    row = await session.get_one(Idempotency, (claim.project_id, claim.key))
                else:
                    return None
        if row.request_sha256 != claim.digest:
            raise Conflict(f"The Idempotency-Key {claim.given!r} was used with another request.", param="Idempotency-Key")
        if row.status is None:
            raise Conflict(
                f"The call with the Idempotency-Key {claim.given!r} is still running.", hint="Wait for it, then ask again."
            )
        if row.body is None:
            raise Conflict(
                f"The call with the Idempotency-Key {claim.given!r} was done; its answer held a secret, which is kept nowhere.",
                code="secret_not_kept",
                hint="If the answer was lost, revoke that key and create another, under another Idempotency-Key.",
            )
        return row

    async def _settle(self, claim: _Claim, answer: _Recorder | None) -> None:
        async with self._noria.database.write() as session:
            row = await session.get(Idempotency, (claim.project_id, claim.key))
            if row is None:
                return
            if answer is None or answer.body is None:
                await session.delete(row)
                return
            row.status, row.media_type = answer.status, answer.media_type
            row.body = None if answer.secret and answer.status < 400 else bytes(answer.body)


async def forget_old_answers(database: Database) -> None:
    """Deletes what was claimed more than a day ago."""
    async with database.write() as session:
        await session.execute(delete(Idempotency).where(Idempotency.created_at < time.time() - _KEEP_S))


async def forgetting_answers(database: Database) -> None:
    """Does so now and every hour; ends when it is cancelled."""
    while True:
        try:
            await forget_old_answers(database)
        except NoriaError as error:
            _log.warning("Old answers of Idempotency-Keys could not be deleted: %s", error)
        await asyncio.sleep(_SWEEP_EVERY_S)


class _Recorder:
    """Passes an answer on and keeps a copy, unless it grows too large."""

    def __init__(self, send: Send, *, secret: bool) -> None:
        self._send, self.secret = send, secret
        self.status, self.media_type, self.complete = 500, "application/json", False
        self.body: bytearray | None = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.media_type = dict(message["headers"]).get(b"content-type", b"application/json").decode("latin-1")
        elif message["type"] == "http.response.body":
            body = self.body
            if body is not None:
                body += message.get("body", b"")
                self.body = body if len(body) <= _MAX_BYTES else None
            self.complete = not message.get("more_body", False)
        await self._send(message)


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _replay(row: Idempotency, send: Send) -> None:
    media_type = (row.media_type or "application/json").encode("latin-1")
    headers = [(b"content-type", media_type), (b"idempotent-replayed", b"true")]
    await send({"type": "http.response.start", "status": row.status, "headers": headers})
    await send({"type": "http.response.body", "body": row.body or b"", "more_body": False})
