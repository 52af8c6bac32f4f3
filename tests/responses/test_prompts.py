"""Stored prompts through the public API: versions, labels, rollback, and answers that say which version ran."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest

from noria.prompts import Template
from noria.responses import PromptStore
from noria.store import DEFAULT_PROJECT, Database
from tests.conftest import NoriaServer

ROOT = "/v1/noria/prompts"


def _make(client: httpx.Client, name: str, **template: Any) -> dict[str, Any]:
    answer = client.post(ROOT, json={"name": name, "template": template or {"task": "Say {{word}}."}})
    assert answer.status_code == 200, answer.text
    return answer.json()


def _add(client: httpx.Client, name: str, **template: Any) -> dict[str, Any]:
    return client.post(f"{ROOT}/{name}/versions", json={"template": template}).json()


def _system(server: NoriaServer, trace_id: str) -> dict[str, Any]:
    with server.client() as client:
        root = client.get(f"/v1/noria/traces/{trace_id}").json()["spans"][0]
    call = next(child for child in root["children"] if child["name"].startswith("chat"))
    return {"root": root, "messages": call["input"]}


def test_versions_labels_and_rollback(client: httpx.Client) -> None:
    made = _make(client, "life")
    assert made["id"].startswith("pmpt_")
    assert (made["head"], made["labels"]) == (1, {})
    assert _add(client, "life", task="Say {{word}} twice.")["version"] == 2
    assert _add(client, "life", task="Say {{word}} twice.")["version"] == 2  # nothing differs
    assert _add(client, "life", task="Sing {{word}}.", output="{{tone}}")["variables"] == ["word", "tone"]

    moved = client.put(f"{ROOT}/life/labels/production", json={"version": "1"}).json()
    assert moved["labels"] == {"production": 1}
    client.put(f"{ROOT}/life/labels/production", json={"version": "2"})
    client.put(f"{ROOT}/life/labels/production", json={"version": "latest"})
    assert client.get(f"{ROOT}/life/versions/production").json()["version"] == 3
    assert client.post(f"{ROOT}/life/labels/production/rollback").json()["labels"] == {"production": 2}
    assert client.post(f"{ROOT}/life/labels/production/rollback").json()["labels"] == {"production": 1}
    refused = client.post(f"{ROOT}/life/labels/production/rollback")
    assert refused.status_code == 409
    moves = client.get(f"{ROOT}/{made['id']}").json()["label_moves"]
    assert [(move["from"], move["to"]) for move in moves] == [(None, 1), (1, 2), (2, 3), (3, 2), (2, 1)]

    diff = client.get(f"{ROOT}/life/diff", params={"from": "production", "to": "latest"}).json()
    assert (diff["from"], diff["to"], diff["variables_added"]) == (1, 3, ["tone"])
    assert "+Sing {{word}}." in diff["diff"]
    assert client.get(f"{ROOT}/life/diff").json()["from"] == 2

    page = client.get(f"{ROOT}/life/versions", params={"limit": 2}).json()
    assert [row["version"] for row in page["data"]] == [3, 2]
    rest = client.get(f"{ROOT}/life/versions", params={"limit": 2, "after": page["last_id"]}).json()
    assert ([row["version"] for row in rest["data"]], rest["has_more"]) == ([1], False)
    assert client.delete(f"{ROOT}/life/labels/production").json()["labels"] == {}
    assert client.delete(f"{ROOT}/life").json()["deleted"]
    assert client.get(f"{ROOT}/life").status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "x/y", "template": {"task": "a"}}, "name"),
        ({"name": "pmpt_x", "template": {"task": "a"}}, "name"),
        ({"name": "bad", "template": {}}, "template"),
        ({"name": "bad", "template": {"task": "{{"}}, "template.task"),
        ({"name": "bad", "template": {"tsak": "a"}}, "template.tsak"),
        ({"name": "bad", "template": {"messages": [{"role": "tool", "content": "a"}]}}, "template.messages[0].role"),
        ({"name": "bad", "template": {"task": "a"}, "colour": 1}, "colour"),
    ],
)
def test_bad_prompts_are_refused_by_name(client: httpx.Client, body: Any, param: str) -> None:
    answer = client.post(ROOT, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_name_is_taken_once_and_unknown_versions_are_said(client: httpx.Client) -> None:
    _make(client, "taken")
    assert client.post(ROOT, json={"name": "taken", "template": {"task": "a"}}).status_code == 409
    for version in ("9", "production", "9" * 60):
        assert client.get(f"{ROOT}/taken/versions/{version}").status_code == 404
    for label in ("1", "latest", "a b"):
        assert client.put(f"{ROOT}/taken/labels/{label}", json={"version": "1"}).status_code == 400


def test_a_preview_needs_no_saving(client: httpx.Client) -> None:
    _make(client, "draft")
    unsaved = {"template": {"task": "Shout {{what}}."}, "variables": {"what": "{{word}}"}}
    answer = client.post(f"{ROOT}/draft/render", json=unsaved).json()
    assert answer["messages"] == [{"role": "system", "content": "Shout {{word}}."}]
    assert answer["version"] is None
    assert client.post(f"{ROOT}/draft/render", json={"variables": {"word": "hi"}}).json()["version"] == 1
    both = client.post(f"{ROOT}/draft/render", json={**unsaved, "version": "1"})
    assert both.json()["error"]["param"] == "template"


def test_a_response_runs_the_version_in_production(server: NoriaServer, client: httpx.Client) -> None:
    made = _make(client, "greeter", role="You greet.", examples=[{"input": "a", "output": "b"}], model="scripted")
    _add(client, "greeter", role="You greet {{who}}.", model="scripted")
    client.put(f"{ROOT}/greeter/labels/production", json={"version": "2"})
    api = server.openai()
    raw = api.responses.with_raw_response.create(
        prompt={"id": made["id"], "variables": {"who": {"type": "input_text", "text": "Ada"}}},
        input="hello",
        instructions="Be brief.",
    )
    answer = raw.parse()
    assert answer.output_text == "hello"
    assert answer.model == "scripted"
    assert answer.prompt and (answer.prompt.id, answer.prompt.version) == (made["id"], "2")
    trace_id = raw.headers["x-noria-trace-id"]
    seen = _system(server, trace_id)
    assert [message["content"] for message in seen["messages"]] == ["Be brief.\n\nYou greet Ada.", "hello"]
    assert seen["root"]["attributes"]["noria.prompt.version"] == "2"
    assert [message["role"] for message in seen["root"]["input"]][-2:] == ["system", "user"]

    # The next turn says the prompt again; the first turn's is not in the history.
    again = api.responses.create(
        prompt={"id": "greeter", "version": "1"}, model="scripted", input="bye", previous_response_id=answer.id
    )
    assert again.output_text == "bye"
    assert api.responses.input_items.list(again.id).data[0].content[0].text == "bye"  # type: ignore[union-attr,index]

    for wanted in ({"prompt": made["id"]}, {"prompt": "greeter"}, {"prompt": "greeter", "prompt_version": "2"}):
        found = client.get("/v1/noria/traces", params=wanted).json()["data"]
        assert trace_id in [row["id"] for row in found]
    other = client.get("/v1/noria/traces", params={"prompt": "greeter", "prompt_version": "1"}).json()["data"]
    assert trace_id not in [row["id"] for row in other]


def test_a_prompt_may_say_it_all(server: NoriaServer, client: httpx.Client) -> None:
    _make(client, "alone", messages=[{"role": "user", "content": "repeat {{what}}"}])
    answer = server.openai().responses.create(model="scripted", prompt={"id": "alone", "variables": {"what": "this"}})
    assert answer.output_text == "repeat this"


def test_bad_references_are_openais_errors(server: NoriaServer, client: httpx.Client) -> None:
    _make(client, "strict")
    api = server.openai()
    with pytest.raises(openai.BadRequestError) as missing:
        api.responses.create(model="scripted", input="x", prompt={"id": "strict"})
    assert missing.value.param == "prompt.variables"
    with pytest.raises(openai.NotFoundError):
        api.responses.create(model="scripted", input="x", prompt={"id": "pmpt_nope"})
    with pytest.raises(openai.NotFoundError) as version:
        api.responses.create(model="scripted", input="x", prompt={"id": "strict", "version": "7"})
    assert version.value.param == "prompt.version"
    with pytest.raises(openai.BadRequestError) as nothing:
        api.responses.create(input="x", prompt={"id": "strict", "variables": {"word": "a"}})
    assert nothing.value.param == "model"
    with pytest.raises(openai.BadRequestError) as no_input:
        api.responses.create(model="scripted")
    assert no_input.value.param == "input"


@pytest.mark.parametrize("headers", [{}, {"x-slow-lane": "1"}])
def test_chat_takes_prompts_too_and_stores_what_was_said(
    server: NoriaServer, client: httpx.Client, headers: dict[str, str]
) -> None:
    name = f"chat{len(headers)}"
    made = _make(client, name, role="You are {{who}}.")
    reference = {"id": name, "variables": {"who": "Noria"}}
    body = {"model": "scripted", "messages": [{"role": "user", "content": "hi"}], "prompt": reference, "store": True}
    answer = client.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.headers["x-noria-prompt"] == f"{made['id']}@1"
    assert answer.json()["choices"][0]["message"]["content"] == "hi"
    said = client.get(f"/v1/chat/completions/{answer.json()['id']}/messages", params={"order": "asc"}).json()["data"]
    assert [message["content"] for message in said] == ["You are Noria.", "hi"]
    seen = _system(server, answer.headers["x-noria-trace-id"])
    assert seen["root"]["attributes"]["noria.prompt.id"] == made["id"]
    with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}, headers=headers) as stream:
        assert stream.headers["x-noria-prompt"] == f"{made['id']}@1"
        assert b"[DONE]" in stream.read()
    empty = client.post("/v1/chat/completions", json={"model": "scripted", "messages": []}, headers=headers)
    assert empty.json()["error"]["param"] == "messages"


async def test_versions_added_at_once_are_counted_one_after_the_other(tmp_path: Any) -> None:
    database = await Database.open(f"sqlite:///{tmp_path / 'noria.db'}")
    try:
        store = PromptStore(database)
        await store.create(DEFAULT_PROJECT, "busy", Template(task="0"))
        made = await asyncio.gather(
            *(store.add_version(DEFAULT_PROJECT, "busy", Template(task=str(number))) for number in range(1, 20))
        )
        assert sorted(version.number for version in made) == list(range(2, 21))
    finally:
        await database.aclose()
