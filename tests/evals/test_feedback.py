"""Feedback through the API: on anything that answers, at once, once, and gone with its trace."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import pytest

from noria.errors import InvalidRequest
from noria.evals._feedback_import import read_opinion
from noria.evals._feedback_targets import parse_target
from tests.conftest import NoriaServer

PATH = "/v1/noria/feedback"


def ask(server: NoriaServer, text: str = "hello", **more: Any) -> tuple[str, str]:
    """An answer's id and its trace's."""
    reply = server.openai().chat.completions.with_raw_response.create(
        model="scripted", messages=[{"role": "user", "content": text}], **more
    )
    return reply.parse().id, reply.headers["x-noria-trace-id"]


def give(client: httpx.Client, target: str, **said: Any) -> dict[str, Any]:
    reply = client.post(PATH, json={"target": target, **said})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_feedback_at_once_on_everything_that_answers(server: NoriaServer, client: httpx.Client) -> None:
    openai = server.openai()
    answer, trace_id = ask(server)
    assert give(client, answer, rating="up")["trace_id"] == trace_id
    stored, stored_trace = ask(server, store=True)
    assert give(client, stored, rating="down")["trace_id"] == stored_trace
    stream = list(openai.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "s"}], stream=True))
    assert give(client, stream[0].id, score=0.5)["model"] == "scripted"
    for keep in (True, False):
        response = openai.responses.create(model="scripted", input="hello", store=keep)
        given = give(client, response.id, label="good")
        assert (given["target"]["kind"], given["model"]) == ("response", "scripted")
    plain = openai.completions.create(model="scripted", prompt="hello")
    assert give(client, plain.id, comment="fine")["model"] == "scripted"
    _, trace_id = ask(server)
    on_trace = give(client, trace_id, correction="Better")
    assert on_trace["correction"] == {"role": "assistant", "content": "Better"}
    span = give(client, f"{trace_id}/{on_trace['span_id']}", rating="up", author="ann", metadata={"page": 3})
    assert (span["target"], span["span_id"]) == ({"kind": "span", "id": trace_id}, on_trace["span_id"])
    rows = client.get(PATH, params={"trace_id": trace_id, "order": "asc"}).json()["data"]
    assert rows == [on_trace, span]
    assert client.get(f"{PATH}/{span['id']}").json() == span


def test_a_route_keeps_the_model_that_truly_answered(server: NoriaServer, client: httpx.Client) -> None:
    name = f"route-{uuid.uuid4().hex[:8]}"
    route = {"strategy": "weighted", "targets": [{"model": "scripted", "weight": 1.0}]}
    server.add_model({"id": name, "task": "chat", "source": "route", "route": route})
    reply = server.openai().chat.completions.create(model=name, messages=[{"role": "user", "content": "x"}])
    assert give(client, reply.id, rating="up")["model"] == "scripted"


def test_the_same_external_id_is_kept_once(server: NoriaServer, client: httpx.Client) -> None:
    answer, _ = ask(server)
    mine = uuid.uuid4().hex
    first = give(client, answer, rating="up", external_id=mine)
    assert give(client, answer, rating="down", external_id=mine) == first


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"rating": "up"}, "target"),
        ({"target": "nonsense", "rating": "up"}, "target"),
        ({"target": "0" * 32, "trace_id": "0" * 32, "rating": "up"}, "target"),
        ({"target": "0" * 32}, None),
        ({"target": "0" * 32, "rating": "sideways"}, "rating"),
        ({"target": "0" * 32, "rating": "up", "stars": 5}, "stars"),
        ({"target": "0" * 32, "correction": {"role": "user", "content": "x"}}, "correction.role"),
        ({"target": "0" * 32, "correction": {"role": "assistant"}}, "correction"),
        ({"target": "0" * 32, "correction": {"content": [{"text": "x"}]}}, "correction.content"),
        ({"target": "0" * 32, "correction": {"tool_calls": [{"function": "f"}]}}, "correction.tool_calls"),
        ({"target": "0" * 32, "rating": "up", "metadata": {"x": "\0"}}, "metadata"),
        ({"target": "chatcmpl-\0", "rating": "up"}, "target"),
        ({"target": f"{'0' * 32}/xyz", "rating": "up"}, "span_id"),
        ({"target": "0" * 32, "label": "x" * 257}, "label"),
    ],
)
def test_what_is_wrong_is_named(client: httpx.Client, body: dict[str, Any], param: str | None) -> None:
    reply = client.post(PATH, json=body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param


@pytest.mark.parametrize("target", ["a" * 32, "chatcmpl-" + "0" * 32, "resp_" + "1" * 32, "chatcmpl-x"])
def test_what_is_not_there_is_a_404_that_names_it(client: httpx.Client, target: str) -> None:
    reply = client.post(PATH, json={"target": target, "rating": "up"})
    assert reply.status_code == 404
    assert target in reply.json()["error"]["message"]


def test_feedback_goes_with_its_trace_and_none_comes_after(server: NoriaServer, client: httpx.Client) -> None:
    answer, trace_id = ask(server)
    given = give(client, answer, rating="up")
    assert client.delete(f"/v1/noria/traces/{trace_id}").status_code == 200
    assert client.get(f"{PATH}/{given['id']}").status_code == 404
    late = client.post(PATH, json={"target": answer, "rating": "up"})
    assert late.status_code == 404
    assert "deleted" in late.json()["error"]["message"]
    assert client.delete(f"/v1/noria/traces/{trace_id}").status_code == 404


def test_changed_summed_and_deleted(server: NoriaServer, client: httpx.Client) -> None:
    author = uuid.uuid4().hex
    answers = [ask(server)[0] for _ in range(4)]
    given = [give(client, answer, rating="up" if n else "down", author=author, score=n) for n, answer in enumerate(answers)]
    changed = client.patch(f"{PATH}/{given[0]['id']}", json={"label": "odd", "score": None, "correction": "C"}).json()
    assert (changed["label"], changed["score"], changed["rating"]) == ("odd", None, "down")
    nothing = {"rating": None, "label": None, "correction": None}
    assert client.patch(f"{PATH}/{given[0]['id']}", json=nothing).status_code == 400
    (stats,) = client.get(f"{PATH}/stats", params={"author": author, "interval": "day"}).json()["data"]
    assert (stats["count"], stats["up"], stats["down"], stats["corrections"], stats["mean_score"]) == (4, 3, 1, 1, 2.0)
    assert stats["labels"] == {"odd": 1}
    assert stats["start"] % 86400 == 0
    assert client.delete(f"{PATH}/{given[0]['id']}").json()["deleted"] is True
    pages = client.get(PATH, params={"author": author, "limit": 2}).json()
    assert [row["id"] for row in pages["data"]] == [given[3]["id"], given[2]["id"]]
    assert pages["has_more"] is True


def test_files_are_imported_once(server: NoriaServer, client: httpx.Client) -> None:
    answers = [ask(server) for _ in range(3)]
    mark = uuid.uuid4().hex
    lines = ["completion_id,trace_id,rating,label,correction,author,page"]
    lines += [f"{answer},{trace_id},👍,safe,,{mark},{n}" for n, (answer, trace_id) in enumerate(answers)]
    lines += [f"chatcmpl-{'0' * 32},,up,,,,", "x,,up,,,,", f"{answers[0][0]},,,,,,", f"{answers[0][0]},,maybe,,,,"]
    file = {"file": ("f.csv", "\n".join(lines).encode())}
    first = client.post(f"{PATH}/import", files=file).json()
    assert (first["lines"], first["added"], first["known"], first["failed"]) == (7, 3, 0, 4)
    assert [error["line"] for error in first["errors"]] == [6, 7, 8, 5]
    again = client.post(f"{PATH}/import", files=file).json()
    assert (again["added"], again["known"], again["failed"]) == (0, 3, 4)
    rows = client.get(PATH, params={"author": mark, "order": "asc"}).json()["data"]
    assert [(row["rating"], row["label"], row["source"], row["metadata"]) for row in rows] == [
        ("up", "safe", "import", {"page": str(n)}) for n in range(3)
    ]
    assert rows[0]["target"] == {"kind": "completion", "id": answers[0][0]}
    jsonl = "\n".join(
        json.dumps({"target": trace_id, "correction": {"role": "assistant", "content": "C"}, "external_id": f"{mark}{n}"})
        for n, (_, trace_id) in enumerate(answers)
    )
    assert client.post(f"{PATH}/import", files={"file": ("f.jsonl", jsonl.encode())}).json()["added"] == 3


def test_a_line_whose_metadata_cannot_be_read_is_one_problem(server: NoriaServer, client: httpx.Client) -> None:
    answer, _ = ask(server)
    deep = '{""a"":' + "[" * 300 + "]" * 300 + "}"
    cells = ["{oops", '"{""page"": 1}"', "plain", f'"{deep}"', ""]
    lines = ["completion_id,rating,metadata", *(f"{answer},up,{cell}" for cell in cells)]
    reply = client.post(f"{PATH}/import", files={"file": ("f.csv", "\n".join(lines).encode())})
    assert reply.status_code == 200, reply.text
    report = reply.json()
    assert (report["lines"], report["added"], report["failed"]) == (5, 2, 3)
    assert [error["line"] for error in report["errors"]] == [2, 4, 5]
    assert all("metadata" in error["message"] for error in report["errors"])


def test_what_could_not_be_shown_again_is_not_kept(server: NoriaServer, client: httpx.Client) -> None:
    answer, _ = ask(server)
    gbk = f"completion_id,rating,评论\n{answer},up,好\n".encode("gbk")
    reply = client.post(f"{PATH}/import", files={"file": ("f.csv", gbk)})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_encoding")
    deep = '{"target":"%s","rating":"up","x":%s}' % (answer, "[" * 400 + "]" * 400)  # noqa: UP031
    nearly = deep.replace("[" * 152, "", 1).replace("]" * 152, "", 1)  # a reply would put more around it
    wrong = [{"content": 5}, {"content": [{"text": "x"}]}, {"content": None}, {"tool_calls": "f"}, {"content": "\0"}]
    given = [{"target": answer, "correction": {"role": "assistant", **said}} for said in wrong]
    lines = "\n".join([deep, nearly, *map(json.dumps, given)])
    report = client.post(f"{PATH}/import", files={"file": ("f.jsonl", lines.encode())}).json()
    assert (report["added"], report["failed"]) == (0, 7), report
    kept = give(client, answer, correction="Better")
    changed = client.patch(f"{PATH}/{kept['id']}", json={"correction": {"content": [{"text": "x"}]}})
    assert (changed.status_code, changed.json()["error"]["param"]) == (400, "correction.content")
    assert client.get(PATH).status_code == 200


def test_a_mended_file_adds_only_what_was_mended(server: NoriaServer, client: httpx.Client) -> None:
    answer, _ = ask(server)
    mark = uuid.uuid4().hex
    lines = [f"{answer},up,{mark},{page}" for page in (1, 2, 2)]

    def send(*more: str) -> tuple[int, int, int]:
        file = {"file": ("f.csv", "\n".join(["completion_id,rating,author,page", *more]).encode())}
        report = client.post(f"{PATH}/import", files=file).json()
        return report["added"], report["known"], report["failed"]

    assert send(f"{answer},maybe,{mark},3", *lines) == (3, 0, 1)
    assert send(f"{answer},down,{mark},3", *lines) == (1, 3, 0)


def test_a_long_import_is_a_job(server: NoriaServer, client: httpx.Client) -> None:
    answer, _ = ask(server)
    lines = [json.dumps({"target": answer, "rating": "up", "comment": "x" * 100, "author": "long"}) for _ in range(2500)]
    reply = client.post(f"{PATH}/import", files={"file": ("f.jsonl", "\n".join(lines).encode())}).json()
    job: dict[str, Any] = {"status": "queued"}
    while job["status"] in {"queued", "running"}:
        job = client.get(f"/v1/noria/jobs/{reply['job']}").json()
    assert (job["status"], job["detail"]["added"]) == ("completed", 2500)


def test_targets_and_opinions_are_read() -> None:
    assert parse_target("ABCDEF" + "0" * 26).id.startswith("abcdef")
    assert parse_target("a" * 32, "b" * 16).kind == "span"
    with pytest.raises(InvalidRequest):
        parse_target("chatcmpl-1", "b" * 16)
    _, opinion = read_opinion({"trace_id": "a" * 32, "rating": "-1", "score": "0.5", "extra": 1}, "x")
    assert (opinion.rating, opinion.score, opinion.metadata, opinion.external_id) == ("down", 0.5, {"extra": 1}, "x")
