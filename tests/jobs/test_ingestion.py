"""Ingestion as a job on a real server: stopped and resumed, cancelled, put in twice, taken away meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import NoriaServer, running_server

from .ingesting import ALLOW, assert_whole, begin, completed, embed_slowly, rows, settled, until, upload_many


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    with running_server(tmp_path_factory.mktemp("ingesting"), **ALLOW) as server:
        embed_slowly(server, 0.15)
        yield server


def job_of(server: NoriaServer, store_id: str) -> dict[str, object]:
    with server.client() as client:
        jobs = client.get("/v1/noria/jobs", params={"kind": "ingest", "limit": 1000}).json()["data"]
    return next(job for job in jobs if job["subject"] == store_id)


def test_a_cancelled_job_cancels_what_it_did_not_reach(server: NoriaServer) -> None:
    store_id = begin(server, upload_many(server, 8))
    until(lambda: completed(server, store_id))
    with server.client() as client:
        client.post(f"/v1/noria/jobs/{job_of(server, store_id)['id']}/cancel").raise_for_status()
    store = settled(server, store_id)
    assert store.file_counts.cancelled > 0
    assert store.file_counts.completed + store.file_counts.cancelled == 8
    until(lambda: job_of(server, store_id)["status"] == "cancelled")
    assert_whole(server.home, store_id, store.file_counts.completed)


def test_a_cancelled_batch_leaves_nothing_of_its_open_files(server: NoriaServer) -> None:
    client = server.openai()
    store_id = client.vector_stores.create(name="b").id
    batch = client.vector_stores.file_batches.create(store_id, file_ids=upload_many(server, 8))
    until(lambda: completed(server, store_id))
    client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store_id)
    until(lambda: job_of(server, store_id)["status"] == "completed")
    assert_whole(server.home, store_id, completed(server, store_id))
    assert completed(server, store_id) < 8


def test_a_file_put_in_twice_is_there_once(server: NoriaServer) -> None:
    client = server.openai()
    (file_id,) = upload_many(server, 1, paragraphs=80)
    store_id = begin(server, [file_id])
    client.vector_stores.files.create(store_id, file_id=file_id)
    client.vector_stores.files.create(
        store_id,
        file_id=file_id,
        attributes={"last": True},
        chunking_strategy={"type": "static", "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 0}},
    )
    settled(server, store_id)
    assert_whole(server.home, store_id, 1)
    file = client.vector_stores.files.retrieve(file_id, vector_store_id=store_id)
    assert file.attributes == {"last": True}
    assert file.chunking_strategy.static.max_chunk_size_tokens == 200  # type: ignore[union-attr]
    spans = rows(server.home, "SELECT max(num_tokens) FROM passage WHERE store_id=?", store_id)
    assert spans[0][0] > 110, "the last chunking asked for is the one that counts"


def test_taking_files_away_meanwhile_does_not_stop_the_others(server: NoriaServer) -> None:
    client = server.openai()
    files = upload_many(server, 6, paragraphs=60)
    store_id = begin(server, files)
    until(lambda: rows(server.home, "SELECT 1 FROM passage WHERE store_id=?", store_id))
    client.vector_stores.files.delete(files[0], vector_store_id=store_id)
    client.files.delete(files[1])
    # What the job still holds of the first file must not become the text of this one.
    (late,) = upload_many(server, 1, paragraphs=3)
    client.vector_stores.files.create(store_id, file_id=late)
    settled(server, store_id)
    until(lambda: job_of(server, store_id)["status"] == "completed")
    assert_whole(server.home, store_id, 5)


def test_deleting_the_store_meanwhile_ends_the_job(server: NoriaServer) -> None:
    store_id = begin(server, upload_many(server, 3, paragraphs=60))
    until(lambda: rows(server.home, "SELECT 1 FROM passage WHERE store_id=?", store_id))
    server.openai().vector_stores.delete(store_id)
    until(lambda: job_of(server, store_id)["status"] in {"completed", "failed"})
    assert job_of(server, store_id)["status"] == "completed"
    assert rows(server.home, "SELECT count(*) FROM passage WHERE store_id=?", store_id) == [(0,)]


def test_texts_of_files_go_with_the_last_that_needs_them(server: NoriaServer) -> None:
    client = server.openai()
    before = {path.name for path in (server.home / "blobs").rglob("*") if len(path.name) == 64}
    files = upload_many(server, 2, paragraphs=2)
    stores = [begin(server, files), begin(server, files)]
    for store_id in stores:
        settled(server, store_id)
    client.vector_stores.delete(stores[0])
    text = client.vector_stores.files.content(files[0], vector_store_id=stores[1])
    assert "File 0" in next(iter(text)).text  # type: ignore[operator]
    client.vector_stores.delete(stores[1])
    for file_id in files:
        client.files.delete(file_id)
    assert {path.name for path in (server.home / "blobs").rglob("*") if len(path.name) == 64} == before


@pytest.mark.slow
def test_a_stopped_server_resumes_where_it_was(server: NoriaServer) -> None:
    store_id = begin(server, upload_many(server, 8))
    until(lambda: completed(server, store_id) >= 2)
    again = server.restart()
    server.process, server.url, server.token = again.process, again.url, again.token
    assert settled(server, store_id).file_counts.completed == 8
    assert_whole(server.home, store_id, 8)
    until(lambda: job_of(server, store_id)["status"] == "completed")
