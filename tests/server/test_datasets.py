"""Datasets over HTTP: bodies are strict, long work is a job, lists are paged, downloads stream."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

PATH = "/v1/noria/datasets"


@pytest.fixture
def dataset(client: httpx.Client) -> str:
    name = f"d{uuid.uuid4().hex[:10]}"
    client.post(PATH, json={"name": name, "validation_share": 0, "test_share": 0}).raise_for_status()
    return f"{PATH}/{name}"


def upload(client: httpx.Client, dataset: str, data: bytes, name: str = "rows.jsonl", **fields: Any) -> dict[str, Any]:
    reply = client.post(f"{dataset}/import", files={"file": (name, data)}, data=fields)
    assert reply.status_code == 200, reply.text
    return reply.json()


def done(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    while job["status"] in {"queued", "running"}:
        time.sleep(0.05)
        job = client.get(f"/v1/noria/jobs/{job['id']}").json()
    assert job["status"] == "completed", job
    return job["detail"]


def test_from_file_to_file(client: httpx.Client, dataset: str) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"问题 {n}"}, {"role": "assistant", "content": f"答案 {n}"}]} for n in range(30)
    ]
    lines = "\n".join(json.dumps(row) for row in [*rows, rows[0]])
    report = upload(client, dataset, lines.encode() + b"\nbroken", note="first")
    assert (report["added"], report["duplicates"], report["failed"], report["version"]) == (30, 1, 1, 1)
    assert report["errors"][0]["line"] == 32
    shown = client.get(dataset).json()
    assert shown["newest"]["counts"] == {"train": 30, "validation": 0, "test": 0, "total": 30}
    file = client.get(f"/v1/files/{shown['newest']['origin']['file_id']}").json()
    again = client.post(f"{dataset}/import", json={"file_id": file["id"]}).json()
    assert (again["added"], again["duplicates"], again["version"]) == (0, 31, 1)
    found: list[str] = []
    after = None
    while True:
        page = client.get(f"{dataset}/rows", params={"limit": 8, "order": "asc"} | ({"after": after} if after else {})).json()
        found += [row["messages"][0]["content"] for row in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert found == [f"问题 {n}" for n in range(30)]
    out = client.get(f"{dataset}/export", params={"format": "openai"})
    assert [json.loads(line) for line in out.text.splitlines()] == rows
    assert "attachment" in out.headers["content-disposition"]
    kept = client.post(f"{dataset}/export", json={"split": "train"}).json()
    assert client.get(f"/v1/files/{kept['id']}/content").text == out.text


def test_rows_are_added_replaced_and_removed(client: httpx.Client, dataset: str) -> None:
    body = {"rows": [{"messages": [{"role": "user", "content": "a"}], "expected": "1"}], "note": "by hand"}
    assert client.post(f"{dataset}/rows", json=body).json()["version"] == 1
    (row,) = client.get(f"{dataset}/rows").json()["data"]
    changed = {"messages": [{"role": "user", "content": "a"}], "expected": {"role": "assistant", "content": "2"}}
    assert client.put(f"{dataset}/rows/{row['id']}", json=changed).json()["version"] == 2
    diff = client.get(f"{dataset}/diff", params={"from": 1, "to": 2}).json()
    assert diff["counts"] == {"added": 0, "removed": 0, "changed": 1}
    assert [diff["data"][0][at]["expected"]["content"] for at in ("before", "after")] == ["1", "2"]
    (row,) = client.get(f"{dataset}/rows").json()["data"]
    assert client.post(f"{dataset}/rows", json={"remove": [row["id"]]}).json()["removed"] == 1
    assert client.get(f"{dataset}/rows").json()["data"] == []
    versions = client.get(f"{dataset}/versions", params={"limit": 2}).json()
    assert ([each["version"] for each in versions["data"]], versions["next_cursor"]) == ([3, 2], "2")
    assert [each["version"] for each in client.get(f"{dataset}/versions", params={"after": "2"}).json()["data"]] == [1]


def test_long_work_is_a_job(client: httpx.Client, dataset: str) -> None:
    lines = "\n".join(json.dumps({"prompt": f"question number {n} {'x' * 200}", "completion": "yes"}) for n in range(3000))
    reply = upload(client, dataset, lines.encode())
    assert done(client, reply["job"])["added"] == 3000
    reply = client.post(f"{dataset}/curate", json={"kinds": ["oversize"], "max_characters": 100}).json()
    detail = done(client, reply["job"])
    assert (detail["rows"], detail["findings"]) == (3000, {"oversize": 3000})
    assert client.post(f"{dataset}/findings", json={"decision": "accepted", "kind": "oversize"}).json()["decided"] == 3000
    applied = client.post(f"{dataset}/findings/apply").json()
    assert (applied["removed"], applied["version"]) == (3000, 2)
    bad = client.post(f"{dataset}/import", files={"file": ("x.jsonl", b"{bad}\n" * 120_000)}, data={"strict": "true"}).json()
    job = bad["job"]
    while job["status"] in {"queued", "running"}:
        job = client.get(f"/v1/noria/jobs/{job['id']}").json()
    assert job["status"] == "failed"
    assert "Line 1" in job["error"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/collect", {}, "feedback"),
        ("/collect", {"feedback": {}, "traces": {}}, "feedback"),
        ("/collect", {"feedback": {"stars": 5}}, "feedback.stars"),
        ("/collect", {"traces": {"min_latency_s": -1}}, "traces.min_latency_s"),
        ("/curate", {"kinds": ["typos"]}, "kinds[0]"),
        ("/curate", {"near": 0.1}, "near"),
        ("/rows", {}, "rows"),
        ("/rows", {"rows": [{"messages": []}]}, "rows[0].messages"),
        ("/rows", {"rows": [{"messages": [{"role": "user", "content": "a\u0000"}]}]}, None),
        ("/import", {"file_id": "x", "fromat": "csv"}, "fromat"),
        ("/export", {"format": "xml"}, "format"),
        ("/findings", {"decision": "maybe"}, "decision"),
        ("", {"test_share": 2}, "test_share"),
    ],
)
def test_what_is_wrong_is_named(client: httpx.Client, dataset: str, path: str, body: dict[str, Any], param: str | None) -> None:
    reply = client.post(f"{dataset}{path}", json=body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param


def test_what_is_not_there_is_not_found(client: httpx.Client, dataset: str) -> None:
    missing = [
        f"{PATH}/nothing",
        f"{dataset}/versions/1",
        f"{dataset}/rows/row_1",
        f"{dataset}/findings/finding_1",
        f"{dataset}/export",
    ]
    for path in [*missing, f"{dataset}/diff?from=1&to=2", f"{dataset}/rows?version=3"]:
        assert client.get(path).status_code == 404, path
    assert client.get(f"{dataset}/rows").json()["data"] == []
    assert client.post(f"{dataset}/curate", json={}).status_code == 404
    assert client.post(f"{dataset}/import", json={"file_id": "file-0"}).status_code == 404
    for data in (b"", b"\n\n", b"PAR1 but no more", b"[1, 2"):
        assert client.post(f"{dataset}/import", files={"file": ("x", data)}).status_code == 400, data
    assert client.get(dataset).json()["head"] == 0


def test_a_row_of_two_megabytes_and_bad_bytes(client: httpx.Client, dataset: str) -> None:
    big = json.dumps({"prompt": "好" * 700_000, "completion": "x"}, ensure_ascii=False).encode()
    reply = upload(client, dataset, big + b'\n{"prompt": "\xff\xfe"}\n{"prompt": "b", "completion": "y"}')
    report = done(client, reply["job"]) if reply["job"] else reply
    assert (report["added"], report["failed"]) == (2, 1)
    found = client.post(f"{dataset}/curate", json={}).json()
    assert found["findings"]["oversize"] == 1


@pytest.mark.parametrize("name", ["客服", "ünï.a-b"])
def test_a_dataset_of_any_name_is_downloaded(client: httpx.Client, name: str) -> None:
    made = client.post("/v1/noria/datasets", json={"name": name}).json()["id"]
    try:
        client.post(f"/v1/noria/datasets/{made}/rows", json={"rows": [{"messages": [{"role": "user", "content": "a"}]}]})
        answer = client.get(f"/v1/noria/datasets/{made}/export")
        assert answer.status_code == 200, answer.text
        encoded = answer.headers["content-disposition"].partition("filename*=utf-8''")[2].partition(";")[0]
        assert unquote(encoded) == f"{name}@1.jsonl"
    finally:
        client.delete(f"/v1/noria/datasets/{made}", params={"force": True})
