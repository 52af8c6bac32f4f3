"""Remote models that misbehave: what the caller sees of it, and how often the upstream was asked."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import httpx
import openai
import pytest

from noria.models import builtin_providers, origin_of
from tests.conftest import NoriaServer

from .conftest import remote
from .upstream import ANSWER, Upstream, answer, chunk, encoded, failure, good, raw_stream, slow, stream

HELLO: Any = [{"role": "user", "content": "hello"}]


def ask(server: NoriaServer, **fields: Any) -> Any:
    return server.openai().chat.completions.create(**{"model": "remote", "messages": HELLO, **fields})


def text(chunks: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def events(server: NoriaServer, **fields: Any) -> list[str]:
    """The `data:` lines of a stream, as they arrive."""
    body = {"model": "remote", "messages": HELLO, "stream": True, **fields}
    with server.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        return [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data:")]


def test_answers_and_counts_what_it_cost(server: NoriaServer, upstream: Upstream) -> None:
    raw = server.openai().chat.completions.with_raw_response.create(model="remote", messages=HELLO)
    assert raw.parse().choices[0].message.content == "well done"
    assert raw.parse().model == "remote"
    assert upstream.seen[0].body["model"] == "upstream-model"
    assert upstream.seen[0].headers["traceparent"].split("-")[1] == raw.headers["x-noria-trace-id"]
    with server.client() as client:
        spans = client.get(f"/v1/noria/traces/{raw.headers['x-noria-trace-id']}").json()["spans"]
    call = spans[0]["children"][0]["attributes"]
    assert call["gen_ai.usage.input_tokens"] == 1000
    # 600 fresh at 2, 400 cached at 1, 100 out at 10 dollars per million
    assert [value for name, value in call.items() if "cost" in name] == [pytest.approx((600 * 2 + 400 + 100 * 10) / 1e6)]


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("wanted", [False, True])
def test_usage_reaches_only_who_asked(server: NoriaServer, upstream: Upstream, spaced: bool, wanted: bool) -> None:
    upstream.plan(stream(chunk({"content": "well "}), chunk({"content": "done"}), spaced=spaced))
    options = {"stream_options": {"include_usage": True}} if wanted else {}
    chunks = list(ask(server, stream=True, **options))
    assert upstream.seen[0].body["stream_options"] == {"include_usage": True}
    assert text(chunk for chunk in chunks if chunk.choices) == "well done"
    assert [chunk.usage is not None for chunk in chunks] == [False] * 3 + [True] * wanted
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {"remote"}


def test_asks_again_after_429_and_500(server: NoriaServer, upstream: Upstream) -> None:
    upstream.plan(failure(429, retry_after="1"), failure(500))
    begun = time.monotonic()
    assert ask(server, timeout=20).choices[0].message.content == "well done"
    assert len(upstream.seen) == 3
    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 409, 410, 422, 451, 302])
def test_only_what_may_pass_is_asked_again(server: NoriaServer, upstream: Upstream, status: int) -> None:
    upstream.plan(failure(status), failure(status))
    with pytest.raises(openai.APIStatusError) as error:
        ask(server)
    assert len(upstream.seen) == 1
    ours = {400: 400, 404: 404, 422: 400}.get(status, 502)
    assert error.value.status_code == ours
    # OpenAI's clients ask again after any 5xx, unless told that it is of no use.
    assert error.value.response.headers.get("x-should-retry") == ("false" if ours == 502 else None)


def test_gives_up_at_once_when_told_to_wait_long(server: NoriaServer, upstream: Upstream) -> None:
    upstream.plan(failure(429, retry_after="120"))
    with pytest.raises(openai.RateLimitError) as error:
        ask(server)
    assert error.value.response.headers["retry-after"] == "120"
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    ("behaviour", "kind", "asked"),
    [
        (failure(400, "bad temperature"), openai.BadRequestError, 1),
        (failure(401), openai.InternalServerError, 1),
        (failure(404, "no such model"), openai.NotFoundError, 1),
        (failure(500), openai.InternalServerError, 3),
        (answer(b"<html>oops</html>"), openai.InternalServerError, 1),
        (answer([1, 2]), openai.InternalServerError, 1),
        (answer({"error": {"message": "no credit", "code": 402}}), openai.InternalServerError, 1),
        (answer(b"", 307, location="http://127.0.0.1:1/"), openai.InternalServerError, 1),
    ],
)
def test_failures_keep_their_kind(
    server: NoriaServer, upstream: Upstream, behaviour: Any, kind: type[openai.APIStatusError], asked: int
) -> None:
    upstream.plan(*[behaviour] * 3)
    with pytest.raises(kind) as error:
        ask(server)
    assert error.value.status_code != 500
    assert "unexpected" not in error.value.message
    assert len(upstream.seen) == asked


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
def test_a_slow_upstream_is_a_timeout(server: NoriaServer, upstream: Upstream, streaming: bool) -> None:
    behaviour = stream(chunk({"content": "late"}), first_s=30) if streaming else slow(30, good)
    upstream.plan(*[behaviour] * 3)
    with pytest.raises(openai.APIStatusError) as error:
        ask(server, stream=streaming)
    assert error.value.status_code == 504
    assert "within 3 s" in error.value.message
    assert len(upstream.seen) == 1, "an answer that takes too long is not paid for again"


def test_a_card_s_defaults_hold_where_the_caller_says_nothing(server: NoriaServer, upstream: Upstream) -> None:
    server.add_model(remote("steady", upstream, sampling={"temperature": 0.1, "top_p": 0.5}, max_output_tokens=40))
    ask(server, model="steady")
    sent = upstream.seen[-1].body
    assert (sent["temperature"], sent["top_p"], sent["max_completion_tokens"]) == (0.1, 0.5, 40)
    ask(server, model="steady", temperature=1, max_tokens=7)
    sent = upstream.seen[-1].body
    assert (sent["temperature"], sent["top_p"], sent["max_tokens"]) == (1, 0.5, 7)
    assert "max_completion_tokens" not in sent
    ask(server)
    assert not {"temperature", "max_tokens", "max_completion_tokens"} & upstream.seen[-1].body.keys()


def test_nothing_is_retried_once_a_piece_has_come(server: NoriaServer, upstream: Upstream) -> None:
    upstream.plan(stream(chunk({"content": "half"}), end=False))
    seen = events(server)
    assert json.loads(seen[0])["choices"][0]["delta"]["content"] == "half"
    assert "error" in json.loads(seen[-1])
    assert "[DONE]" not in seen
    assert len(upstream.seen) == 1


def test_a_stream_without_its_end_says_so(server: NoriaServer, upstream: Upstream) -> None:
    """An upstream that closes the connection properly but never sent [DONE] has failed all the same."""
    upstream.plan(raw_stream(encoded(chunk({"content": "half"}), done=False)))
    assert json.loads(events(server)[-1])["error"]["code"] == "stream_cut"


def test_an_error_inside_a_stream_is_passed_on_once(server: NoriaServer, upstream: Upstream) -> None:
    failed = b'data: {"error": {"message": "overloaded", "code": "x"}}\n\n'
    upstream.plan(raw_stream(encoded(chunk({"content": "half"}), done=False), failed))
    with pytest.raises(openai.APIError, match="overloaded"):
        list(ask(server, stream=True))
    upstream.plan(raw_stream(encoded(chunk({"content": "half"}), done=False), failed))
    assert sum('"error"' in event for event in events(server)) == 1


def test_text_that_looks_like_the_protocol_is_text(server: NoriaServer, upstream: Upstream) -> None:
    odd = 'data: [DONE]\n\ndata: {"id":"x","usage":{"a":1},"choices":[]}'
    upstream.plan(stream(chunk({"content": odd}), chunk({"content": "!"})))
    assert text(ask(server, stream=True)) == odd + "!"


def test_any_line_ends_cuts_and_key_orders_do(server: NoriaServer, upstream: Upstream) -> None:
    call = {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
    chunks = [
        dict(sorted(chunk({"content": "水"}).items())),
        dict(sorted(chunk(call).items())),
        chunk({"content": "!"}, id="", model=""),
    ]
    data = encoded(*chunks, spaced=True).replace(b"\n", b"\r\n")
    upstream.plan(raw_stream(*[data[i : i + 1] for i in range(len(data))]))
    got = list(ask(server, stream=True))
    assert text(got) == "水!"
    assert len({chunk.id for chunk in got}) == 1
    assert got[0].id.startswith("chatcmpl-")
    assert {chunk.model for chunk in got} == {"remote"}
    assert got[1].choices[0].delta.tool_calls[0].id == "call_1"


def test_a_stored_stream_is_kept_whatever_its_line_ends(server: NoriaServer, upstream: Upstream) -> None:
    upstream.plan(raw_stream(encoded(chunk({"content": "kept"})).replace(b"\n", b"\r\n")))
    chunks = list(ask(server, stream=True, store=True))
    assert server.openai().chat.completions.retrieve(chunks[0].id).choices[0].message.content == "kept"


def test_redirects_are_not_followed(server: NoriaServer, upstream: Upstream) -> None:
    upstream.plan(*[answer(b"", 302, location=f"{upstream.url}/elsewhere")] * 3)
    with pytest.raises(openai.InternalServerError, match="redirect"):
        ask(server)
    assert {seen.path for seen in upstream.seen} == {"/v1/chat/completions"}


def test_one_models_call_does_not_cut_anothers_stream(server: NoriaServer, upstream: Upstream) -> None:
    """An engine elsewhere and a provider at the same address have connections of their own."""
    base = upstream.url.removesuffix("/v1")
    server.add_model({"id": "elsewhere", "source": "engine", "engine": "url", "base_url": base})
    upstream.plan(stream(*[chunk({"content": f"{i} "}) for i in range(8)], pause_s=0.1))
    running = iter(ask(server, stream=True))
    got = [next(running)]
    ask(server, model="elsewhere")
    ask(server)
    assert text([*got, *running]) == "0 1 2 3 4 5 6 7 "


@pytest.mark.parametrize("streaming", [False, True])
def test_the_upstream_is_told_when_its_client_leaves_before_the_answer(
    server: NoriaServer, upstream: Upstream, streaming: bool
) -> None:
    upstream.plan(slow(1.5, good))
    body = {"model": "remote", "messages": HELLO, "stream": streaming}
    with server.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json=body, timeout=0.4)
    assert upstream.seen[0].gone.wait(0.9)
    with server.client() as client:
        assert client.get("/v1/noria/status").json()["running_calls"] == 0


# --- credentials and dialects -----------------------------------------------------------------------------------------


def test_a_key_comes_from_the_environment_or_the_store(server: NoriaServer, upstream: Upstream) -> None:
    server.add_model(remote("from-env", upstream, provider="vllm"))
    ask(server, model="from-env")
    assert upstream.seen[-1].headers["authorization"] == "Bearer sk-from-env"
    server.add_model(remote("from-store", upstream, provider="azure"))
    with pytest.raises(openai.BadRequestError, match="AZURE_OPENAI_API_KEY"):
        ask(server, model="from-store")
    with server.client() as client:
        client.put("/v1/noria/providers/azure/credential", json={"value": "sk-stored"}).raise_for_status()
        ask(server, model="from-store", max_completion_tokens=5)
        assert upstream.seen[-1].headers["api-key"] == "sk-stored"
        assert "authorization" not in upstream.seen[-1].headers
        assert upstream.seen[-1].body["max_completion_tokens"] == 5
        assert b"sk-stored" not in (server.home / "noria.db").read_bytes()
        client.delete("/v1/noria/providers/azure/credential").raise_for_status()
    with pytest.raises(openai.BadRequestError):
        ask(server, model="from-store")


def state(server: NoriaServer, model: str) -> str:
    with server.client() as client:
        return client.get(f"/v1/noria/models/{model}").json()["state"]


@pytest.mark.parametrize("provider", ["openai", "deepseek"])
def test_a_provider_s_key_goes_nowhere_else(server: NoriaServer, upstream: Upstream, provider: str) -> None:
    """Whoever may add a model must not have the operator's key sent to themselves."""
    name = f"thief-{provider}"
    server.add_model(remote(name, upstream, provider=provider))
    with pytest.raises(openai.BadRequestError, match=f"noria config credential {upstream.origin}") as error:
        ask(server, model=name)
    assert error.value.code == "missing_credential"
    assert not upstream.seen
    assert state(server, name) == "missing_key"
    with server.client() as client:
        path = f"/v1/noria/providers/{upstream.url}/credential"  # the path of the URL plays no part
        assert client.put(path, json={"value": "sk-its-own"}).json()["provider"] == upstream.origin
        assert state(server, name) == "ready"
        ask(server, model=name, max_completion_tokens=5)
        assert upstream.seen[-1].headers["authorization"] == "Bearer sk-its-own"
        limit = "max_tokens" if provider == "deepseek" else "max_completion_tokens"
        assert upstream.seen[-1].body[limit] == 5
        (listed,) = [row for row in client.get("/v1/noria/providers").json()["data"] if row["object"] == "noria.address"]
        assert (listed["id"], listed["key"], listed["key_hint"]) == (upstream.origin, "stored", "…-own")
        client.delete(path).raise_for_status()
    assert state(server, name) == "missing_key"


