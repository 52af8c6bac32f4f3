"""The embedded vector index: an HNSW graph (faiss) over most rows, exact search over the newest and over small filters.

Readers never wait: they take a snapshot (`_State`) that no writer changes, deletions apart, which are bits that only
ever go from live to dead. The writer appends rows to the tail; when the tail is long it copies the graph, extends the
copy and swaps it in. A filter that leaves few rows is answered exactly, since a graph's recall falls with selectivity
(0.69 at 1 % without this); above that the search widens as the filter narrows. Source: Malkov & Yashunin, https://arxiv.org/abs/1603.09320
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from noria.knowledge.index._contract import AllowedFiles, Bools, Floats, Ints, Ranking, unit_vectors
from noria.knowledge.index._snapshot import Snapshot, SnapshotFolder, load_faiss

__all__ = ["FaissVectorIndex"]

_LINKS = 16  # M: neighbours of a node; 32 gave recall .99 instead of .98 at 100k × 384 for a graph twice as large
_BUILD_WIDTH = 100  # efConstruction
_SEARCH_WIDTH = 128  # efSearch without a filter: recall@10 0.98 at 100k × 384
_MAX_SEARCH_WIDTH = 768
_EXACT_ROWS = 10_000  # allowed rows up to which comparing them all (1.2 ms) costs no more than a wide graph search
_FIRST_GRAPH_ROWS = 8_192  # fewer are compared directly, in about a millisecond
_TAIL_ROWS = 4_096  # rows outside the graph before it is extended
_COMPACT_AT_DEAD = 0.3  # share of dead rows from which the graph is built anew without them


@dataclass(frozen=True)
class _State:
    """Rows `[0, num_graph)` are in the graph, `[num_graph, num_rows)` in the tail. Arrays may be longer than that."""

    graph: Any  # faiss.IndexHNSWFlat or None; never changed once it is here
    graph_vectors: Floats  # a view into the graph's own storage
    tail: Floats
    ids: Ints
    files: Ints
    alive: Bools
    num_graph: int = 0
    num_rows: int = 0

    def rows(self, chosen: Ints) -> Floats:
        """The vectors of these rows, which must be sorted."""
        split = int(np.searchsorted(chosen, self.num_graph))
        if split == chosen.size:
            return self.graph_vectors[chosen]
        if split == 0:
            return self.tail[chosen - self.num_graph]
        return np.concatenate([self.graph_vectors[chosen[:split]], self.tail[chosen[split:] - self.num_graph]])

    def everything(self) -> Floats:
        return np.concatenate([self.graph_vectors, self.tail[: self.num_rows - self.num_graph]])


class FaissVectorIndex:
    """`FaissVectorIndex(384)` in memory, `FaissVectorIndex.open(folder, 384)` with `save()`."""

    def __init__(
        self,
        dimensions: int,
        *,
        first_graph_rows: int = _FIRST_GRAPH_ROWS,
        tail_rows: int = _TAIL_ROWS,
        exact_rows: int = _EXACT_ROWS,
    ) -> None:
        self._dimensions = dimensions
        self._exact_rows = exact_rows
        self._first_graph_rows = first_graph_rows
        self._tail_rows = tail_rows
        self._state = self._empty()
        self._writing = threading.Lock()
        self._folder: SnapshotFolder | None = None

    @classmethod
    def open(cls, folder: Path, dimensions: int, *, first_graph_rows: int = _FIRST_GRAPH_ROWS) -> FaissVectorIndex:
        """The index as last saved, empty when the folder is new.

        Raises RebuildNeeded when the files are torn or of another kind, Conflict when another process has it open.
        """
        index = cls(dimensions, first_graph_rows=first_graph_rows)
        index._folder = SnapshotFolder(folder, dimensions)
        try:
            snapshot = index._folder.read()
            if snapshot is not None:
                index._restore(snapshot)
        except BaseException:
            index.close()
            raise
        return index

    def save(self) -> None:
        """Make everything so far durable, in one step."""
        assert self._folder is not None, "opened without a folder"
        with self._writing:
            state = self._state
            self._folder.write(
                Snapshot(
                    vectors=state.everything(),
                    ids=state.ids[: state.num_rows],
                    files=state.files[: state.num_rows],
                    alive=state.alive[: state.num_rows],
                    graph=state.graph,
                    num_graph=state.num_graph,
                )
            )

    def close(self) -> None:
        """Let another process open the folder, and go of the memory. Saves nothing."""
        self._state = self._empty()
        if self._folder is not None:
            self._folder.close()

    def __len__(self) -> int:
        state = self._state
        return int(np.count_nonzero(state.alive[: state.num_rows]))

    def add(self, ids: Ints, files: Ints, vectors: Floats) -> None:
        added = unit_vectors(vectors, self._dimensions)
        assert len(added) == len(ids) == len(files), "one vector and one file per id"
        with self._writing:
            self._kill(ids)
            # In pieces, so that the tail stays short enough to be searched quickly while a large file comes in.
            for start in range(0, len(ids), self._tail_rows):
                stop = start + self._tail_rows
                self._append(ids[start:stop], files[start:stop], added[start:stop])
                self._extend_graph_if_due()

    def remove(self, ids: Ints) -> None:
        with self._writing:
            self._kill(ids)
            state = self._state
            dead = state.num_rows - int(np.count_nonzero(state.alive[: state.num_rows]))
            if dead > max(_COMPACT_AT_DEAD * state.num_rows, self._tail_rows):
                self._compact()

    def ids(self, files: Ints | None = None) -> Ints:
        state = self._state
        held = state.alive[: state.num_rows]
        if files is not None:
            held = held & np.isin(state.files[: state.num_rows], files)
        return state.ids[: state.num_rows][held]

    def search(self, vector: Floats, k: int, allowed: AllowedFiles | None = None) -> Ranking:
        state = self._state
        query = unit_vectors(vector, self._dimensions)
        usable = state.alive[: state.num_rows]
        if allowed is not None:
            usable = usable & allowed.allow(state.files[: state.num_rows])
        num_usable = int(np.count_nonzero(usable))
        if num_usable == 0 or k <= 0:
            return Ranking.empty()
        if num_usable <= max(self._exact_rows, k) or state.graph is None:
            rows = np.flatnonzero(usable)
            return _best(state.ids[rows], _compare(state, rows, query), k)
        found, scores = _search_graph(state, query, k, usable)
        newest = np.flatnonzero(usable[state.num_graph :]) + state.num_graph
        if newest.size:
            found = np.concatenate([found, newest])
            scores = np.concatenate([scores, _compare(state, newest, query)])
        return _best(state.ids[found], scores, k)

    def _empty(self) -> _State:
        nothing = np.empty((0, self._dimensions), np.float32)
        return _State(None, nothing, nothing, np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.bool_))

    def _kill(self, ids: Ints) -> None:
        state = self._state
        state.alive[: state.num_rows][np.isin(state.ids[: state.num_rows], ids)] = False

    def _append(self, ids: Ints, files: Ints, vectors: Floats) -> None:
        state, count = self._state, len(ids)
        num_rows = state.num_rows + count
        tail_size = state.num_rows - state.num_graph
        # Rows beyond a state's num_rows are invisible to its readers, so spare room is filled in place.
        tail = _with_room(state.tail, tail_size, count)
        fields = [_with_room(field, state.num_rows, count) for field in (state.ids, state.files, state.alive)]
        tail[tail_size : tail_size + count] = vectors
        for field, values in zip(fields, (ids, files, np.ones(count, np.bool_)), strict=True):
            field[state.num_rows : num_rows] = values
        self._state = replace(state, tail=tail, ids=fields[0], files=fields[1], alive=fields[2], num_rows=num_rows)

    def _extend_graph_if_due(self) -> None:
        state = self._state
        tail_size = state.num_rows - state.num_graph
        if tail_size < (self._tail_rows if state.graph is not None else self._first_graph_rows):
            return
        faiss = load_faiss()
        graph = _new_graph(self._dimensions) if state.graph is None else faiss.clone_index(state.graph)
        graph.add(state.tail[:tail_size])
        self._state = self._with_graph(state, graph)

    def _with_graph(self, state: _State, graph: Any) -> _State:
        tail = np.empty((0, self._dimensions), np.float32)
        num_graph = int(graph.ntotal)
        return replace(state, graph=graph, graph_vectors=_stored_vectors(graph), tail=tail, num_graph=num_graph)

    def _compact(self) -> None:
        state = self._state
        alive = np.flatnonzero(state.alive[: state.num_rows])
        ids, vectors = state.ids[alive], state.rows(alive)
        fresh = replace(
            self._empty(),
            tail=vectors,
            ids=ids,
            files=state.files[alive],
            alive=np.ones(len(ids), np.bool_),
            num_rows=len(ids),
        )
        if len(ids) >= self._first_graph_rows:
            graph = _new_graph(self._dimensions)
            graph.add(vectors)
            fresh = self._with_graph(fresh, graph)
        self._state = fresh

    def _restore(self, snapshot: Snapshot) -> None:
        vectors, ids = snapshot.vectors, snapshot.ids
        state = replace(
            self._empty(),
            tail=vectors,
            ids=ids,
            files=snapshot.files,
            alive=snapshot.alive,
            num_rows=len(ids),
        )
        if snapshot.graph is not None:
            tail = vectors[snapshot.num_graph :]
            state = replace(self._with_graph(state, snapshot.graph), tail=tail)
        self._state = state


def _best(ids: Ints, scores: Floats, k: int) -> Ranking:
    """The `k` highest, best first; equal scores by id, so that a search is deterministic."""
    if scores.size > 4 * k:
        chosen = np.argpartition(-scores, k)[:k]
        ids, scores = ids[chosen], scores[chosen]
    order = np.lexsort((ids, -scores))[:k]
    return Ranking(ids[order], scores[order].astype(np.float32))


def _compare(state: _State, rows: Ints, query: Floats) -> Floats:
    """The cosines of these rows, which must be sorted. In place: gathering the rows first is five times slower."""
    faiss = load_faiss()
    scores = np.empty(len(rows), np.float32)
    split = int(np.searchsorted(rows, state.num_graph))
    for vectors, chosen, out in (
        (state.graph_vectors, rows[:split], scores[:split]),
        (state.tail, rows[split:] - state.num_graph, scores[split:]),
    ):
        if chosen.size:
            pointers = [faiss.swig_ptr(array) for array in (out, query, vectors, chosen)]
            faiss.fvec_inner_products_by_idx(*pointers, vectors.shape[1], 1, len(chosen))
    return scores


def _search_graph(state: _State, query: Floats, k: int, usable: Bools) -> tuple[Ints, Floats]:
    faiss = load_faiss()
    in_graph = usable[: state.num_graph]
    share = np.count_nonzero(in_graph) / state.num_graph
    if share == 0:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    width = min(int(max(_SEARCH_WIDTH, 2 * k) / math.sqrt(share)), max(_MAX_SEARCH_WIDTH, 2 * k))
    parameters = faiss.SearchParametersHNSW(efSearch=width)
    bits = np.packbits(in_graph, bitorder="little")  # must outlive the call: the selector only points at it
    if share < 1:
        parameters.sel = faiss.IDSelectorBitmap(bits)
    # One query has nothing to share among threads, and OpenMP's are costly to wake. The setting is the calling thread's.
    faiss.omp_set_num_threads(1)
    scores, rows = state.graph.search(query, k, params=parameters)
    found = rows[0] >= 0
    return rows[0][found].astype(np.int64), scores[0][found]


def _new_graph(dimensions: int) -> Any:
    faiss = load_faiss()
    graph = faiss.IndexHNSWFlat(dimensions, _LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = _BUILD_WIDTH
    return graph


def _stored_vectors(graph: Any) -> Floats:
    """A view of the vectors inside the graph; valid as long as the graph lives and is not added to."""
    faiss = load_faiss()
    count, dimensions = int(graph.ntotal), int(graph.d)
    storage = faiss.downcast_index(graph.storage)
    return faiss.rev_swig_ptr(storage.get_xb(), count * dimensions).reshape(count, dimensions)


def _with_room(array: Any, used: int, count: int) -> Any:
    """The array itself when `count` more rows fit behind the `used` ones, else a larger copy."""
    if used + count <= len(array):
        return array
    larger = np.empty((max(2 * len(array), used + count, 1024), *array.shape[1:]), array.dtype)
    larger[:used] = array[:used]
    return larger
