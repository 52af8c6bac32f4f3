"""From an engine's events to what a client reads: prompt numbers after a pre-emption, and streams that fail midway."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import tiny_decoder as tiny
from decoder_reference import forward, log_softmax

from noria.engines.openvino._answer import Choice
from noria.engines.openvino._app import WorkerApp
from noria.engines.openvino._engine import Engine, Event
from noria.engines.openvino._job import Job
from noria.engines.openvino._sampler import Sampled
from noria.engines.openvino._scheduler import Limits
from noria.engines.openvino._sequence import Sampling, Sequence
from noria.engines.openvino._serving import ServeOptions, load
from noria.engines.openvino._tokenizer import Tokenizer
from noria.engines.openvino._writer import CompletionWriter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder / "tokenizer.json")


def job_of(sequence: Sequence, **given: Any) -> Job:
    fields: dict[str, Any] = {"kind": "completion", "id": "cmpl-1", "created": 0, "model": "tiny", "stop": (), "stream": False}
    fields |= {"include_usage": False, "constrained": False, "num_prompt_tokens": sequence.num_prompt, "num_choices": 1}
    return Job(sequences=(sequence,), **{**fields, **given})


@pytest.mark.parametrize("when", ["reading", "answering"])
def test_prompt_logprobs_survive_a_preemption(tokenizer: Tokenizer, when: str) -> None:
    """The prompt is read anew in other chunks: two tokens a step beside the older answer, three or more alone."""
    model = tiny.paged(10)
    engine = Engine(model, Limits(model.block_size, 512, 3 if when == "reading" else 7, 8), frozenset(), lambda _: None)
    rng = np.random.default_rng(2)
    older = Sequence(rng.integers(0, 256, 100).tolist(), Sampling(100, temperature=0.0))
    prompt = rng.integers(0, 256, 150).tolist()
    echoed = Sequence(list(prompt), Sampling(40, temperature=0.0, top_logprobs=1), wants_prompt_logprobs=True)
    job = job_of(echoed, echo=True)
    choice, pieces = Choice(0, echoed, job, tokenizer), []
    engine.scheduler.add(older)
    while engine.scheduler.running or engine.scheduler.waiting:
        if older.num_generated == 1 and not echoed.arrived_s:
            engine.scheduler.add(echoed)
        pieces += [choice.take(event) for event in engine.step() if event.sequence is echoed]
    assert echoed.num_preempted > 0
    exact = log_softmax(forward(tiny.SPEC, tiny.Weights(), prompt))
    given = [numbers.logprob for numbers in choice.prompt_logprobs]
    assert given == pytest.approx([exact[i][prompt[i + 1]] for i in range(149)], abs=2e-3)
    answer = CompletionWriter(job, tokenizer).whole([(choice, pieces)], {})["choices"][0]
    assert len(answer["logprobs"]["tokens"]) == 190


CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
STOPPED = [
    ("plain text STOP", False, "plain text ", "stop"),
    ("1 < 2 <STOP", False, "1 < 2 <", "stop"),
    (CALL + "\nSTOP", False, "", "tool_calls"),
    (CALL[:30] + "STOP", False, "", "length"),
    (CALL[:-12] + "STOP", False, "", "length"),
    (CALL + "\nSTOP", True, "", "length"),
]


@pytest.mark.parametrize(("written", "constrained", "text", "finish"), STOPPED)
def test_a_stop_string_cuts_calls_but_not_text(
    tokenizer: Tokenizer, written: str, constrained: bool, text: str, finish: str
) -> None:
    sequence = Sequence([1], Sampling(99))
    job = job_of(sequence, stop=("STOP",), reads_calls=True, constrained=constrained)
    choice = Choice(0, sequence, job, tokenizer)
    pieces = [choice.take(Event(sequence, (Sampled(token, None),))) for token in tokenizer.encode(written)]
    assert "".join(piece.text for piece in pieces) == text
    assert choice.finish == finish


@asynccontextmanager
async def running(folder: Path) -> AsyncGenerator[WorkerApp]:
    app = WorkerApp("tiny", functools.partial(load, ServeOptions(folder, "tiny", cache_mb=8)))
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan"}, told.get, said.put))
    told.put_nowait({"type": "lifespan.startup"})
    await said.get()
    for _ in range(1000):
        if app._served is not None:  # pyright: ignore[reportPrivateUsage]
            break
        await asyncio.sleep(0.02)
    try:
        yield app
    finally:
        told.put_nowait({"type": "lifespan.shutdown"})
        await life


async def post(app: WorkerApp, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages that the application sends."""
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    told.put_nowait({"type": "http.request", "body": orjson.dumps(body)})
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": path, "headers": []}, told.get, send)
    return sent


async def test_a_stream_that_fails_midway_ends_with_an_event(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = CompletionWriter.chunk, 0

    def fail_at_the_third(self: CompletionWriter, *given: Any) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ValueError("a secret of ours")
        return write(self, *given)

    monkeypatch.setattr(CompletionWriter, "chunk", fail_at_the_third)
    async with running(folder) as app:
        body = {"model": "tiny", "prompt": "hello", "stream": True, "max_tokens": 50, "logit_bias": {str(tiny.END): -100}}
        sent = await post(app, "/v1/completions", body)
    assert [message["type"] for message in sent].count("http.response.start") == 1
    assert sent[-1]["more_body"] is False
    last = orjson.loads(sent[-1]["body"].removeprefix(b"data: "))
    assert last["error"]["code"] == "engine_error"
    assert "secret" not in last["error"]["message"]


async def test_a_long_text_is_tokenised_beside_the_event_loop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, threads = Tokenizer.encode, list[threading.Thread]()

    def noting(self: Tokenizer, text: str) -> list[int]:
        threads.append(threading.current_thread())
        return encode(self, text)

    monkeypatch.setattr(Tokenizer, "encode", noting)
    async with running(folder) as app:
        long = await post(app, "/v1/noria/tokenize", {"text": "x" * 100_000})
        await post(app, "/v1/noria/tokenize", {"messages": [{"role": "user", "content": "x" * 100_000}]})
        await post(app, "/v1/noria/tokenize", {"text": "short"})
    assert orjson.loads(long[1]["body"])["num_tokens"] == 100_000
    assert [thread is threading.main_thread() for thread in threads] == [False, False, True]
