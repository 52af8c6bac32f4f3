"""Files and vector stores over HTTP: upload, ingest, search, filter, change, delete."""

from __future__ import annotations

import io
import sqlite3
import time
from typing import Any

import openai
import pytest

from tests.conftest import NoriaServer

WATER = b"# Water wheels\n\nA noria lifts water with the power of the stream.\n\n# Cats\n\nCats sleep sixteen hours a day.\n"
CHINESE = "# 水车\n\n筒车利用水流的力量提水。\n\n# 猫\n\n猫每天睡十六个小时。\n".encode()


def upload(client: openai.OpenAI, data: bytes, name: str = "notes.md") -> Any:
    return client.files.create(file=(name, io.BytesIO(data)), purpose="assistants")


def wait(client: openai.OpenAI, store_id: str, timeout_s: float = 30) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        store = client.vector_stores.retrieve(store_id)
        if store.file_counts.in_progress == 0:
            return store
        time.sleep(0.05)
    raise AssertionError("ingestion did not end in time")


@pytest.fixture(scope="module")
def store(server: NoriaServer) -> Any:
    client = server.openai()
    files = [upload(client, WATER, "water.md"), upload(client, CHINESE, "水车.md")]
    made = client.vector_stores.create(name="wheels", metadata={"a": "b"})
    client.vector_stores.files.create(made.id, file_id=files[0].id, attributes={"lang": "en", "year": 2020})
    client.vector_stores.files.create(made.id, file_id=files[1].id, attributes={"lang": "zh", "year": 2024})
    return wait(client, made.id)


def test_files_are_kept_byte_for_byte(server: NoriaServer) -> None:
    client = server.openai()
    file = upload(client, b"\x00\xff data", "../../etc/passwd")
    assert file.filename == "passwd"
    assert client.files.content(file.id).read() == b"\x00\xff data"
    assert file.id in {row.id for row in client.files.list()}
    client.files.delete(file.id)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_lists_page_by_cursor(server: NoriaServer) -> None:
    client = server.openai()
    made = [upload(client, str(i).encode(), f"{i}.txt").id for i in range(5)]
    page = client.files.list(limit=2, order="desc")
    assert [row.id for row in page.data] == made[:-3:-1]
    assert page.has_more
    assert [row.id for row in page.get_next_page().data] == made[2:0:-1]


def test_a_store_counts_its_files(store: Any) -> None:
    assert store.status == "completed"
    assert store.file_counts.completed == 2
    assert store.usage_bytes > 0


def test_a_citation_names_the_heading_that_its_quote_stands_under(server: NoriaServer, store: Any) -> None:
    answer = server.openai().responses.create(
        model="scripted",
        input="How many hours a day do cats sleep?",
        tools=[{"type": "file_search", "vector_store_ids": [store.id]}],
        extra_body={"noria": {"answer": "extract"}},
    )
    message: Any = answer.output[-1]
    cited = [each.model_dump()["noria"] for each in message.content[0].annotations]
    cats = [each for each in cited if "sixteen" in each["quote"]]
    assert cats, answer.output_text
    assert cats[0]["heading_path"] == ["Cats"], "both sections are one passage, which begins under Water wheels"


@pytest.mark.parametrize(("query", "expected"), [("power of the stream", "noria"), ("水流 提水", "筒车")])
def test_search_finds_and_explains(server: NoriaServer, store: Any, query: str, expected: str) -> None:
    with server.client() as client:
        page = client.post(f"/v1/vector_stores/{store.id}/search", json={"query": query, "explain": True}).json()
    best = page["data"][0]
    assert expected in best["content"][0]["text"]
    assert best["noria"]["text"]["rank"] == 1
    assert best["noria"]["matched_words"]


def test_a_passage_is_exactly_its_span_of_the_extracted_text(server: NoriaServer, store: Any) -> None:
    with server.client() as client:
        page = client.post(f"/v1/vector_stores/{store.id}/search", json={"query": "cats", "explain": True}).json()
        for hit in page["data"]:
            content = client.get(f"/v1/vector_stores/{store.id}/files/{hit['file_id']}/content").json()
            text = content["data"][0]["text"]
            assert text[hit["noria"]["start"] : hit["noria"]["end"]] == hit["content"][0]["text"]


def test_filters_choose_files(server: NoriaServer, store: Any) -> None:
    client = server.openai()
    wanted: Any = {
        "type": "and",
        "filters": [{"type": "eq", "key": "lang", "value": "zh"}, {"type": "gt", "key": "year", "value": 2021}],
    }
    found = client.vector_stores.search(store.id, query="cats 猫", filters=wanted)
    assert {hit.filename for hit in found} == {"水车.md"}
    with pytest.raises(openai.BadRequestError, match="filters"):
        client.vector_stores.search(store.id, query="x", filters={"type": "like", "key": "a", "value": "b"})  # type: ignore[arg-type]


