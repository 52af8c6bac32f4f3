"""The wire client by itself: connections that end at a bad moment, names that lead elsewhere."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from noria.errors import InvalidRequest, NoriaError, Unavailable, UpstreamError
from noria.models._wire import Target, WireClient

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}"


@asynccontextmanager
async def answering(per_connection: int) -> AsyncIterator[tuple[int, list[int]]]:
    """Answers so many requests on each connection and closes it when one more has come."""
    connections: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        mine = len(connections) - 1
        while await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(2)
            if connections[mine] == per_connection:
                break
            connections[mine] += 1
            writer.write(OK)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], connections
    finally:
        server.close()


async def post(client: WireClient, target: Target) -> bytes:
    answer = await client.post(target, b"{}", timeout_s=5, stream=False)
    return b"".join([piece async for piece in answer.pieces])


def at(port: int, **options: Any) -> Target:
    return Target(f"http://127.0.0.1:{port}/x", "it", {}, **options)


async def test_an_engines_stale_connection_is_not_the_callers_trouble() -> None:
    client = WireClient()
    async with answering(per_connection=1) as (port, connections):
        for _ in range(4):
            assert await post(client, at(port, local=True)) == b"{}"
    assert connections == [1, 1, 1, 1]
    await client.aclose()


async def test_an_engine_that_answers_nobody_is_unavailable() -> None:
    client = WireClient()
    async with answering(per_connection=0) as (port, connections):
        with pytest.raises(Unavailable) as error:
            await post(client, at(port, local=True))
        assert error.value.retry_after_s
        assert len(connections) == 2
        with pytest.raises(UpstreamError):
            await post(client, at(port))
        assert len(connections) == 3, "of a remote one, whoever asks decides whether to ask again"
    await client.aclose()


async def test_a_restart_does_not_leave_connections_behind() -> None:
    client = WireClient()
    async with answering(per_connection=9) as (port, connections):
        for generation in range(5):
            assert await post(client, at(port, local=True, generation=generation)) == b"{}"
        assert len(connections) == 5
        assert len(client._sessions) == 1  # pyright: ignore[reportPrivateUsage]
    await client.aclose()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "\uff11\uff12\uff17.0.0.1", "localhost", "127.1"])
async def test_inside_is_refused_when_connecting(host: str) -> None:
    client = WireClient()
    async with answering(per_connection=9) as (port, connections):
        with pytest.raises(NoriaError, match=r"not a public address|not a canonical"):
            await post(client, Target(f"http://{host}:{port}/x", "it", {}, public_only=True))
        assert not connections
    await client.aclose()


async def test_a_name_that_has_moved_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: public when it was checked, private when it is connected to."""
    client = WireClient()
    answers = ["93.184.215.14", "127.0.0.1"]

    async def resolve(self: Any, host: str, port: Any, **_: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), port))]

    from noria.access import check_public_url

    async with answering(per_connection=9) as (port, connections):
        monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", resolve)
        assert await check_public_url(f"http://moving.example:{port}/", param="base_url") == ["93.184.215.14"]
        with pytest.raises(InvalidRequest, match="not a public address"):
            await post(client, Target(f"http://moving.example:{port}/x", "it", {}, public_only=True))
        assert not connections
    assert not answers
    await client.aclose()
