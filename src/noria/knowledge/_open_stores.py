"""The open indexes of vector stores: opened when first searched, kept in step with the rows, closed when others are searched.

One rule keeps them in step: the ids that an index holds are compared with those that are live in the database, and the
difference is added or removed. That is done for a whole store when it is opened, and for the files of a hint when their rows
have changed. Ids are never used again and a passage never changes, so that the same id is the same passage; no note of
what an index knows can be wrong, for there is none. Knows nothing of queries.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
from sqlalchemy import and_, select

from noria.errors import NoriaError, NotFound
from noria.store import Database, File, StoredPassage, StoreFile, VectorStore

from ._filters import FileAttributes
from ._kept_vectors import KeptVectors, OpenVectors
from ._search import HybridSearch
from .index import Ints, RebuildNeeded, TantivyTextIndex, is_usable

__all__ = ["NamedFile", "OpenStore", "OpenStores"]

_log = logging.getLogger("noria.knowledge")
_T = TypeVar("_T")
_SAVE_AFTER_S = 5.0
_LEFTOVERS_AFTER_S, _LEFTOVERS_MOST_S = 5.0, 600.0
_MOST_OPEN = 32  # each holds two descriptors, and its vectors in memory
_READ_ROWS = 2000
_SQL_BATCH = 400


@dataclass(frozen=True, slots=True)
class NamedFile:
    file_id: str
    filename: str
    attributes: dict[str, Any]


class _Files:
    """The live files of a store by ordinal, and their attributes ready to be filtered."""

    def __init__(self) -> None:
        self.named: dict[int, NamedFile] = {}
        self.attributes = FileAttributes()

    def set(self, ordinal: int, file: NamedFile) -> None:
        self.named[ordinal] = file
        self.attributes.set(ordinal, file.attributes)

    def drop(self, ordinal: int) -> None:
        self.named.pop(ordinal, None)
        self.attributes.drop(ordinal)


@dataclass(slots=True)
class OpenStore:
    """One store's indexes. `lock` is held while they change or are saved; readers do not take it, but are counted."""

    vectors: KeptVectors
    texts: TantivyTextIndex
    dimensions: int
    hybrid: HybridSearch
    files: _Files = field(default_factory=_Files)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    saver: asyncio.Task[None] | None = None
    dirty: bool = False
    behind: bool = False
    """Something could not be brought in; the next search compares everything first."""
    leftovers_at_s: float = math.inf
    """When what could not be taken out is tried again, on the monotonic clock; a search goes on without that."""
    leftovers_wait_s: float = 0.0
    users: int = 0
    unused: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_due(self) -> bool:
        """Whether everything is to be compared before the next search."""
        return self.behind or time.monotonic() >= self.leftovers_at_s

    def enter(self) -> None:
        self.users += 1
        self.unused.clear()

    def leave(self) -> None:
        self.users -= 1
        if not self.users:
            self.unused.set()


