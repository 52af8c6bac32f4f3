"""The worker process over a real socket, with a tiny random model."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import tiny_decoder as tiny

from noria.tracing._otlp import from_json

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": "pick", "parameters": SCHEMA}}]


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("worker")
    tiny.write_folder(folder / "model")
    command = [sys.executable, "-m", "noria.engines.openvino", "--model", str(folder / "model"), "--name", "tiny"]
    worker = subprocess.Popen([*command, "--uds", str(folder / "s"), "--cache-mb", "8"])
    yield folder / "s"
    worker.terminate()
    assert worker.wait(10) is not None


@pytest.fixture(scope="module")
def http(socket: Path) -> Iterator[httpx.Client]:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://worker", timeout=60) as client:
        for _ in range(300):
            try:
                if client.get("/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield client


@pytest.fixture(scope="module")
def client(http: httpx.Client) -> openai.OpenAI:
    return openai.OpenAI(base_url="http://worker/v1", api_key="none", http_client=http, max_retries=0)


def ask(client: openai.OpenAI, **given: Any) -> Any:
    fields: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "seed": 1, "max_tokens": 12}
    return client.chat.completions.create(**{**fields, **given})


def idle(http: httpx.Client) -> dict[str, Any]:
    for _ in range(100):
        state = http.get("/health").json()
        if state["running"] == state["waiting"] == 0:
            break
        time.sleep(0.02)
    return state


def test_health_and_models(http: httpx.Client) -> None:
    state = http.get("/health").json()
    assert (state["status"], state["model"]) == ("ready", "tiny")
    assert state["free_blocks"] <= state["num_blocks"]
    (model,) = http.get("/v1/models").json()["data"]
    assert (model["id"], model["context_length"]) == ("tiny", 1024)


def test_a_streamed_answer_is_the_whole_answer(client: openai.OpenAI) -> None:
    whole = ask(client, n=2, logprobs=True, top_logprobs=3)
    stream = ask(client, n=2, logprobs=True, top_logprobs=3, stream=True, stream_options={"include_usage": True})
    texts, finishes, tokens, usage = {0: "", 1: ""}, {}, {0: [], 1: []}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            finishes[choice.index] = choice.finish_reason or finishes.get(choice.index)
            tokens[choice.index] += choice.logprobs.content if choice.logprobs else []
    for choice in whole.choices:
        assert texts[choice.index] == choice.message.content
        assert finishes[choice.index] == choice.finish_reason
        assert [t.token for t in tokens[choice.index]] == [t.token for t in choice.logprobs.content]
        assert all(len(t.top_logprobs) == 3 for t in choice.logprobs.content)
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert texts[0] != texts[1]


def test_cached_tokens_are_counted(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "x" * 100}]
    assert ask(client, messages=messages).usage.prompt_tokens_details.cached_tokens == 0
    assert ask(client, messages=messages).usage.prompt_tokens_details.cached_tokens >= 96


def test_stop_strings_end_the_answer_before_them(client: openai.OpenAI) -> None:
    text = ask(client, temperature=0).choices[0].message.content
    stop = text[3:5]
    cut = ask(client, temperature=0, stop=[stop, "never"]).choices[0]
    assert cut.message.content == text[: text.find(stop)]
    assert cut.finish_reason == "stop"


@pytest.mark.parametrize("seed", range(4))
def test_structured_answers_are_valid_when_they_stop(client: openai.OpenAI, seed: int) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}
    choice = ask(client, response_format=form, seed=seed, max_tokens=100).choices[0]
    assert choice.finish_reason == "stop"
    value = json.loads(choice.message.content)
    assert set(value) == {"a", "b"}
    cut = ask(client, response_format=form, seed=seed, max_tokens=5).choices[0]
    assert cut.finish_reason == "length"


def test_choices_regex_and_grammar(client: openai.OpenAI) -> None:
    def text(**outputs: Any) -> str:
        answer = ask(client, extra_body={"structured_outputs": outputs}, max_tokens=60)
        assert answer.choices[0].finish_reason == "stop"
        return answer.choices[0].message.content

    assert text(choice=["yes", "no"]) in ("yes", "no")
    assert len(text(regex="[0-9]{3}-[ab]{4}")) == 8
    assert text(grammar='start: "a" ("b" | "c") "d"') in ("abd", "acd")
    assert json.loads(text(json={"type": "boolean"})) in (True, False)


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_tool_is_called(client: openai.OpenAI, stream: bool) -> None:
    choice = {"type": "function", "function": {"name": "pick"}}
    answer = ask(client, tools=TOOLS, tool_choice=choice, max_tokens=150, stream=stream)
    if stream:
        names, arguments, finish = [], "", None
        for chunk in answer:
            for call in chunk.choices[0].delta.tool_calls or []:
                names += [call.function.name] if call.function.name else []
                arguments += call.function.arguments or ""
            finish = chunk.choices[0].finish_reason or finish
    else:
        (call,) = answer.choices[0].message.tool_calls
        names, arguments, finish = [call.function.name], call.function.arguments, answer.choices[0].finish_reason
        assert call.id.startswith("call_")
        assert answer.choices[0].message.content is None
    assert (names, finish) == (["pick"], "tool_calls")
    assert set(json.loads(arguments)) == {"a", "b"}


def test_auto_tools_may_answer_in_text(client: openai.OpenAI) -> None:
    choice = ask(client, tools=TOOLS, tool_choice="auto").choices[0]
    assert choice.finish_reason in ("length", "stop")
    assert choice.message.content
    stop = choice.message.content[3:5]
    cut = ask(client, tools=TOOLS, tool_choice="auto", stop=stop).choices[0]
    assert (cut.message.content, cut.finish_reason) == (choice.message.content.partition(stop)[0], "stop")


def test_completions_echo_what_the_harness_reads(client: openai.OpenAI) -> None:
    prompt = list(b"The capital of France")
    given = {"model": "tiny", "max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0}
    one = client.completions.create(prompt=[prompt], **given).choices[0]
    numbers = one.logprobs
    assert one.text.startswith("The capital of France")
    assert numbers.token_logprobs[0] is None
    assert len(numbers.tokens) == len(numbers.token_logprobs) == len(numbers.text_offset) == len(prompt) + 1
    assert numbers.text_offset[:4] == [0, 1, 2, 3]
    assert all(
        lp <= max(top.values()) + 1e-6 for lp, top in zip(numbers.token_logprobs[1:], numbers.top_logprobs[1:], strict=True)
    )
    zero = client.completions.create(prompt="The capital of France", **{**given, "max_tokens": 0}).choices[0]
    assert zero.text == "The capital of France"
    assert zero.logprobs.token_logprobs[1:] == pytest.approx(numbers.token_logprobs[1:-1], abs=1e-4)
    several = client.completions.create(model="tiny", prompt=["a", "bc"], max_tokens=2, n=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]


REFUSED = [
    ({"foo": 1}, "foo", "unknown_parameter"),
    ({"audio": {}}, "audio", "unsupported_parameter"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, None, None),
    ({"temperature": 3}, "temperature", "invalid_value"),
    ({"max_tokens": 2000}, "max_tokens", "context_length_exceeded"),
    ({"messages": [{"role": "user", "content": "x" * 1100}]}, "messages", "context_length_exceeded"),
    ({"logit_bias": {"999": 1}}, "logit_bias", None),
    ({"logit_bias": {"01": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"9" * 5000: 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias", "invalid_value"),
    ({"repetition_penalty": 1e-40}, "repetition_penalty", "invalid_value"),
    ({"top_logprobs": 2}, "top_logprobs", None),
    ({"stop": ["a"] * 5}, "stop", None),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}}, None, None),
    ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex", None),
    ({"tool_choice": "required"}, "tool_choice", None),
]


@pytest.mark.parametrize(("given", "param", "code"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_not_honoured_is_a_400(http: httpx.Client, given: dict[str, Any], param: str | None, code: str | None) -> None:
    fields = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], **given}
    answer = http.post("/v1/chat/completions", json=fields)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert param is None or error["param"] == param
    assert code is None or error["code"] == code


def test_other_refusals(http: httpx.Client, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        ask(client, model="other")
    with pytest.raises(openai.BadRequestError, match="suffix"):
        client.completions.create(model="tiny", prompt="a", suffix="b")
    with pytest.raises(openai.BadRequestError, match="best_of"):
        client.completions.create(model="tiny", prompt="a", best_of=2)
    for prompt in ([], [[]], ""):
        answer = http.post("/v1/completions", json={"model": "tiny", "prompt": prompt, "stream": True}, timeout=5)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")
    assert http.post("/v1/chat/completions", content=b"{").status_code == 400
    assert http.get("/nothing").status_code == 404


def test_tokenize_counts_what_chat_counts(http: httpx.Client, client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "hello"}]
    counted = http.post("/v1/noria/tokenize", json={"messages": messages}).json()["num_tokens"]
    assert counted == ask(client, messages=messages).usage.prompt_tokens
    assert http.post("/v1/noria/tokenize", json={"text": "né"}).json()["num_tokens"] == 3


def engine_spans(encoded: bytes | str) -> dict[str, dict[str, Any]]:
    """Attributes of each span by its name."""
    records, problems = from_json(encoded.encode() if isinstance(encoded, str) else encoded, "proj_default")
    assert not problems
    assert {record.trace_id for record in records} == {TRACEPARENT[3:35]}
    whole, *parts = records
    assert whole.parent_id == TRACEPARENT[36:52]
    assert {part.parent_id for part in parts} == {whole.span_id}
    assert [whole.start_ns, *(part.end_ns for part in parts)] == [*(part.start_ns for part in parts), whole.end_ns]
    return {record.name: record.attributes for record in records}


def test_spans_of_its_own_come_to_a_traced_request(http: httpx.Client) -> None:
    words = " ".join(["hello"] * 20)
    body: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": words}], "max_tokens": 4}
    body["logit_bias"] = {str(tiny.END): -100}
    headers = {"traceparent": TRACEPARENT}
    assert "x-noria-spans" not in http.post("/v1/chat/completions", json=body).headers
    answer = http.post("/v1/chat/completions", json=body, headers=headers)
    spans = engine_spans(answer.headers["x-noria-spans"])
    usage = answer.json()["usage"]
    assert list(spans) == ["engine tiny", "queue", "prefill", "decode"]
    assert spans["prefill"]["noria.engine.prompt_tokens"] == usage["prompt_tokens"]
    assert spans["prefill"]["noria.engine.cached_tokens"] == usage["prompt_tokens_details"]["cached_tokens"] > 0
    decode = spans["decode"]
    assert (decode["noria.engine.output_tokens"], decode["noria.engine.finish_reason"]) == (4, "length")
    assert decode["noria.engine.steps"] >= 1
    assert decode["noria.engine.mean_batch"] >= 1
    streamed = http.post("/v1/chat/completions", json={**body, "stream": True, "n": 2}, headers=headers).content
    before, comment, after = streamed.partition(b"data: [DONE]\n\n: noria-spans ")
    assert comment
    assert b"noria" not in before
    spans = engine_spans(after.removesuffix(b"\n\n"))
    assert spans["engine tiny"]["noria.engine.choices"] == 2
    assert spans["decode"]["noria.engine.output_tokens"] == 8
    assert 1 < spans["decode"]["noria.engine.mean_batch"] <= 2
    echoed = {"model": "tiny", "prompt": "hello", "echo": True, "max_tokens": 0}
    spans = engine_spans(http.post("/v1/completions", json=echoed, headers=headers).headers["x-noria-spans"])
    assert spans["decode"]["noria.engine.output_tokens"] == 0


def test_a_client_that_leaves_frees_its_slot(http: httpx.Client, socket: Path) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 400, "stream": True}
    body["logit_bias"] = {str(tiny.END): -100}

    def leave_early() -> None:
        with (
            httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://worker") as one,
            one.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            next(answer.iter_lines())

    threads = [threading.Thread(target=leave_early) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = idle(http)
    assert (state["running"], state["waiting"], state["free_blocks"]) == (0, 0, state["num_blocks"])
