"""The contract of text indexes: stemmed English, segmented Chinese, filters, and what a crash leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from noria.errors import Conflict, Unavailable
from noria.knowledge.index import AllowedFiles, RebuildNeeded, TantivyTextIndex, matched_words, query_terms

TEXTS = [
    "The river turns the wheels of the mill.",
    "水车利用河水的力量转动，把水提到高处灌溉田地。",
    "Norias were built in Hama, Syria. Café culture is younger.",
    "向量数据库用于检索增强生成，支持中文分词。",
    "Error code E-4711: the pump_motor did not start.",
    "हिन्दी भारत की एक भाषा है।",
    "ประเทศไทยมีแม่น้ำหลายสาย",
    "東京のラーメン屋さん",
    "Send the re\u0301sume\u0301 today.",
]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[TantivyTextIndex]:
    index = TantivyTextIndex(tmp_path)
    index.add(np.arange(len(TEXTS)), np.arange(len(TEXTS)), TEXTS)
    yield index
    index.close()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("wheel", 0),
        ("What turned the WHEEL?", 0),
        ("河水灌溉", 1),
        ("noria of syria", 2),
        ("cafe", 2),
        ("中文检索", 3),
        ("4711", 4),
        ("RAG 检索 增强", 3),
        ("हिन्दी", 5),
        ("की भाषा", 5),
        ("แม่น้ำ", 6),
        ("ラーメン", 7),
        ("résumé", 8),
        ("re\u0301sume\u0301", 8),
    ],
)
def test_the_best_match_comes_first(index: TantivyTextIndex, query: str, expected: int) -> None:
    assert index.search(query, 5).ids.tolist()[0] == expected


@pytest.mark.parametrize("query", ["", "???", "zebra", "AND OR (", 'title:"x" *'])
def test_odd_queries_find_nothing_and_break_nothing(index: TantivyTextIndex, query: str) -> None:
    assert index.search(query, 5).ids.tolist() == []


def test_filters(index: TantivyTextIndex) -> None:
    for mask in ([0, 1, 0, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]):
        allowed = AllowedFiles(np.array(mask, np.bool_))
        found = index.search("river wheels 河水 noria motor 检索", 5, allowed).ids.tolist()
        assert sorted(found) == [number for number, ok in enumerate(mask) if ok]
    assert index.search("wheel", 5, AllowedFiles.only([])).ids.tolist() == []


@pytest.mark.parametrize("one_in", [2, 5, 50])
def test_a_filter_gives_what_filtering_the_whole_ranking_gives(tmp_path: Path, one_in: int) -> None:
    random = np.random.default_rng(0)
    words = [f"w{number}" for number in range(200)]
    texts = [" ".join(random.choice(words, 12)) for _ in range(2000)]
    files = np.arange(2000) // 4
    index = TantivyTextIndex(tmp_path)
    for start in range(0, 2000, 500):
        index.add(np.arange(start, start + 500), files[start : start + 500], texts[start : start + 500])
    allowed = AllowedFiles(np.arange(500) % one_in == 0)
    for number in range(20):
        query = f"w{number} w{number + 50} w{number + 100}"
        everything = index.search(query, 2000)
        kept = allowed.allow(files[everything.ids])
        assert index.search(query, 10, allowed).scores == pytest.approx(everything.scores[kept][:10])
    index.close()


def test_add_replaces_and_remove_is_immediate(index: TantivyTextIndex) -> None:
    index.add(np.array([0]), np.array([0]), ["Something else entirely"])
    assert index.search("wheel", 5).ids.tolist() == []
    index.remove(np.array([1, 77]))
    assert index.search("河水", 5).ids.tolist() == []
    assert len(index) == len(TEXTS) - 1


def test_opened_again(tmp_path: Path) -> None:
    index = TantivyTextIndex(tmp_path)
    index.add(np.arange(len(TEXTS)), np.arange(len(TEXTS)), TEXTS)
    other = TantivyTextIndex(tmp_path)
    with pytest.raises(Conflict):
        other.remove(np.arange(1))
    index.close()
    again = TantivyTextIndex(tmp_path)
    assert again.search("wheel", 1).ids.tolist() == [0]
    again.close()


def test_what_an_index_holds(index: TantivyTextIndex) -> None:
    index.remove(np.array([1, 77]))
    assert sorted(index.ids()) == [0, 2, 3, 4, 5, 6, 7, 8]
    assert sorted(index.ids(np.array([1, 2, 9]))) == [2]


def test_a_writer_costs_threads_only_while_it_writes(tmp_path: Path) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    index = TantivyTextIndex(tmp_path)
    assert index.search("wheel", 5).ids.tolist() == []
    reading = threads()
    for number in range(3):
        index.add(np.array([number]), np.array([number]), ["a wheel"])
        assert index.search("wheel", 5).ids.tolist() == list(range(number + 1))
        assert threads() > reading
        index.rest()
        deadline = time.monotonic() + 5  # they end soon after
        while threads() > reading and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threads() <= reading
        assert index.search("wheel", 5).ids.tolist() == list(range(number + 1))
    index.close()


def test_a_change_that_fails_is_not_half_there(index: TantivyTextIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_text: str) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr("noria.knowledge.index._tantivy.segment", full)
    with pytest.raises(Unavailable, match="No space left"):
        index.add(np.arange(len(TEXTS)), np.arange(len(TEXTS)), TEXTS)
    index.remove(np.array([4]))
    assert sorted(index.ids()) == [0, 1, 2, 3, 5, 6, 7, 8]


def test_damage_is_told(tmp_path: Path) -> None:
    index = TantivyTextIndex(tmp_path)
    index.add(np.arange(len(TEXTS)), np.arange(len(TEXTS)), TEXTS)
    index.close()
    (tmp_path / "meta.json").write_text("{")
    with pytest.raises(RebuildNeeded):
        TantivyTextIndex(tmp_path)


def test_a_missing_segment_is_told(tmp_path: Path) -> None:
    index = TantivyTextIndex(tmp_path)
    index.add(np.arange(len(TEXTS)), np.arange(len(TEXTS)), TEXTS)
    index.close()
    for path in tmp_path.glob("*.term"):
        path.unlink()
    with pytest.raises(RebuildNeeded):
        TantivyTextIndex(tmp_path)


_ADD_FOR_EVER = """
import sys, numpy as np
from pathlib import Path
from noria.knowledge.index import TantivyTextIndex
index = TantivyTextIndex(Path(sys.argv[1]))
for number in range(10**9):
    ids = np.arange(number * 10, number * 10 + 10)
    index.add(ids, ids, [f"wheel batch{number}"] * 10)
    print(number, flush=True)
"""


def test_kill_9_loses_nothing_that_was_added(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _ADD_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = max(int(process.stdout.readline()) for _ in range(6))
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = max([last, *(int(line) for line in process.stdout.read().split())])
    index = TantivyTextIndex(tmp_path)
    assert len(index) in ((last + 1) * 10, (last + 2) * 10)
    assert len(index.search(f"batch{last}", 20).ids) == 10
    index.close()


def test_readers_while_one_writes(tmp_path: Path) -> None:
    index = TantivyTextIndex(tmp_path)
    index.add(np.arange(len(TEXTS)), np.arange(len(TEXTS)), TEXTS)
    stop = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                assert index.search("wheel", 3).ids.size
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(10):
        ids = np.arange(100 * number, 100 * number + 100) + 10
        index.add(ids, ids, [f"wheel {identifier}" for identifier in ids])
        index.remove(ids[:50])
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures
    index.close()


def test_terms() -> None:
    assert query_terms("How do the wheels turn?") == {"wheel": "wheels", "turn": "turn"}
    assert list(query_terms("什么是水车的力量")) == ["水车", "力量"]
    assert matched_words("turning wheels 水车 zebra", "The wheel is turned by 水车。") == ("turning", "wheels", "水车")