class OpenStores:
    def __init__(self, database: Database, folder: Path, open_vectors: OpenVectors) -> None:
        self._database, self._folder, self._open_vectors = database, folder, open_vectors
        self._open: dict[str, OpenStore] = {}  # the last used is the last
        self._doors: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._unfinished: set[asyncio.Task[Any]] = set()

    @contextlib.asynccontextmanager
    async def use(self, store_id: str) -> AsyncGenerator[OpenStore, None]:
        """A store's indexes, in step with its rows. Raises NotFound when the store is gone."""
        opened = self._open.get(store_id)
        if opened is None or opened.is_due:
            opened = await self._finished(self._enter(store_id), OpenStore.leave)
        else:
            opened.enter()
            self._open[store_id] = self._open.pop(store_id)
        try:
            yield opened
        finally:
            opened.leave()
            if len(self._open) > _MOST_OPEN:  # more were in use at once
                await self._finished(self._make_room())

    async def reconcile(self, store_id: str, ordinals: Sequence[int]) -> None:
        """A hint that rows of these files have changed. Raises nothing: what fails is done before the next search."""
        if ordinals:
            await self._finished(self._follow(store_id, ordinals))

    async def drop(self, store_id: str) -> None:
        """The store is gone: so are its indexes, open or not. Raises nothing: what is left goes with `drop_unknown`."""
        await self._finished(self._drop(store_id))

    async def drop_unknown(self) -> None:
        """Drops what is kept of stores that the database does not know (any more)."""
        kept = await asyncio.to_thread(self._kept)  # before the rows are read: a store's row is there before its indexes
        async with self._database.read() as session:
            known = {store_id.lower() for store_id in await session.scalars(select(VectorStore.id))}
        for store_id in kept:
            if store_id.startswith("vs_") and store_id.lower() not in known:
                await self.drop(store_id)

    async def aclose(self) -> None:
        await asyncio.gather(*self._unfinished, return_exceptions=True)
        for store_id in list(self._open):
            async with self._door(store_id):
                if (opened := self._open.pop(store_id, None)) is not None:
                    await self._close(opened, save=True)

    # --- opening and closing ------------------------------------------------------------------------------------------

    def _door(self, store_id: str) -> asyncio.Lock:
        """Held while a store is opened or closed, so that one process has it open once."""
        return self._doors.setdefault(store_id, asyncio.Lock())

    async def _finished(self, work: Coroutine[Any, Any, _T], let_go: Callable[[_T], None] | None = None) -> _T:
        """Does the work to its end also when the caller is cancelled, whose result is then let go of."""
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:

            def ended(task: asyncio.Task[_T]) -> None:
                if not task.cancelled() and task.exception() is None and let_go is not None:
                    let_go(task.result())

            task.add_done_callback(ended)
            raise

    async def _enter(self, store_id: str) -> OpenStore:
        async with self._door(store_id):
            opened = self._open.pop(store_id, None) or await self._load(store_id)
            self._open[store_id] = opened
            opened.enter()
        try:
            await self._make_room()
            if opened.is_due:
                async with opened.lock:
                    if opened.is_due:  # nobody was quicker
                        await self._compare(store_id, opened)
        except BaseException:
            opened.leave()
            raise
        return opened

    async def _load(self, store_id: str) -> OpenStore:
        async with self._database.read() as session:
            store = await session.get(VectorStore, store_id)
        if store is None:
            raise NotFound(f"No vector store {store_id!r}.", param="vector_store_id", hint="`noria stores list` shows them.")
        opened = await asyncio.to_thread(_open_indexes, store, self._folder / store_id, self._open_vectors)
        try:
            async with opened.lock:
                await self._compare(store_id, opened)
        except BaseException:
            await self._close(opened, save=False)
            raise
        return opened

    async def _make_room(self) -> None:
        """Closes those that were not searched for the longest time, as far as nobody uses them. Raises nothing."""
        while len(self._open) > _MOST_OPEN:
            unused = (key for key, opened in self._open.items() if not opened.users and not self._door(key).locked())
            if (store_id := next(unused, None)) is None:
                return
            async with self._door(store_id):  # at once, for it is free
                opened = self._open.pop(store_id)
                try:
                    await self._close(opened, save=True)
                except Exception:
                    _log.exception("The index of %s could not be closed", store_id)

    async def _drop(self, store_id: str) -> None:
        async with self._door(store_id):
            try:
                if (opened := self._open.pop(store_id, None)) is not None:
                    await self._close(opened, save=False)
                await asyncio.to_thread(self._open_vectors.drop, store_id)
            except Exception:
                _log.warning("The indexes of %s could not be dropped; they are at the next start", store_id, exc_info=True)
            await asyncio.to_thread(shutil.rmtree, self._folder / store_id, ignore_errors=True)

    def _kept(self) -> list[str]:
        folders = [path.name for path in self._folder.iterdir() if path.is_dir()] if self._folder.is_dir() else []
        return [*folders, *self._open_vectors.elsewhere()]

    async def _close(self, opened: OpenStore, *, save: bool) -> None:
        if opened.users:
            await opened.unused.wait()
        async with opened.lock:  # the saver now sleeps or waits for the lock, and is in no thread
            if opened.saver is not None:
                opened.saver.cancel()
                opened.saver = None
            if save and opened.dirty:
                await asyncio.to_thread(_save, opened)
            await asyncio.to_thread(opened.texts.close)
            await asyncio.to_thread(opened.vectors.close)

    # --- keeping in step ----------------------------------------------------------------------------------------------

    async def _follow(self, store_id: str, ordinals: Sequence[int]) -> None:
        async with self._door(store_id):  # one that is being opened may have read the rows before they changed
            opened = self._open.get(store_id)
            if opened is None:
                return
            opened.enter()
        try:
            for start in range(0, len(ordinals), _SQL_BATCH):
                async with opened.lock:
                    await self._compare(store_id, opened, ordinals[start : start + _SQL_BATCH])
        except Exception:
            opened.behind = True
            _log.warning("The index of %s is behind; the next search brings it up to date", store_id, exc_info=True)
        finally:
            opened.leave()

    async def _compare(self, store_id: str, opened: OpenStore, ordinals: Sequence[int] | None = None) -> None:
        """Brings the indexes in step with the rows of these files, or of all. Under the lock."""
        live = await self._live(store_id, ordinals)
        await self._name_files(store_id, opened, ordinals)
        files = None if ordinals is None else np.array(ordinals, np.int64)
        vectors = await asyncio.to_thread(opened.vectors.ids, files)
        texts = await asyncio.to_thread(opened.texts.ids, files)
        await self._add(opened, np.setdiff1d(live, vectors), np.setdiff1d(live, texts))
        if ordinals is None:
            opened.behind = False
            opened.leftovers_at_s = math.inf
        try:
            await asyncio.to_thread(_remove, opened, np.setdiff1d(vectors, live), np.setdiff1d(texts, live))
        except NoriaError:
            # They never come out of a search, so it can go on.
            opened.leftovers_wait_s = min(max(_LEFTOVERS_AFTER_S, 2 * opened.leftovers_wait_s), _LEFTOVERS_MOST_S)
            opened.leftovers_at_s = time.monotonic() + opened.leftovers_wait_s
            _log.warning("The index of %s still holds what was removed", store_id, exc_info=True)
        else:
            if ordinals is None:
                opened.leftovers_wait_s = 0.0
        if np.setxor1d(vectors, live).size or np.setxor1d(texts, live).size:
            self._save_soon(opened)

    async def _live(self, store_id: str, ordinals: Sequence[int] | None) -> Ints:
        of_file = and_(StoreFile.ordinal == StoredPassage.file_ordinal, StoreFile.generation == StoredPassage.generation)
        query = select(StoredPassage.id).join(StoreFile, of_file).where(StoreFile.store_id == store_id)
        if ordinals is not None:
            query = query.where(StoreFile.ordinal.in_(ordinals))
        async with self._database.read() as session:
            return np.array((await session.scalars(query)).all(), np.int64)

    async def _name_files(self, store_id: str, opened: OpenStore, ordinals: Sequence[int] | None) -> None:
        """Reads names and attributes of live files; the others of these ordinals are forgotten."""
        query = (
            select(StoreFile.ordinal, StoreFile.file_id, File.filename, StoreFile.attributes)
            .join(File, File.id == StoreFile.file_id)
            .where(StoreFile.store_id == store_id, StoreFile.generation > 0)
        )
        if ordinals is not None:
            query = query.where(StoreFile.ordinal.in_(ordinals))
        async with self._database.read() as session:
            rows = {row[0]: NamedFile(*row[1:]) for row in await session.execute(query)}
        for ordinal in set(opened.files.named if ordinals is None else ordinals) - rows.keys():
            opened.files.drop(ordinal)
        for ordinal, file in rows.items():
            opened.files.set(ordinal, file)

    async def _add(self, opened: OpenStore, to_vectors: Ints, to_texts: Ints) -> None:
        missing = np.union1d(to_vectors, to_texts)
        for start in range(0, len(missing), _READ_ROWS):
            ids = missing[start : start + _READ_ROWS]
            async with self._database.read() as session:
                rows = list(await session.scalars(select(StoredPassage).where(StoredPassage.id.in_(ids.tolist()))))
            await asyncio.to_thread(_add, opened, rows, to_vectors, to_texts)

    def _save_soon(self, opened: OpenStore) -> None:
        opened.dirty = True
        if opened.saver is None or opened.saver.done():
            opened.saver = asyncio.ensure_future(self._save_later(opened))

    async def _save_later(self, opened: OpenStore) -> None:
        await asyncio.sleep(_SAVE_AFTER_S)
        async with opened.lock:
            await asyncio.to_thread(_save, opened)


