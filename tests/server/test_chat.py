"""Chat completions, completions and embeddings over HTTP, with a scripted model behind them."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from tests.conftest import NoriaServer

HELLO = [{"role": "user", "content": "hello there 你好"}]


def test_answers_whole(server: NoriaServer) -> None:
    answer = server.openai().chat.completions.create(model="scripted", messages=HELLO)
    assert answer.choices[0].message.content == "hello there 你好"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "scripted"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage and answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streams_under_one_id_of_ours(server: NoriaServer) -> None:
    chunks = list(server.openai().chat.completions.create(model="scripted", messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello there 你好"
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {"scripted"}
    assert all(chunk.usage is None for chunk in chunks)


def test_streams_usage_only_when_asked(server: NoriaServer) -> None:
    stream = server.openai().chat.completions.create(
        model="scripted", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    last = list(stream)[-1]
    assert last.choices == []
    assert last.usage and last.usage.completion_tokens == 4


def test_an_alias_answers_and_the_trace_says_so(server: NoriaServer) -> None:
    raw = server.openai().chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=HELLO)
    assert raw.parse().model == "scripted"
    with server.client() as client:
        trace = client.get(f"/v1/noria/traces/{raw.headers['x-noria-trace-id']}").json()
    root = trace["spans"][0]
    call = root["children"][0]
    assert root["name"] == "POST /v1/chat/completions"
    assert call["attributes"]["noria.model.alias"] == "gpt-4o-mini"
    assert call["input"][0]["content"] == "hello there 你好"
    assert call["output"][0]["content"] == "hello there 你好"


@pytest.mark.parametrize("stream", [False, True])
def test_a_stored_completion_is_there_when_the_answer_is(server: NoriaServer, stream: bool) -> None:
    client = server.openai()
    tag = {"case": f"stored-{stream}"}
    answer = client.chat.completions.create(model="scripted", messages=HELLO, store=True, metadata=tag, stream=stream)
    identity = list(answer)[0].id if stream else answer.id
    kept = client.chat.completions.retrieve(identity)
    assert kept.choices[0].message.content == "hello there 你好"
    assert kept.choices[0].finish_reason == "stop"
    assert [row.id for row in client.chat.completions.list(metadata=tag)] == [identity]
    assert [m.content for m in client.chat.completions.messages.list(identity)] == ["hello there 你好"]
    updated = client.chat.completions.update(identity, metadata={"case": "changed"})
    assert updated.metadata == {"case": "changed"}
    assert client.chat.completions.delete(identity).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(identity)


def test_unstored_completions_are_not_kept(server: NoriaServer) -> None:
    client = server.openai()
    answer = client.chat.completions.create(model="scripted", messages=HELLO)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(answer.id)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"foo": 1}, "foo"),
        ({"audio": {"voice": "a", "format": "mp3"}}, "audio"),
        ({"temperature": 3}, "temperature"),
        ({"n": 0}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "x", "zz": 1}]}, "messages[0].zz"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0]"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"model": ""}, "model"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(server: NoriaServer, change: dict[str, object], param: str) -> None:
    body = {"model": "scripted", "messages": HELLO, **change}
    with server.client() as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(param)


def test_unknown_models_suggest_near_ones(server: NoriaServer) -> None:
    with pytest.raises(openai.NotFoundError, match="Did you mean scripted"):
        server.openai().chat.completions.create(model="scriptd", messages=HELLO)


def test_an_embedder_does_not_chat(server: NoriaServer) -> None:
    with pytest.raises(openai.BadRequestError, match="not for chat"):
        server.openai().chat.completions.create(model="scripted-embedding", messages=HELLO)


def test_completions(server: NoriaServer) -> None:
    client = server.openai()
    assert client.completions.create(model="scripted", prompt="one two").choices[0].text == "one two"
    chunks = list(client.completions.create(model="scripted", prompt="one two", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "one two"
    assert chunks[0].id.startswith("cmpl-")


def test_embeddings_as_floats_and_base64_agree(server: NoriaServer) -> None:
    client = server.openai()
    by_default = client.embeddings.create(model="scripted-embedding", input=["a b", "c"]).data  # the client asks for base64
    floats = client.embeddings.create(model="scripted-embedding", input=["a b", "c"], encoding_format="float").data
    assert [row.index for row in floats] == [0, 1]
    assert by_default[0].embedding == pytest.approx(floats[0].embedding, abs=1e-6)
    assert len(floats[0].embedding) == 64


def test_bad_json_and_surrogates_are_the_callers_fault(client) -> None:
    headers = {"content-type": "application/json"}
    assert client.post("/v1/chat/completions", content=b"{", headers=headers).status_code == 400
    assert client.post("/v1/chat/completions", content=b"\xff\xfe", headers=headers).status_code == 400
    lone = b'{"model":"scripted","messages":[{"role":"user","content":"\\ud800"}]}'
    assert client.post("/v1/chat/completions", content=lone, headers=headers).status_code == 400
    deep = b'{"model":"scripted","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert client.post("/v1/chat/completions", content=deep, headers=headers).status_code == 400


def test_unknown_routes_and_methods_have_openais_error_shape(client) -> None:
    assert client.get("/v1/nothing").json()["error"]["type"] == "invalid_request_error"
    assert client.put("/v1/chat/completions").status_code == 405


def test_an_idempotency_key_answers_once(client) -> None:
    body = {"model": "scripted", "messages": HELLO}
    headers = {"idempotency-key": "once-1"}
    first = client.post("/v1/chat/completions", json=body, headers=headers)
    again = client.post("/v1/chat/completions", json=body, headers=headers)
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    other = client.post("/v1/chat/completions", json={**body, "n": 1}, headers=headers)
    assert other.status_code == 409


def test_any_character_may_stand_in_a_metadata_filter(server: NoriaServer) -> None:
    client = server.openai()
    client.chat.completions.create(model="scripted", messages=HELLO, store=True)
    quoted = client.chat.completions.create(model="scripted", messages=HELLO, store=True, metadata={'a"b': "x"})
    with server.client() as http:
        for key, wanted in (('a"b', [quoted.id]), ('"', []), ("a.b", []), ("\\", []), ("", [])):
            answer = http.get("/v1/chat/completions", params={f"metadata[{key}]": "x"})
            assert answer.status_code == 200, answer.text
            assert [row["id"] for row in answer.json()["data"]] == wanted
        assert http.get("/v1/fine_tuning/jobs", params={'metadata[a"b]': "x"}).status_code == 200


def test_metrics_count_calls_tokens_and_time(server: NoriaServer) -> None:
    client = server.openai()
    client.chat.completions.create(model="scripted", messages=HELLO)
    list(client.chat.completions.create(model="scripted", messages=HELLO, stream=True))
    client.responses.create(model="scripted", input="hello")
    with server.client() as http:
        text = http.get("/metrics").text
    assert 'noria_requests_total{model="scripted",route="/v1/chat/completions",status="200"}' in text
    assert 'noria_requests_total{model="scripted",route="/v1/responses",status="200"}' in text
    assert 'noria_tokens_total{direction="output",model="scripted"}' in text
    assert 'noria_ttft_seconds_count{model="scripted"}' in text


def test_recorded_fields_are_in_the_trace(server: NoriaServer) -> None:
    raw = server.openai().chat.completions.with_raw_response.create(
        model="scripted", messages=HELLO, prompt_cache_key="cache-1", service_tier="default"
    )
    with server.client() as http:
        trace = http.get(f"/v1/noria/traces/{raw.headers['x-noria-trace-id']}").text
    assert "cache-1" in trace


def test_stored_messages_come_in_their_order_and_in_pages(server: NoriaServer, client: httpx.Client) -> None:
    said: Any = [{"role": "user", "content": str(number)} for number in range(5)]
    made = server.openai().chat.completions.create(model="scripted", messages=said, store=True)
    path = f"/v1/chat/completions/{made.id}/messages"

    def shown(**query: Any) -> tuple[str, bool]:
        page = client.get(path, params=query).json()
        return "".join(message["content"] for message in page["data"]), page["has_more"]

    names = [message["id"] for message in client.get(path).json()["data"]]
    assert [message.content for message in server.openai().chat.completions.messages.list(made.id)] == list("01234")
    assert shown() == ("01234", False)
    assert shown(order="desc", limit=2) == ("43", True)
    assert shown(after=names[2]) == ("34", False)
    assert shown(after=names[2], order="desc") == ("10", False)
    assert shown(before=names[3], limit=2) == ("12", True)
    assert shown(after=names[0], before=names[3]) == ("12", False)
    for unknown in ("after", "before"):
        answer = client.get(path, params={unknown: "nothing"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, unknown)


def test_files_are_listed_by_ten_thousand(server: NoriaServer, client: httpx.Client) -> None:
    file = server.openai().files.create(file=("a.txt", b"a"), purpose="user_data")
    assert file.id in {row.id for row in server.openai().files.list(limit=10_000)}
    assert client.get("/v1/files", params={"limit": 10_001}).status_code == 400
    assert client.get("/v1/vector_stores", params={"limit": 10_000}).status_code == 400
