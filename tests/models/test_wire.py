"""The wire client by itself: connections that end at a bad moment, names that lead elsewhere."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from noria.errors import ContextTooLong, InvalidRequest, NoriaError, Unavailable, UpstreamError, UpstreamTimeout
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


TOO_LONG = b'{"error": {"message": "too many tokens", "param": "messages", "code": "context_length_exceeded"}}'


@asynccontextmanager
async def saying(*pieces: bytes, pause_s: float = 0.05) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Writes these bytes to whoever sends a request, with a pause before each but the first, and closes."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        for number, piece in enumerate(pieces):
            await asyncio.sleep(pause_s if number else 0)
            writer.write(piece)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], requests
    finally:
        server.close()


def head(status: int, length: int) -> bytes:
    return b"HTTP/1.1 %d No\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, length)


async def test_the_words_of_a_failure_may_come_in_pieces() -> None:
    client = WireClient()
    async with saying(head(400, len(TOO_LONG)) + TOO_LONG[:40], TOO_LONG[40:]) as (port, _):
        with pytest.raises(ContextTooLong) as error:
            await post(client, at(port))
    assert (error.value.param, error.value.code) == ("messages", "context_length_exceeded")
    await client.aclose()


async def test_a_failure_whose_words_break_off_keeps_its_status() -> None:
    client = WireClient()
    async with saying(head(400, 500) + b"it is bec") as (port, _):
        with pytest.raises(InvalidRequest, match="it is bec"):
            await post(client, at(port))
    large = b"x" * 200_000
    async with saying(head(500, len(large)) + large) as (port, _):
        with pytest.raises(UpstreamError):
            await post(client, at(port))
    await client.aclose()


async def test_a_failure_whose_words_do_not_end_is_told_in_the_calls_time() -> None:
    client = WireClient()
    async with saying(head(503, 500) + b"busy", b"never", pause_s=30) as (port, _):
        asked = client.post(at(port), b"{}", timeout_s=0.3, stream=False)
        with pytest.raises(Unavailable, match="busy"):
            await asyncio.wait_for(asked, 5)
    await client.aclose()


async def test_an_engines_answer_that_is_not_json_says_so() -> None:
    client = WireClient()
    async with saying(head(200, 5) + b"<htm>") as (port, requests):
        with pytest.raises(UpstreamError, match="not JSON"):
            await client.ask(at(port, local=True), method="DELETE")
    assert requests[0].startswith(b"DELETE /x ")
    await client.aclose()


def names(monkeypatch: pytest.MonkeyPatch, **addresses: str) -> None:
    """What names resolve to; others do not."""

    async def resolve(self: Any, host: str, port: Any, **_: Any) -> Any:
        known = addresses.get(host.partition(".")[0])
        if known is None and host[0].isdigit():
            known = host
        if known is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known, port))]

    monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", resolve)


def behind(monkeypatch: pytest.MonkeyPatch, proxy: str, **others: str) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"http_proxy": proxy, **others}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("host", ["inside.example", "10.0.0.1", "\uff11\uff10.0.0.1", "[::ffff:10.0.0.1]", "nowhere.example"])
async def test_a_proxy_is_handed_no_name_that_leads_inside(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    client = WireClient()
    async with saying(OK) as (port, requests):
        behind(monkeypatch, f"http://127.0.0.1:{port}")
        names(monkeypatch, inside="10.0.0.1")
        with pytest.raises(NoriaError):
            await post(client, Target(f"http://{host}/x", "it", {}, public_only=True))
        assert not requests
    await client.aclose()


async def test_the_operators_proxy_may_be_inside_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    client = WireClient()
    async with saying(OK) as (port, requests):
        behind(monkeypatch, f"http://user:pass@proxy.example:{port}")
        names(monkeypatch, outside="93.184.215.14", proxy="127.0.0.1")
        for public_only in (True, False):
            assert await post(client, Target("http://outside.example/x", "it", {}, public_only=public_only)) == b"{}"
    assert [request.partition(b"\r\n")[0] for request in requests] == [b"POST http://outside.example/x HTTP/1.1"] * 2
    assert all(b"proxy-authorization: basic dxnlcjpwyxnz" in request.lower() for request in requests)
    await client.aclose()


async def test_what_needs_no_proxy_is_still_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    client = WireClient()
    async with saying(OK) as (port, requests):
        behind(monkeypatch, f"http://127.0.0.1:{port}", no_proxy="inside.example")
        names(monkeypatch, inside="127.0.0.1")
        with pytest.raises(InvalidRequest, match="not a public address"):
            await post(client, Target(f"http://inside.example:{port}/x", "it", {}, public_only=True))
        assert not requests
    await client.aclose()


async def test_a_name_without_an_address_is_the_upstreams_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    client = WireClient()
    names(monkeypatch)
    with pytest.raises(UpstreamError, match="cannot be reached"):
        await post(client, Target("http://nowhere.example/x", "it", {}, public_only=True))
    await client.aclose()


async def test_no_connection_in_time_is_said_as_that() -> None:
    client = WireClient(connect_timeout_s=0.2)
    with socket.socket() as full:  # takes one connection into its backlog, and no more
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with socket.socket() as first, socket.socket() as second:
            for one in (first, second):
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
            with pytest.raises(UpstreamTimeout, match=r"no connection within 0\.2 s"):
                await post(client, at(port))
    await client.aclose()
