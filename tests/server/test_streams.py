"""Server-sent events on their way out, without a server around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from noria.server import _streams
from noria.server._streams import EventStream


def sent(pieces: AsyncIterator[bytes]) -> list[bytes]:
    """The bodies that a client gets which stays to the end."""
    bodies: list[bytes] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            bodies.append(message["body"])

    async def close() -> None: ...

    asyncio.run(EventStream(pieces, close)({"type": "http"}, receive, send))
    return bodies


def test_comments_are_sent_while_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streams, "_SILENCE_S", 0.2)

    async def pieces() -> AsyncIterator[bytes]:
        await asyncio.sleep(0.5)
        for number in range(4):
            yield b"data: %d\n\n" % number
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.2)

    comment = b":\n\n"
    assert sent(pieces()) == [comment, comment, *(b"data: %d\n\n" % number for number in range(4)), comment, b""]
