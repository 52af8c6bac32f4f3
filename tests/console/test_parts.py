"""Figures, attributes, the API client over a real socket, and who may use the console."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from hypothesis import given
from hypothesis import strategies as st

from noria.console import _format
from noria.console._api import Api
from noria.console._connection import Connection
from noria.console._edge import ConsoleEdge
from noria.console._store_files import parse_attributes, parse_value
from noria.console._waterfall import flatten
from noria.errors import Conflict, NoriaError, Unavailable
from noria.server._files import attachment


def test_figures_are_short_and_exact_enough() -> None:
    assert [_format.seconds(v) for v in (0.0004, 0.0042, 0.036, 1.527, 12.04, 125, 11_220, 187_200, None)] == [
        "400 µs", "4.2 ms", "36 ms", "1.53 s", "12.0 s", "2 min 05 s", "3 h 07 min", "2 d 4 h", "–",
    ]  # fmt: skip
    assert [_format.size(v) for v in (0, 999, 88_700_000, 1_804, 5e12, None)] == [
        "0 B",
        "999 B",
        "88.7 MB",
        "1.8 kB",
        "5000 GB",
        "–",
    ]
    assert [_format.count(v) for v in (0, 12_345, 1_048_576, None)] == ["0", "12,345", "1.0M", "–"]
    assert [_format.money(v) for v in (0, 0.00004, 0.0042, 0.15, 2.5, None)] == [
        "$0",
        "$0.000040",
        "$0.0042",
        "$0.150",
        "$2.50",
        "–",
    ]


@given(st.floats(0, 1e9))
def test_every_duration_and_size_has_a_figure(value: float) -> None:
    assert len(_format.seconds(value)) <= 14
    assert len(_format.size(value * 1000)) <= 9


def test_attributes_are_read_a_line_each() -> None:
    given = 'team = hr\nyear=2026\ndraft = true\ncode = "007"\n\nnote = a = b\n= lost'
    assert parse_attributes(given) == {"team": "hr", "year": 2026, "draft": True, "code": "007", "note": "a = b"}
    assert parse_value("[1]") == "[1]"


def test_a_chain_of_spans_deeper_than_pythons_stack_is_flattened() -> None:
    root: dict[str, object] = {"children": []}
    at = root
    for _ in range(5000):
        child: dict[str, object] = {"children": []}
        at["children"] = [child]
        at = child
    assert [depth for depth, _ in flatten([root])] == list(range(5001))


def _api_app() -> FastAPI:
    app = FastAPI()

    @app.post("/v1/files")
    async def files(file: UploadFile, request: Request) -> dict[str, object]:
        form = await request.form()
        return {"name": file.filename, "size": len(await file.read()), "purpose": form["purpose"]}

    @app.get("/conflict")
    async def conflict(request: Request) -> JSONResponse:
        seen = request.headers.get("authorization")
        return JSONResponse({"error": {"message": f"No: {seen}", "param": "x", "code": "conflict"}}, 409)

    @app.get("/file")
    async def file(name: str) -> PlainTextResponse:
        return PlainTextResponse("x", headers=attachment(name))

    @app.get("/html")
    async def html() -> PlainTextResponse:
        return PlainTextResponse("<h1>Bad gateway</h1>", 502)

    @app.post("/stream")
    async def stream(kind: str) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield 'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
            if kind == "error":
                yield 'data: {"error": {"message": "The engine died.", "code": "engine_died"}}\n\n'
            yield "data: [DONE]\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream", headers={"x-noria-trace-id": "t1"})

    return app


@asynccontextmanager
async def serving(home: Path) -> AsyncIterator[Api]:
    """The app on a real port, announced in a home as a server announces itself."""
    server = uvicorn.Server(uvicorn.Config(_api_app(), port=0, log_level="warning", lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    (home / "server.json").write_text(json.dumps({"url": f"http://127.0.0.1:{port}", "token": "owner"}))
    async with httpx.AsyncClient(trust_env=False) as client:
        yield Api(Connection(home), client, lambda owners: owners)
    server.should_exit = True
    await task


@pytest.mark.parametrize("name", ["plain.txt", 'a"b\r\nX: y.md', "手册.pdf", "<img src=x>.csv"])
async def test_a_file_goes_through_in_pieces_whatever_its_name(tmp_path: Path, name: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1000

    async with serving(tmp_path) as api:
        got = await api.upload(name, "text/plain", pieces())
    assert got["size"] == 3000
    assert got["purpose"] == "assistants"
    assert "X: y" not in got or got["name"].startswith("a")


@pytest.mark.parametrize("name", ["plain.txt", "客服@1.jsonl", 'a"b;c%41.csv'])
async def test_a_download_keeps_its_name(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path) as api:
        assert await api.download("/file", {"name": name}) == (name, b"x")


async def test_failures_come_out_as_noria_errors(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        with pytest.raises(Conflict, match="No: Bearer owner") as found:
            await api.get("/conflict")
        assert found.value.param == "x"
        with pytest.raises(NoriaError, match="answered 502"):
            await api.get("/html")
        async with api.stream("/stream?kind=good", {}) as stream:
            assert stream.trace_id == "t1"
            assert len([event async for event in stream.events()]) == 1
        with pytest.raises(NoriaError, match=r"The engine died\."):
            async with api.stream("/stream?kind=error", {}) as stream:
                assert [event async for event in stream.events()]
        (tmp_path / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:9"}))  # restarted elsewhere, and gone
        with pytest.raises(Unavailable, match="does not answer"):
            await api.get("/conflict")


async def test_a_session_decides_what_key_it_calls_with(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "token": "owner"}))
    async with httpx.AsyncClient() as client:
        for given in (None, "mine", "owner"):
            assert Api(Connection(tmp_path), client, lambda _, given=given: given).endpoint().token == given
        assert Api(Connection(tmp_path), client, lambda owners: owners).endpoint().token == "owner"
    with pytest.raises(Unavailable, match="No Noria server"):
        Connection(tmp_path / "elsewhere").find()


@pytest.mark.parametrize(
    ("host", "origin", "loopback", "status"),
    [
        ("127.0.0.1:8421", None, True, 200),
        ("localhost:8421", "http://localhost:8421", True, 200),
        ("[::1]:8421", None, True, 200),
        ("evil.example", None, True, 403),
        ("127.0.0.1.evil.example", None, True, 403),
        ("127.0.0.1:8421", "http://evil.example", True, 403),
        ("127.0.0.1:8421", "http://127.0.0.1:9000", True, 403),
        ("noria.lan", "http://noria.lan", False, 200),
        ("noria.lan", "http://evil.example", False, 403),
    ],
)
async def test_other_pages_may_not_drive_the_console(host: str, origin: str | None, loopback: bool, status: int) -> None:
    edge = ConsoleEdge(PlainTextResponse("ok"), loopback=loopback)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(edge)) as client:
        answer = await client.get("http://127.0.0.1/", headers={"host": host, **({"origin": origin} if origin else {})})
    assert answer.status_code == status
    if status == 200:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