def test_a_custom_api_has_a_key_by_its_address(server: NoriaServer, upstream: Upstream) -> None:
    server.add_model(remote("house", upstream))
    ask(server, model="house")
    assert "authorization" not in upstream.seen[-1].headers
    with server.client() as client:
        refused = client.put("/v1/noria/providers/custom/credential", json={"value": "sk-house"})
        assert refused.status_code == 400
        assert "Store it under the address" in refused.json()["error"]["message"]
        client.put(f"/v1/noria/providers/{upstream.origin}/credential", json={"value": "sk-house"}).raise_for_status()
        ask(server, model="house")
        assert upstream.seen[-1].headers["authorization"] == "Bearer sk-house"
        client.delete(f"/v1/noria/providers/{upstream.origin}/credential").raise_for_status()
        for wrong in ("ftp://a", "https://", "https://" + "a" * 200, "nobody"):
            assert client.put(f"/v1/noria/providers/{wrong}/credential", json={"value": "x"}).status_code in {400, 404}


OPENAI = ("https://api.openai.com", "https://api.openai.com/v1", "https://API.openai.com:443/other")
NOT_OPENAI = (
    "http://api.openai.com/v1",
    "https://api.openai.com:8443/v1",
    "https://api.openai.com./v1",
    "https://api.openai.com.evil.test",
    "https://api.openai.com@evil.test/v1",
    "https://evil.test/api.openai.com/v1",
    "https://evil.test?https://api.openai.com",
    "https://evil.test#@api.openai.com",
)


