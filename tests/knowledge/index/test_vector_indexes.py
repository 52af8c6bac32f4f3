"""The contract that every vector index keeps, and what the embedded one survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from noria.errors import Conflict, InvalidRequest
from noria.knowledge.index import (
    AllowedFiles,
    FaissVectorIndex,
    Floats,
    Ints,
    PgVectorIndex,
    RebuildNeeded,
    VectorIndex,
)

from .exact import ExactVectorIndex

DIMENSIONS = 32


def make_vectors(count: int, seed: int = 0) -> Floats:
    """Clustered and leaning to one side, as embeddings are."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(40, DIMENSIONS))
    rows = centres[random.integers(0, 40, count)] + random.normal(size=(count, DIMENSIONS)) * 0.6 + 1.0
    return rows.astype(np.float32)


def numbered(count: int) -> tuple[Ints, Ints]:
    """Ids, and files of ten passages each."""
    ids = np.arange(count, dtype=np.int64)
    return ids, ids // 10


@pytest.fixture(params=["exact", "faiss", pytest.param("pgvector", marks=pytest.mark.postgres)])
def index(request: pytest.FixtureRequest) -> Iterator[VectorIndex]:
    if request.param == "exact":
        yield ExactVectorIndex(DIMENSIONS)
    elif request.param == "pgvector":
        made = PgVectorIndex(request.getfixturevalue("pgvector_dsn"), name="contract", dimensions=DIMENSIONS)
        yield made
        made.drop()
        made.close()
    else:
        yield FaissVectorIndex(DIMENSIONS, first_graph_rows=300, tail_rows=200, exact_rows=100)


def test_the_nearest_come_first(index: VectorIndex) -> None:
    ids, files = numbered(50)
    vectors = make_vectors(50)
    index.add(ids, files, vectors)
    ranking = index.search(vectors[7] * 3, 5)
    assert ranking.ids[0] == 7
    assert ranking.scores[0] == pytest.approx(1.0, abs=1e-5)
    assert list(ranking.scores) == sorted(ranking.scores, reverse=True)
    assert len(ranking.ids) == 5


