"""Indexes and rows kept in step: over restarts, kills, failures, many stores and deletions."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, select, update

from noria.errors import DatabaseUnavailable, NotFound, Unavailable
from noria.knowledge import Block, Document, _ingest, _knowledge, _open_stores, pgvector_vectors
from noria.knowledge._ingest import Ingestor
from noria.knowledge._open_stores import OpenStores
from noria.knowledge._unused_blobs import _NAMES
from noria.knowledge.index import PgVectorIndex, TantivyTextIndex
from noria.store import Base, Database, File, StoredPassage, StoreFile, VectorStore

from .stores import Shelf, WordEmbedder

OLD = [f"old wheel number {number}" for number in range(60)]
NEW = [f"new wheel number {number}" for number in range(20)]


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    database = await Database.open(f"sqlite:///{tmp_path / 'noria.db'}")
    made = Shelf(database, tmp_path)
    yield made
    await made.indexes.aclose()
    await database.aclose()


async def held(shelf: Shelf, store: VectorStore) -> tuple[int, int]:
    async with shelf.indexes.use(store.id) as opened:
        return len(opened.vectors.ids()), len(opened.texts.ids())


async def test_what_is_removed_while_the_index_is_closed_leaves_it(shelf: Shelf) -> None:
    store = await shelf.store()
    row = await shelf.put(store, OLD)
    assert len(await shelf.found(store, "wheel number")) == 10
    await shelf.indexes.aclose()
    shelf.restart()
    await shelf.knowledge.remove_file(row)
    await shelf.put(store, NEW)
    assert len(await shelf.found(store, "wheel number")) == 10
    assert await held(shelf, store) == (20, 20)


async def test_a_kill_soon_after_a_deletion_brings_nothing_back(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await shelf.store()
    row = await shelf.put(store, OLD)
    await shelf.found(store, "wheel")
    async with shelf.indexes.use(store.id) as opened:
        opened.vectors.save()
    await shelf.knowledge.remove_file(row)
    await shelf.put(store, NEW)
    monkeypatch.setattr(_open_stores, "_save", lambda opened: opened.texts.rest())  # killed before it was saved
    await shelf.indexes.aclose()
    monkeypatch.undo()
    shelf.restart()
    assert len(await shelf.found(store, "wheel number")) == 10
    assert await held(shelf, store) == (20, 20)


async def test_a_file_that_is_changed_while_the_index_is_closed(shelf: Shelf) -> None:
    store = await shelf.store()
    row = await shelf.put(store, OLD)
    await shelf.found(store, "wheel")
    await shelf.indexes.aclose()
    shelf.restart()
    async with shelf.database.write() as session:
        await session.execute(delete(StoredPassage).where(StoredPassage.file_ordinal == row.ordinal))
    await shelf.switch(row, NEW)
    assert await shelf.found(store, "old wheel", k=20) != []
    assert await held(shelf, store) == (20, 20)


async def test_an_update_that_fails_is_made_up_for(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await shelf.store()
    await shelf.put(store, OLD[:1])
    assert await shelf.found(store, "wheel") == OLD[:1]

    def full(*_: Any) -> None:
        raise Unavailable("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(TantivyTextIndex, "add", full)
        await shelf.put(store, NEW[:1])
        with pytest.raises(Unavailable):  # said, rather than searched without it
            await shelf.found(store, "wheel")
    await shelf.put(store, NEW[1:2])
    assert sorted(await shelf.found(store, "wheel")) == sorted([OLD[0], NEW[0], NEW[1]])


async def test_a_removal_that_fails_does_not_stop_the_search(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await shelf.store()
    row = await shelf.put(store, OLD[:30])
    await shelf.put(store, NEW)
    await shelf.found(store, "wheel")

    def full(*_: Any) -> None:
        raise Unavailable("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(TantivyTextIndex, "remove", full)
        await shelf.knowledge.remove_file(row)
        compared = 0
        compare = OpenStores._compare

        async def counted(*given: Any) -> None:
            nonlocal compared
            compared += 1
            await compare(*given)

        patch.setattr(OpenStores, "_compare", counted)
        for _ in range(3):
            found = await shelf.found(store, "wheel number")
            assert len(found) == 10
            assert set(found) <= set(NEW)
        assert compared == 0, "it is not tried again with every search"
    async with shelf.indexes.use(store.id) as opened:
        opened.leftovers_at_s = 0.0
    await shelf.found(store, "wheel")
    assert await held(shelf, store) == (20, 20)


@pytest.mark.parametrize("what", ["zero", "nan", "short"])
async def test_a_passage_without_a_usable_vector_leaves_the_others_to_be_found(shelf: Shelf, what: str) -> None:
    store = await shelf.store()
    await shelf.put(store, OLD[:5])
    row = await shelf.put(store, NEW[:5])
    bad = {"zero": np.zeros(64), "nan": np.full(64, np.nan), "short": np.ones(3)}[what].astype("<f4").tobytes()
    async with shelf.database.write() as session:
        one = select(StoredPassage.id).where(StoredPassage.file_ordinal == row.ordinal).limit(1).scalar_subquery()
        await session.execute(update(StoredPassage).where(StoredPassage.id == one).values(vector=bad))
    assert len(await shelf.found(store, "wheel number", k=20)) == 10
    assert await held(shelf, store) == (9, 10)


async def test_a_file_that_changes_and_keeps_its_size_is_saved(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_open_stores, "_SAVE_AFTER_S", 0.0)
    store = await shelf.store()
    row = await shelf.put(store, OLD[:20])
    await shelf.found(store, "wheel")
    async with shelf.indexes.use(store.id) as opened:
        if opened.saver is not None:
            await opened.saver
        async with shelf.database.write() as session:
            await session.execute(delete(StoredPassage).where(StoredPassage.file_ordinal == row.ordinal))
        saver = opened.saver
        await shelf.switch(row, NEW)
        assert opened.saver is not saver


async def test_attributes_of_a_file_put_in_again_count_at_once(shelf: Shelf) -> None:
    store = await shelf.store()
    row = await shelf.put(store, NEW[:1], team="it")
    assert await shelf.found(store, "wheel", team="it") == NEW[:1]
    await shelf.knowledge.add_files(store, [{"file_id": row.file_id, "attributes": {"team": "hr"}}])  # its job never runs
    assert await shelf.found(store, "wheel", team="it") == []
    assert await shelf.found(store, "wheel", team="hr") == NEW[:1]


async def test_only_so_many_stores_are_open(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_open_stores, "_MOST_OPEN", 3)
    monkeypatch.setattr(_open_stores, "_SAVE_AFTER_S", 0.0)
    stores = [await shelf.store(f"s{number}") for number in range(8)]
    for number, store in enumerate(stores):
        await shelf.put(store, [f"wheel {number}"])
    for _ in range(2):
        for number, store in enumerate(stores):
            assert await shelf.found(store, "wheel") == [f"wheel {number}"]
        await asyncio.gather(*[shelf.found(store, "wheel") for store in stores])
    await asyncio.sleep(1.5)  # what watches a closed index's files looks twice a second
    threads, files = _of_indexes()
    assert len(threads) <= 3, threads  # a reader has one, which watches
    assert len(files) <= 2 * 3, files


def _of_indexes() -> tuple[list[str], list[str]]:
    """The process's threads and open files that are indexes'."""
    threads = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    files = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    mine = [name for name in threads if any(part in name for part in ("tantivy", "merge_thread", "segment_updater"))]
    return mine, [path for path in files if "/indexes/vs_" in path]


async def test_a_store_in_use_is_not_closed_under_its_reader(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_open_stores, "_MOST_OPEN", 1)
    one, two = await shelf.store("one"), await shelf.store("two")
    await shelf.put(one, OLD[:1])
    async with shelf.indexes.use(one.id) as opened:
        await shelf.found(two, "wheel")
        async with shelf.indexes.use(one.id) as same:
            assert same is opened
        deletion = asyncio.ensure_future(shelf.knowledge.delete(one))
        await asyncio.sleep(0.05)
        assert len(opened.vectors.ids()) == 1
        assert not deletion.done()
    await deletion
    with pytest.raises(NotFound):
        async with shelf.indexes.use(one.id):
            pass
    assert not (shelf.folder / "indexes" / one.id).exists()


async def test_a_search_that_is_cancelled_while_it_opens_leaves_the_store_usable(shelf: Shelf) -> None:
    store = await shelf.store()
    await shelf.put(store, OLD)
    for wait_s in (0, 0.001, 0.005, 0.02):
        search = asyncio.ensure_future(shelf.found(store, "wheel"))
        await asyncio.sleep(wait_s)
        search.cancel()
        await asyncio.gather(search, return_exceptions=True)
        await shelf.indexes.aclose()  # would wait for ever for a user that is none
        shelf.restart()
    assert len(await shelf.found(store, "wheel")) == 10


async def test_torn_indexes_are_made_anew(shelf: Shelf) -> None:
    store = await shelf.store()
    await shelf.put(store, NEW)
    await shelf.found(store, "wheel")
    await shelf.indexes.aclose()
    for torn in ("vectors/manifest.json", "texts/meta.json"):
        (shelf.folder / "indexes" / store.id / torn).write_text("{")
        shelf.restart()
        assert len(await shelf.found(store, "wheel")) == 10
        assert await held(shelf, store) == (20, 20)
        await shelf.indexes.aclose()


async def test_changes_while_the_store_is_opened_are_not_missed(shelf: Shelf) -> None:
    store = await shelf.store()
    rows = [await shelf.put(store, [f"wheel {number}"]) for number in range(6)]
    searches = [asyncio.ensure_future(shelf.found(store, "wheel")) for _ in range(3)]
    await asyncio.gather(*[shelf.knowledge.remove_file(row) for row in rows[:3]], *searches)
    await asyncio.gather(*[shelf.put(store, [f"wheel late {number}"]) for number in range(3)])
    assert len(await shelf.found(store, "wheel")) == 6
    assert await held(shelf, store) == (6, 6)


# --- what deletions leave ---------------------------------------------------------------------------------------------


async def test_indexes_of_stores_that_are_gone_are_collected(shelf: Shelf) -> None:
    kept = await shelf.store()
    await shelf.found(kept, "x")
    for name in ("vs_gone", "notes"):
        (shelf.folder / "indexes" / name).mkdir()
    await shelf.knowledge.collect()
    assert {path.name for path in (shelf.folder / "indexes").iterdir()} == {kept.id, "notes"}


@pytest.mark.postgres
async def test_a_store_that_is_not_open_leaves_no_table(database_with_vectors: str, tmp_path: Path) -> None:
    database = await Database.open(database_with_vectors)
    shelf = Shelf(database, tmp_path)
    shelf.indexes = OpenStores(database, tmp_path / "indexes", pgvector_vectors(database_with_vectors))
    shelf.knowledge._indexes = shelf.knowledge.retrieval._stores = shelf.indexes
    one, two, three = [await shelf.store(name) for name in "abc"]
    for store in (one, two, three):
        await shelf.put(store, NEW)
        assert len(await shelf.found(store, "wheel")) == 10
    await shelf.indexes.aclose()
    await shelf.knowledge.delete(one)
    async with database.write() as session:
        await session.execute(delete(VectorStore).where(VectorStore.id == two.id))
    await shelf.knowledge.collect()
    assert PgVectorIndex.names(database_with_vectors) == [three.id]
    await shelf.indexes.aclose()
    await database.aclose()


async def test_old_blobs_that_no_row_names_are_collected(shelf: Shelf) -> None:
    store = await shelf.store()
    text, upload, again = [await shelf.blobs.put(data) for data in (b"text", b"upload", b"again")]
    orphan, fresh = await shelf.blobs.put(b"orphan"), await shelf.blobs.put(b"fresh")
    for ref in (text, upload, again, orphan):
        os.utime(shelf.blobs.path(ref.sha256), (0, time.time() - 8 * 86400))
    row = await shelf.put(store, NEW[:1])
    async with shelf.database.write() as session:
        live = await session.get_one(StoreFile, row.ordinal)
        live.text_sha256 = text.sha256
        (await session.get_one(File, row.file_id)).sha256 = upload.sha256
    await shelf.put(store, NEW[1:2])
    await shelf.knowledge.collect()
    left = shelf.blobs.put_before(time.time() + 60)
    assert left == {text.sha256, upload.sha256, fresh.sha256}, "two orphans, three blobs that rows name"


async def test_a_database_that_knows_few_of_the_blobs_deletes_none(shelf: Shelf) -> None:
    refs = [await shelf.blobs.put(f"{number}".encode()) for number in range(3)]
    for ref in refs:
        os.utime(shelf.blobs.path(ref.sha256), (0, 0))
    await shelf.upload()
    await shelf.upload()
    await shelf.knowledge.collect()
    assert len(shelf.blobs.put_before(time.time())) == 3


def test_every_column_that_may_name_a_blob_is_known() -> None:
    others = {"passage.sha256", "tuned_model.sha256", "idempotency.request_sha256"}  # a passage's text, weights, a body
    found = {str(column) for table in Base.metadata.tables.values() for column in table.columns if "sha256" in column.name}
    assert found - others == {f"{column.class_.__tablename__}.{column.key}" for column in _NAMES}


class Reading:
    """Reads every file as this text; `then` happens before it is done. Also a job that nobody stops."""

    def __init__(self, text: str, then: Callable[[], Awaitable[None]] | None = None) -> None:
        self._text, self._then = text, then

    async def extract(self, _data: bytes, *, filename: str) -> Document:
        if self._then is not None:
            await self._then()
        return Document(self._text, (Block("paragraph", 0, len(self._text)),), "text")

    async def progress(self, *_: Any, **__: Any) -> None: ...

    def check(self) -> None: ...


async def test_texts_that_no_row_names_are_released(shelf: Shelf) -> None:
    store = await shelf.store()
    upload = await shelf.blobs.put(b"the upload")
    file_id = await shelf.upload()
    async with shelf.database.write() as session:
        file = await session.get_one(File, file_id)
        file.sha256 = upload.sha256

    async def cancel() -> None:
        async with shelf.database.write() as session:
            await session.execute(update(StoreFile).values(status="cancelled"))

    async def ingested(text: str, then: Callable[[], Awaitable[None]] | None = None) -> set[str]:
        (row,), _ = await shelf.knowledge.stores.attach(store, [{"file_id": file_id}])
        reading: Any = Reading(text, then)
        ingestor = Ingestor(shelf.database, shelf.blobs, WordEmbedder(), reading, shelf.indexes.reconcile)
        await ingestor._file(row, file, reading, 0, 1)
        return shelf.blobs.put_before(1e11) - {upload.sha256}

    first, second = (hashlib.sha256(text).hexdigest() for text in (b"first", b"second"))
    assert await ingested("first") == {first}
    assert await ingested("second") == {second}, "the text before it stays"
    assert await ingested("third", cancel) == {second}, "the text of what was cancelled stays"


async def test_what_cannot_be_released_is_found_and_forgotten_all_the_same(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await shelf.store()
    upload = await shelf.blobs.put(b"the upload")
    file_id = await shelf.upload()
    async with shelf.database.write() as session:
        (await session.get_one(File, file_id)).sha256 = upload.sha256
    assert await shelf.found(store, "wheel") == []  # it is open

    async def refused(*_: Any) -> None:
        raise DatabaseUnavailable("The database does not answer.")

    (row,), _ = await shelf.knowledge.stores.attach(store, [{"file_id": file_id}])
    reading: Any = Reading("the wheel", None)
    ingestor = Ingestor(shelf.database, shelf.blobs, WordEmbedder(), reading, shelf.indexes.reconcile)
    with monkeypatch.context() as patch:
        patch.setattr(_ingest, "release", refused)
        with pytest.raises(DatabaseUnavailable):
            await ingestor.run(reading, {"ordinals": [row.ordinal]})
    assert await shelf.found(store, "wheel") == ["the wheel"]
    monkeypatch.setattr(_knowledge, "release", refused)
    with pytest.raises(DatabaseUnavailable):
        await shelf.knowledge.remove_file(row)
    assert await held(shelf, store) == (0, 0)
    with pytest.raises(DatabaseUnavailable):
        await shelf.knowledge.delete(store)
    assert not (shelf.folder / "indexes" / store.id).exists()


async def test_a_file_that_an_earlier_attempt_completed_is_found(shelf: Shelf) -> None:
    store = await shelf.store()
    row = await shelf.put(store, OLD[:1])
    assert await shelf.found(store, "wheel") == OLD[:1]
    told: list[Any] = []

    async def on_switch(*given: Any) -> None:
        told.append(given)

    reading: Any = Reading("", None)
    await Ingestor(shelf.database, shelf.blobs, WordEmbedder(), reading, on_switch).run(reading, {"ordinals": [row.ordinal]})
    assert told == [(store.id, [row.ordinal])]


async def test_a_file_without_a_usable_vector_fails_and_says_so(shelf: Shelf) -> None:
    class Broken(WordEmbedder):
        async def embed(self, texts: list[str], *, model: str, kind: str) -> Any:
            return np.full((len(texts), 64), np.nan, np.float32)

    store = await shelf.store()
    upload = await shelf.blobs.put(b"the upload")
    file_id = await shelf.upload()
    async with shelf.database.write() as session:
        (await session.get_one(File, file_id)).sha256 = upload.sha256
    (row,), _ = await shelf.knowledge.stores.attach(store, [{"file_id": file_id}])
    reading: Any = Reading("the wheel", None)
    await Ingestor(shelf.database, shelf.blobs, Broken(), reading, shelf.indexes.reconcile).run(
        reading, {"ordinals": [row.ordinal]}
    )
    async with shelf.database.read() as session:
        failed = await session.get_one(StoreFile, row.ordinal)
    assert failed.status == "failed"
    assert "no usable vector" in (failed.error_message or "")