@pytest.mark.parametrize(("url", "own"), [(url, True) for url in OPENAI] + [(url, False) for url in NOT_OPENAI])
def test_only_the_very_same_address_is_a_provider_s_own(url: str, own: bool) -> None:
    assert (origin_of(url) == origin_of(builtin_providers()["openai"].base_url or "")) is own


# --- routes -----------------------------------------------------------------------------------------------------------


def test_a_fallback_route_goes_on_to_the_next(server: NoriaServer, upstream: Upstream) -> None:
    targets = [{"model": "remote"}, {"model": "scripted"}]
    server.add_model({"id": "careful", "source": "route", "route": {"strategy": "fallback", "targets": targets}})
    upstream.plan(*[failure(503, retry_after="60")] * 3)
    raw = server.openai().chat.completions.with_raw_response.create(model="careful", messages=HELLO)
    assert raw.headers["x-noria-model"] == "scripted"
    upstream.planned.clear()
    assert ask(server, model="careful").choices[0].message.content == "well done"


@pytest.mark.parametrize("first", ["thief", "azure/none", "remote"])
def test_a_fallback_route_goes_on_past_what_cannot_be_asked(server: NoriaServer, upstream: Upstream, first: str) -> None:
    """A key that is absent, an address that is absent, a model that was retired."""
    server.add_model(remote("thief", upstream, provider="openai"))
    targets = [{"model": first}, {"model": "scripted"}]
    server.add_model({"id": "past", "source": "route", "route": {"strategy": "fallback", "targets": targets}})
    upstream.plan(failure(404, "this model was retired"))
    raw = server.openai().chat.completions.with_raw_response.create(model="past", messages=HELLO)
    assert raw.headers["x-noria-model"] == "scripted"


