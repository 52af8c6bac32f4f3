"""The embedder's process over its socket: OpenAI's client, its limits, its faults; started by the supervisor."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.engines import EngineSpec, Supervisor
from noria.engines.embedding import EmbeddingCard
from noria.engines.embedding._request import parse_request
from noria.errors import InvalidRequest, NotFound, Unavailable


def worker(model: Path) -> EngineSpec:
    command = (sys.executable, "-m", "noria.engines.embedding", "--model", str(model), "--name", "e5")
    return EngineSpec("e5", (*command, "--uds", "{socket}", "--threads", "1"), kind="embedding", memory_mb=100)


@pytest.fixture(scope="module")
def socket_path(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """One worker for all tests of this file."""
    path = str(tmp_path_factory.mktemp("s") / "e5.sock")
    command = [part.replace("{socket}", path) for part in worker(tiny_model).command]
    process = subprocess.Popen(command)
    yield path
    process.terminate()
    assert process.wait(10) in (0, -signal.SIGTERM)


@pytest.fixture
async def client(socket_path: str) -> AsyncGenerator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=socket_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=30) as made:
        for _ in range(500):
            try:
                await made.get("/health")
                break
            except httpx.TransportError:
                await asyncio.sleep(0.02)
        yield made


async def ask(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"model": "e5", **body})


async def vectors(client: httpx.AsyncClient, **body: Any) -> np.ndarray:
    answer = (await ask(client, **body)).raise_for_status().json()
    assert [row["index"] for row in answer["data"]] == list(range(len(answer["data"])))
    return np.array([row["embedding"] for row in answer["data"]])


async def test_what_openais_own_client_sees(client: httpx.AsyncClient) -> None:
    official = openai.AsyncOpenAI(base_url="http://engine/v1", api_key="none", http_client=client, max_retries=0)
    answer = await official.embeddings.create(model="e5", input=["a", "abc"])  # it asks for base64 by itself
    assert [len(row.embedding) for row in answer.data] == [64, 64]
    assert answer.usage.prompt_tokens == len("query: a") + len("query: abc") + 4
    assert [model.id async for model in official.models.list()] == ["e5"]
    with pytest.raises(openai.BadRequestError, match="at most 64") as caught:
        await official.embeddings.create(model="e5", input="x" * 100)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        await official.embeddings.create(model="other", input="x")


async def test_shapes_of_input_and_formats(client: httpx.AsyncClient) -> None:
    (one,) = await vectors(client, input="a wheel")
    same = await vectors(client, input=["b", "a wheel"])
    assert same[1] @ one > 0.999
    ids = [0, *(4 + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 :".index(c) for c in "query: a wheel"), 2]
    for given_ids in (ids, [ids]):
        assert (await vectors(client, input=given_ids))[0] @ one > 0.9999
    encoded = (await ask(client, input="a wheel", encoding_format="base64")).json()["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(encoded), "<f4"), one, atol=1e-7)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-3)
    assert (await ask(client, input="a", dimensions=64)).status_code == 200


async def test_kinds_of_input_have_their_prefixes(client: httpx.AsyncClient) -> None:
    plain, query, passage = [
        (await vectors(client, input="water", **extra))[0] for extra in ({}, {"input_type": "query"}, {"input_type": "passage"})
    ]
    assert plain @ query > 0.9999
    assert plain @ passage < 0.9999
    (own,) = await vectors(client, input="passage: water")
    assert own @ passage > 0.9999, "a prefix that the caller has put is not doubled"


async def test_truncation_is_asked_for(client: httpx.AsyncClient) -> None:
    long, cut = "a" * 100, "a" * (62 - len("query: "))
    answer = await ask(client, input=long, truncate=True)
    assert answer.json()["usage"]["prompt_tokens"] == 64
    assert (await vectors(client, input=cut))[0] @ np.array(answer.json()["data"][0]["embedding"]) > 0.9999


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": ""}, "input", "empty_input"),
        ({"input": []}, "input", "empty_input"),
        ({"input": ["a", ""]}, "input[1]", "empty_input"),
        ({"input": [[0, 2], []]}, "input[1]", "empty_input"),
        ({"input": [9, 8, 7]}, "input", "foreign_tokens"),
        ({"input": [0, 299_999, 2]}, "input", "foreign_tokens"),
        ({"input": ["a"] * 2049}, "input", "too_many_inputs"),
        ({"input": {"text": "a"}}, "input", None),
        ({"input": [True]}, "input", None),
        ({"input": "a", "dimensions": 32}, "dimensions", "invalid_dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", None),
        ({"input": "a", "instruction": "x"}, "instruction", "unsupported_parameter"),
        ({"model": "e5"}, "input", None),
    ],
)
async def test_faults_name_their_field(client: httpx.AsyncClient, body: dict[str, Any], param: str, code: str | None) -> None:
    answer = await ask(client, **body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")


async def test_odd_requests(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/embeddings", content=b"{")).status_code == 400
    assert (await client.post("/v1/embeddings")).status_code == 400
    assert (await client.post("/v1/embeddings", content=b"[1]")).status_code == 400
    assert (await client.get("/v1/nothing")).status_code == 404
    assert (await client.post("/v1/embeddings", content=b" " * (33 * 2**20))).status_code == 413
    assert (await client.get("/health")).json()["status"] == "ok"


async def test_a_client_that_leaves_takes_its_work_along(client: httpx.AsyncClient) -> None:
    body = {"model": "e5", "input": ["a" * 50] * 2000}
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/v1/embeddings", json=body, timeout=0.15)
    deadline = time.monotonic() + 3
    while (await client.get("/health")).json()["waiting_tokens"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_many_clients_at_once(client: httpx.AsyncClient) -> None:
    texts = [f"number {number} of many" for number in range(60)]
    together = await vectors(client, input=texts)
    apart = await asyncio.gather(*(vectors(client, input=text) for text in texts))
    assert min(float(row @ one[0]) for row, one in zip(together, apart, strict=True)) > 0.999


async def test_a_folder_that_is_no_model_is_reported(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "run", 4096)
    with pytest.raises(Unavailable, match="does not describe an embedder"):
        await supervisor.warm(worker(tmp_path))
    await supervisor.aclose()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["model", "input", "dimensions", "user", "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_any_body_is_a_request_or_a_named_fault(value: Any) -> None:
    card = EmbeddingCard(
        dimensions=4, max_tokens=8, vocabulary=9, bos_id=0, eos_id=2, pad_id=1, prefixes={}, default_input_type="query"
    )
    try:
        body = orjson.dumps(value)
    except (TypeError, UnicodeEncodeError):
        return
    with contextlib.suppress(InvalidRequest, NotFound):
        assert parse_request(body, "e5", card).model == "e5"


@pytest.mark.real_model
async def test_the_default_embedder_finds_and_survives_kill_9(real_model: Path, tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, 4096)
    spec = worker(real_model)
    passages = [
        "The wheel is turned by the stream and lifts its water into the aqueduct.",
        "A span records one step of a request: its inputs, outputs, tokens and cost.",
        "向量数据库保存文本的嵌入，用于语义检索。",
    ]

    async def embed(**body: Any) -> np.ndarray:
        async with supervisor.lease(spec) as endpoint:
            transport = httpx.AsyncHTTPTransport(uds=str(endpoint.socket_path))
            async with httpx.AsyncClient(transport=transport, base_url=endpoint.base_url, timeout=60) as made:
                return await vectors(made, **body)

    stored = await embed(input=passages, input_type="passage")
    for number, question in enumerate(
        ["How does water get into the aqueduct?", "What does each step of a request cost?", "嵌入存放在哪里？"]
    ):
        (asked,) = await embed(input=question, input_type="query")
        assert int(np.argmax(stored @ asked)) == number

    task = asyncio.create_task(embed(input=["long ingest " * 60] * 500, input_type="passage"))
    await asyncio.sleep(0.5)
    pid = supervisor.status()[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Unavailable) as caught:
        await task
    assert caught.value.retry_after_s
    again = await embed(input=passages, input_type="passage")
    assert (again * stored).sum(1).min() > 0.999
    await supervisor.aclose()
