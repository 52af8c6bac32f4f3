"""Idempotency-Key on POST: the same key and body answer the same bytes, and the work is done once.

The first call claims the key in the database before it runs; a second one that arrives meanwhile gets 409. Answers are kept a
day; what may pass (5xx, 409, 429, a stream that broke off) and answers over 8 MiB free the key. Shape: IETF
draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from starlette.exceptions import HTTPException

from noria.access import Principal
from noria.errors import Conflict, InvalidRequest, NoriaError, PayloadTooLarge
from noria.store import Idempotency

from ._errors import error_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ._wiring import Noria

__all__ = ["Idempotent"]

_KEEP_S = 86_400
_PASSING = {408, 409, 429, 499}
_MAX_BYTES = 8 * 1024 * 1024


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
            await self._once(key.decode("latin-1"), headers, scope, receive, send)
        except NoriaError as error:
            await error_response(error)(scope, receive, send)
        except HTTPException as error:  # the body was too large, found while it was read here
            await error_response(PayloadTooLarge(str(error.detail)))(scope, receive, send)

    async def _once(self, key: str, headers: dict[bytes, bytes], scope: Scope, receive: Receive, send: Send) -> None:
        if not 1 <= len(key) <= 256:
            raise InvalidRequest("The Idempotency-Key must have 1 to 256 characters.", param="Idempotency-Key")
        kind, _, secret = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        caller = await self._noria.keys.authenticate(secret.strip() if kind.lower() == "bearer" else None)
        body = await _read(receive)
        digest = hashlib.sha256(scope["path"].encode() + b"\0" + body).hexdigest()
        kept = await self._claim(caller, key, digest)
        if kept is not None:
            await _replay(kept, send)
            return
        answer = _Recorder(send)
        try:
            await self._app(scope, _replayed(body, receive), answer)
        finally:
            kept = answer.complete and answer.status < 500 and answer.status not in _PASSING and "noria.error" not in scope
            await asyncio.shield(self._settle(caller, key, answer if kept else None))

    async def _claim(self, caller: Principal, key: str, digest: str) -> Idempotency | None:
        """None when the key is now ours; the kept answer when there is one."""
        now = int(time.time())
        # A claim from before this process is of a call that died with the last one.
        oldest_claim = int(self._noria.started_at)
        async with self._noria.database.write() as session:
            row = await session.get(Idempotency, (caller.project_id, key))
            if row is not None and row.created_at < (now - _KEEP_S if row.status else oldest_claim):
                await session.delete(row)
                await session.flush()
                row = None
            if row is None:
                try:
                    async with session.begin_nested():
                        session.add(Idempotency(project_id=caller.project_id, key=key, request_sha256=digest))
                except IntegrityError:  # PostgreSQL: another call was quicker
                    row = await session.get_one(Idempotency, (caller.project_id, key))
                else:
                    await session.execute(delete(Idempotency).where(Idempotency.created_at < now - _KEEP_S))
                    return None
        if row.request_sha256 != digest:
            raise Conflict(f"The Idempotency-Key {key!r} was used with another request.", param="Idempotency-Key")
        if row.status is None:
            raise Conflict(f"The call with the Idempotency-Key {key!r} is still running.", hint="Wait for it, then ask again.")
        return row

    async def _settle(self, caller: Principal, key: str, answer: _Recorder | None) -> None:
        async with self._noria.database.write() as session:
            row = await session.get(Idempotency, (caller.project_id, key))
            if row is None:
                return
            if answer is not None and answer.body is not None:
                row.status, row.media_type, row.body = answer.status, answer.media_type, bytes(answer.body)
            else:
                await session.delete(row)


class _Recorder:
    """Passes an answer on and keeps a copy, unless it grows too large."""

    def __init__(self, send: Send) -> None:
        self._send = send
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
            return bytes(body)
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