def test_a_fallback_route_does_not_go_on_past_a_wrong_request(server: NoriaServer, upstream: Upstream) -> None:
    targets = [{"model": "remote"}, {"model": "scripted"}]
    server.add_model({"id": "strict", "source": "route", "route": {"strategy": "fallback", "targets": targets}})
    upstream.plan(failure(400, "bad temperature"))
    with pytest.raises(openai.BadRequestError, match="bad temperature"):
        ask(server, model="strict")


@pytest.mark.parametrize("name", ["openai/gpt 4", "ollama/名字", "custom/x", "nobody/x", "a" * 250])
def test_a_name_that_no_model_can_have_is_not_found(server: NoriaServer, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        ask(server, model=name)
    assert error.value.code == "model_not_found"
    assert len(error.value.message) < 700


@pytest.mark.parametrize("url", ["http://[::1", "http://a]b/", "http://:80", "http://a:x"])
def test_a_url_that_is_none_is_refused(server: NoriaServer, url: str) -> None:
    card = {"id": "odd", "source": "provider", "provider": "custom", "base_url": url}
    with server.client() as client:
        answer = client.post("/v1/noria/models", json=card)
        assert answer.status_code == 400, answer.text
        assert client.get("/v1/noria/models").status_code == 200


def test_an_address_too_long_to_have_a_key_spoils_no_list(server: NoriaServer) -> None:
    card = {"id": "long", "source": "provider", "provider": "custom", "base_url": f"https://{'a.' * 90}test/v1"}
    server.add_model(card)
    with server.client() as client:
        assert client.get("/v1/noria/models").status_code == 200
        assert client.get("/v1/models").status_code == 200
        client.delete("/v1/noria/models/long").raise_for_status()


def test_a_sticky_route_keeps_a_user_on_one_variant(server: NoriaServer, upstream: Upstream) -> None:
    targets = [{"model": "remote", "weight": 1}, {"model": "scripted", "weight": 1}]
    route = {"strategy": "weighted", "targets": targets, "sticky": True}
    server.add_model({"id": "split", "source": "route", "route": route})
    client = server.openai()

    def variant(user: str) -> str:
        raw = client.chat.completions.with_raw_response.create(model="split", messages=HELLO, user=user)
        return raw.headers["x-noria-model"]

    chosen = {user: variant(user) for user in map(str, range(12))}
    assert set(chosen.values()) == {"remote", "scripted"}
    assert all(variant(user) == model for user, model in chosen.items())


# --- idempotency ------------------------------------------------------------------------------------------------------


def once(server: NoriaServer, key: str, **fields: Any) -> httpx.Response:
    with server.client() as client:
        body = {"model": "remote", "messages": HELLO, **fields}
        return client.post("/v1/chat/completions", json=body, headers={"idempotency-key": key})


@pytest.mark.parametrize("streaming", [False, True])
def test_the_work_of_one_key_is_done_once(server: NoriaServer, upstream: Upstream, streaming: bool) -> None:
    first, second = (once(server, f"same-{streaming}", stream=streaming) for _ in range(2))
    assert first.content == second.content
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["content-type"] == first.headers["content-type"]
    assert len(upstream.seen) == 1


def test_parallel_duplicates_work_once(server: NoriaServer, upstream: Upstream) -> None:
    upstream.plan(*[slow(0.5, good)] * 8)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(once(server, "parallel").status_code)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200] + [409] * 7
    assert len(upstream.seen) == 1


def test_a_passing_failure_frees_the_key(server: NoriaServer, upstream: Upstream) -> None:
    upstream.plan(failure(429, retry_after="60"))
    assert once(server, "limited").status_code == 429
    assert once(server, "limited").status_code == 200


def test_a_stream_that_failed_frees_the_key(server: NoriaServer, upstream: Upstream) -> None:
    upstream.plan(stream(chunk({"content": "half"}), end=False))
    assert '"error"' in once(server, "cut", stream=True).text
    again = once(server, "cut", stream=True)
    assert "idempotent-replayed" not in again.headers
    assert "[DONE]" in again.text


def test_an_answer_too_large_to_keep_is_worked_again(server: NoriaServer, upstream: Upstream) -> None:
    large = {**ANSWER, "filler": "x" * (9 * 1024 * 1024)}
    upstream.plan(answer(large), answer(large))
    assert len(once(server, "large").content) > 9_000_000
    assert "idempotent-replayed" not in once(server, "large").headers