@pytest.mark.parametrize("one_in", [1, 2, 10, 100])
def test_recall_with_filters(index: VectorIndex, one_in: int) -> None:
    count = 3000
    ids, files = numbered(count)
    vectors = make_vectors(count)
    for start in range(0, count, 350):
        index.add(ids[start : start + 350], files[start : start + 350], vectors[start : start + 350])
    index.remove(ids[::3])
    allowed = AllowedFiles(np.arange(count // 10) % one_in == 0)
    reference = ExactVectorIndex(DIMENSIONS)
    reference.add(ids, files, vectors)
    reference.remove(ids[::3])
    found = expected = 0
    for query in make_vectors(60, seed=1):
        want = set(reference.search(query, 10, allowed).ids.tolist())
        got = index.search(query, 10, allowed).ids.tolist()
        assert all((number // 10) % one_in == 0 and number % 3 for number in got)
        found += len(want & set(got))
        expected += len(want)
    assert found / expected >= 0.97


def test_add_replaces_and_remove_is_immediate(index: VectorIndex) -> None:
    ids, files = numbered(20)
    vectors = make_vectors(20)
    index.add(ids, files, vectors)
    index.add(ids[:1], files[:1], -vectors[:1])
    assert index.search(-vectors[0], 1).ids.tolist() == [0]
    assert index.search(vectors[0], 20).ids.tolist()[-1] == 0
    index.remove(np.array([0, 999]))
    assert 0 not in index.search(-vectors[0], 20).ids.tolist()
    assert len(index.search(vectors[0], 20).ids) == 19


def test_what_an_index_holds(index: VectorIndex) -> None:
    assert index.ids().tolist() == []
    ids, files = numbered(900)
    vectors = make_vectors(900)
    for start in range(0, 900, 300):
        index.add(ids[start : start + 300], files[start : start + 300], vectors[start : start + 300])
    index.remove(ids[::2])
    assert sorted(index.ids()) == ids[1::2].tolist()
    assert sorted(index.ids(np.array([3, 88, 500]))) == [31, 33, 35, 37, 39, 881, 883, 885, 887, 889]
    assert index.ids(np.array([500])).tolist() == []


def test_filters_may_be_empty_or_short(index: VectorIndex) -> None:
    ids, files = numbered(30)
    index.add(ids, files, make_vectors(30))
    query = make_vectors(1)[0]
    assert index.search(query, 5, AllowedFiles(np.zeros(3, np.bool_))).ids.tolist() == []
    assert index.search(query, 5, AllowedFiles.only([])).ids.tolist() == []
    assert set(index.search(query, 50, AllowedFiles.only([1])).ids.tolist()) == set(range(10, 20))


def test_an_empty_index_finds_nothing(index: VectorIndex) -> None:
    assert index.search(make_vectors(1)[0], 5).ids.tolist() == []


@pytest.mark.parametrize("vector", [np.zeros(DIMENSIONS), np.full(DIMENSIONS, np.nan), np.ones(DIMENSIONS + 1)])
def test_unusable_vectors_are_refused(index: VectorIndex, vector: Floats) -> None:
    with pytest.raises(InvalidRequest):
        index.add(np.array([1]), np.array([0]), vector.astype(np.float32)[None])
    with pytest.raises(InvalidRequest):
        index.search(vector.astype(np.float32), 1)


def test_readers_and_one_writer_at_the_same_time(index: VectorIndex) -> None:
    count = 2000
    ids, files = numbered(count)
    vectors = make_vectors(count)
    removed: set[int] = set()
    stop = threading.Event()
    failures: list[BaseException] = []

    def read(seed: int) -> None:
        queries = make_vectors(50, seed)
        try:
            while not stop.is_set():
                for query in queries:
                    gone = frozenset(removed)
                    ranking = index.search(query, 10)
                    assert not gone & set(ranking.ids.tolist())
                    assert len(set(ranking.ids.tolist())) == len(ranking.ids)
                    assert np.all(ranking.scores <= 1.0001)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    for start in range(0, count, 100):
        index.add(ids[start : start + 100], files[start : start + 100], vectors[start : start + 100])
        if start:
            index.remove(ids[start - 50 : start])
            removed.update(range(start - 50, start))
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures


def test_many_removals_compact_the_graph() -> None:
    index = FaissVectorIndex(DIMENSIONS, first_graph_rows=300, tail_rows=200, exact_rows=10)
    ids, files = numbered(2000)
    vectors = make_vectors(2000)
    index.add(ids, files, vectors)
    index.remove(ids[:1200])
    assert len(index) == 800
    assert index._state.num_rows == 800
    assert index.search(vectors[1500], 1).ids.tolist() == [1500]


@pytest.mark.postgres
@pytest.mark.parametrize("one_in", [1, 3])
def test_pgvector_by_its_graph(pgvector_dsn: str, monkeypatch: pytest.MonkeyPatch, one_in: int) -> None:
    monkeypatch.setattr("noria.knowledge.index._pgvector._EXACT_ROWS", 10)
    index = PgVectorIndex(pgvector_dsn, name="graph", dimensions=DIMENSIONS)
    ids, files = numbered(2000)
    vectors = make_vectors(2000)
    index.add(ids, files, vectors)
    with index._connection() as connection:
        connection.execute("ANALYZE noria_vector_graph")
    reference = ExactVectorIndex(DIMENSIONS)
    reference.add(ids, files, vectors)
    allowed = AllowedFiles(np.arange(200) % one_in == 0)
    queries = make_vectors(40, seed=3)
    found = sum(len(set(index.search(q, 10, allowed).ids) & set(reference.search(q, 10, allowed).ids)) for q in queries)
    assert found >= 0.97 * 10 * len(queries)
    index.drop()
    index.close()


@pytest.mark.postgres
@pytest.mark.parametrize("dimensions", [2000, 2001, 4001])
def test_pgvector_takes_long_vectors(pgvector_dsn: str, dimensions: int) -> None:
    index = PgVectorIndex(pgvector_dsn, name="long", dimensions=dimensions)
    vectors = np.random.default_rng(0).normal(size=(40, dimensions)).astype(np.float32)
    index.add(np.arange(40), np.arange(40) // 10, vectors)
    ranking = index.search(vectors[7], 5)
    assert ranking.ids[0] == 7
    assert ranking.scores[0] == pytest.approx(1.0, abs=1e-5)
    assert index.search(vectors[7], 40, AllowedFiles.only([1])).ids.size == 10
    index.drop()
    index.close()


@pytest.mark.postgres
def test_pgvector_drops_by_name(pgvector_dsn: str) -> None:
    PgVectorIndex(pgvector_dsn, name="forgotten", dimensions=DIMENSIONS).close()
    assert "forgotten" in PgVectorIndex.names(pgvector_dsn)
    PgVectorIndex.drop_named(pgvector_dsn, "forgotten")
    assert "forgotten" not in PgVectorIndex.names(pgvector_dsn)
    PgVectorIndex.drop_named(pgvector_dsn, "forgotten")


@pytest.mark.postgres
def test_pgvector_refuses_other_dimensions_and_names(pgvector_dsn: str) -> None:
    index = PgVectorIndex(pgvector_dsn, name="sized", dimensions=DIMENSIONS)
    with pytest.raises(InvalidRequest, match="dimensions"):
        PgVectorIndex(pgvector_dsn, name="sized", dimensions=DIMENSIONS + 1)
    with pytest.raises(InvalidRequest, match="name"):
        PgVectorIndex(pgvector_dsn, name='x"; DROP', dimensions=DIMENSIONS)
    index.drop()
    index.close()


# --- on disk ----------------------------------------------------------------------------------------------------------


def filled(folder: Path, count: int = 600) -> FaissVectorIndex:
    index = FaissVectorIndex.open(folder, DIMENSIONS, first_graph_rows=300)
    ids, files = numbered(count)
    index.add(ids, files, make_vectors(count))
    return index


def answers(index: FaissVectorIndex) -> list[list[int]]:
    return [index.search(query, 10, AllowedFiles(np.arange(60) % 2 == 0)).ids.tolist() for query in make_vectors(20, seed=5)]


def test_saved_and_opened_again(tmp_path: Path) -> None:
    index = filled(tmp_path)
    index.save()
    index.remove(np.arange(5))
    index.add(np.array([9000]), np.array([59]), make_vectors(1, seed=9))
    before = answers(index)
    index.save()
    index.close()
    again = FaissVectorIndex.open(tmp_path, DIMENSIONS, first_graph_rows=300)
    assert len(again) == 596
    assert answers(again) == before
    again.add(np.array([9001]), np.array([59]), make_vectors(1, seed=10))
    assert 9001 in again.search(make_vectors(1, seed=10)[0], 1).ids
    again.close()


def test_what_was_not_saved_is_not_there(tmp_path: Path) -> None:
    index = filled(tmp_path)
    index.save()
    index.add(np.array([9000]), np.array([59]), make_vectors(1, seed=9))
    index.close()
    assert len(FaissVectorIndex.open(tmp_path, DIMENSIONS)) == 600


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncate, _flip, Path.unlink])
@pytest.mark.parametrize("kind", ["vectors", "ids", "files", "alive", "graph", "manifest"])
def test_torn_files_are_told(tmp_path: Path, kind: str, damage: Callable[[Path], None]) -> None:
    index = filled(tmp_path)
    index.save()
    index.close()
    damage(next(tmp_path.glob(f"{kind}*")))
    with pytest.raises(RebuildNeeded, match="rebuilt"):
        FaissVectorIndex.open(tmp_path, DIMENSIONS)


def test_other_dimensions_need_a_rebuild(tmp_path: Path) -> None:
    index = filled(tmp_path)
    index.save()
    index.close()
    with pytest.raises(RebuildNeeded):
        FaissVectorIndex.open(tmp_path, DIMENSIONS + 1)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    index = filled(tmp_path)
    with pytest.raises(Conflict):
        FaissVectorIndex.open(tmp_path, DIMENSIONS)
    index.close()


_SAVE_FOR_EVER = """
import sys, numpy as np
from pathlib import Path
from noria.knowledge.index import FaissVectorIndex
index = FaissVectorIndex.open(Path(sys.argv[1]), 32, first_graph_rows=300)
random = np.random.default_rng(0)
number = 0
while True:
    ids = np.arange(number * 50, number * 50 + 50)
    index.add(ids, ids // 10, random.normal(size=(50, 32)).astype(np.float32))
    number += 1
    index.save()
    print(number, flush=True)
"""


def test_kill_9_while_saving_leaves_the_last_state_or_the_next(tmp_path: Path) -> None:
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        process = subprocess.Popen([sys.executable, "-c", _SAVE_FOR_EVER, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(4 + attempt):
            last = int(process.stdout.readline())
        time.sleep(0.003 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        last = max([last, *(int(line) for line in process.stdout.read().split())])
        index = FaissVectorIndex.open(folder, DIMENSIONS)
        assert len(index) in (50 * last, 50 * (last + 1))
        index.close()