def _open_indexes(store: VectorStore, folder: Path, open_vectors: OpenVectors) -> OpenStore:
    vectors = _anew_if_torn(lambda: open_vectors(store, folder), folder / "vectors")
    try:
        texts = _anew_if_torn(lambda: TantivyTextIndex(folder / "texts"), folder / "texts")
    except BaseException:
        vectors.close()
        raise
    return OpenStore(vectors, texts, store.dimensions, HybridSearch(vectors, texts))


def _anew_if_torn(open_one: Callable[[], _T], folder: Path) -> _T:
    try:
        return open_one()
    except RebuildNeeded:
        shutil.rmtree(folder, ignore_errors=True)
    return open_one()


def _add(opened: OpenStore, rows: Sequence[StoredPassage], to_vectors: Ints, to_texts: Ints) -> None:
    usable = [row for row in rows if is_usable(row.vector, opened.dimensions)]
    if len(usable) < len(rows):
        strange = len(rows) - len(usable)
        _log.warning("%s passages of %s have no usable vector: words alone find them", strange, rows[0].store_id)
    for index_ids, given, put in ((to_vectors, usable, _add_vectors), (to_texts, rows, _add_texts)):
        wanted = set(index_ids.tolist())
        if chosen := [row for row in given if row.id in wanted]:
            ids = np.array([row.id for row in chosen], np.int64)
            put(opened, ids, np.array([row.file_ordinal for row in chosen], np.int64), chosen)


def _add_vectors(opened: OpenStore, ids: Ints, files: Ints, rows: Sequence[StoredPassage]) -> None:
    opened.vectors.add(ids, files, np.stack([np.frombuffer(row.vector, dtype="<f4") for row in rows]))


def _add_texts(opened: OpenStore, ids: Ints, files: Ints, rows: Sequence[StoredPassage]) -> None:
    opened.texts.add(ids, files, [f"{row.context}\n{row.text}" if row.context else row.text for row in rows])


def _remove(opened: OpenStore, from_vectors: Ints, from_texts: Ints) -> None:
    if from_vectors.size:
        opened.vectors.remove(from_vectors)
    if from_texts.size:
        opened.texts.remove(from_texts)


def _save(opened: OpenStore) -> None:
    opened.texts.rest()
    with contextlib.suppress(NoriaError, OSError):  # a full disk: the rows are the truth, and it is compared when opened
        opened.vectors.save()
        opened.dirty = False