def test_deleting_a_file_takes_it_out_of_search_at_once(server: NoriaServer) -> None:
    client = server.openai()
    file = upload(client, b"The zebra sings at dawn.", "zebra.txt")
    made = client.vector_stores.create(file_ids=[file.id])
    wait(client, made.id)
    assert list(client.vector_stores.search(made.id, query="zebra"))
    client.vector_stores.files.delete(file.id, vector_store_id=made.id)
    assert list(client.vector_stores.search(made.id, query="zebra")) == []
    assert client.files.retrieve(file.id).id == file.id  # the upload stays


def test_the_upload_goes_with_the_last_store_that_has_it(server: NoriaServer) -> None:
    client = server.openai()
    file = upload(client, WATER)
    stores = [client.vector_stores.create(file_ids=[file.id]).id for _ in range(2)]
    for store_id, gone in zip(stores, (False, True), strict=True):
        wait(client, store_id)
        reply = client.vector_stores.files.delete(file.id, vector_store_id=store_id, extra_query={"delete_upload": True})
        assert reply.model_extra == {"noria": {"upload_deleted": gone}}
        left = {row.id for row in client.files.list()}
        assert (file.id in left) is not gone


def test_a_broken_file_is_reported_and_the_rest_goes_in(server: NoriaServer) -> None:
    client = server.openai()
    good, bad = upload(client, WATER, "good.md"), upload(client, b"%PDF-1.7 broken", "bad.pdf")
    made = client.vector_stores.create()
    batch = client.vector_stores.file_batches.create(made.id, file_ids=[bad.id, good.id])
    wait(client, made.id)
    batch = client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=made.id)
    assert (batch.file_counts.completed, batch.file_counts.failed) == (1, 1)
    failed = client.vector_stores.files.retrieve(bad.id, vector_store_id=made.id)
    assert failed.last_error
    assert failed.last_error.code == "invalid_file"
    assert "bad.pdf" in failed.last_error.message


@pytest.mark.slow
def test_indexes_survive_a_restart(server: NoriaServer, tmp_path: Any) -> None:
    from tests.conftest import running_server

    with running_server(tmp_path / "home") as own:
        client = own.openai()
        made = client.vector_stores.create(name="kept", file_ids=[upload(client, WATER, "water.md").id])
        wait(client, made.id)
        before = [hit.content[0].text for hit in client.vector_stores.search(made.id, query="noria")]
        again = own.restart()
        try:
            assert [hit.content[0].text for hit in again.openai().vector_stores.search(made.id, query="noria")] == before
        finally:
            again.kill()
        third = again.restart()  # after kill -9 the indexes are what was saved, or are caught up from the rows
        try:
            assert [hit.content[0].text for hit in third.openai().vector_stores.search(made.id, query="noria")] == before
        finally:
            third.stop()


def test_unknown_stores_and_files_are_404(server: NoriaServer, store: Any) -> None:
    client = server.openai()
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.retrieve("vs_none")
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.files.create(store.id, file_id="file-none")


@pytest.mark.parametrize(
    "strategy",
    [
        {"type": "static"},
        {"type": "static", "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 150}},
        {"type": "auto", "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 100}},
    ],
)
def test_a_strategy_that_no_file_could_be_split_by_is_refused(server: NoriaServer, store: Any, strategy: dict[str, Any]) -> None:
    file_id = upload(server.openai(), WATER).id
    num_stores = len(list(server.openai().vector_stores.list()))
    with server.client() as client:
        for path, body in (
            ("", {"file_ids": [file_id]}),
            (f"/{store.id}/files", {"file_id": file_id}),
            (f"/{store.id}/file_batches", {"file_ids": [file_id]}),
            (f"/{store.id}/file_batches", {"files": [{"file_id": file_id, "chunking_strategy": strategy}]}),
        ):
            whole = body if "files" in body else {**body, "chunking_strategy": strategy}
            answer = client.post(f"/v1/vector_stores{path}", json=whole)
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["param"].startswith("chunking_strategy")
    assert len(list(server.openai().vector_stores.list())) == num_stores


def test_an_expired_store_is_not_searched_and_stays_expired(tmp_path: Any) -> None:
    from tests.conftest import running_server

    with running_server(tmp_path / "home") as own:
        client = own.openai()
        made = client.vector_stores.create(expires_after={"anchor": "last_active_at", "days": 1})
        with sqlite3.connect(own.home / "noria.db") as database:
            database.execute("UPDATE vector_store SET last_active_at = last_active_at - 100000")
        search: Any = {"type": "file_search", "vector_store_ids": [made.id]}
        for _ in range(2):
            with pytest.raises(openai.BadRequestError, match="expired"):
                client.vector_stores.search(made.id, query="water")
            with pytest.raises(openai.BadRequestError, match="expired"):
                client.responses.create(model="scripted", input="water", tools=[search])
        assert client.vector_stores.retrieve(made.id).status == "expired"
