"""Whatever an upload holds, reading it takes the memory and the time of its rows, not of what it could be blown up to."""

from __future__ import annotations

import io
import time
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import InvalidRequest
from noria.evals import _sources
from noria.evals.datasets import (
    _reading,  # pyright: ignore[reportPrivateUsage]
    read_lines,
)

VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(st.sampled_from('a"\\[]{},: 水\n'), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


def read(data: bytes, filename: str = "rows") -> list[Any]:
    return [line.record for line in read_lines(io.BytesIO(data), filename)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=3), VALUE, max_size=3), max_size=5), st.booleans(), st.integers(1, 9))
def test_an_array_in_pieces_is_read_as_the_whole(rows: list[Any], indent: bool, piece: int) -> None:
    data = b"\xef\xbb\xbf " + orjson.dumps(rows, option=orjson.OPT_INDENT_2 if indent else None) + b"\n "
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_reading, "_PIECE", piece)
        assert read(data) == rows


@pytest.mark.parametrize("data", ['[{"a":1}', '[{"a":1}]]', "[{},]", '[{"a":1},{b}]', '[{"a":"x]', "[{]}", "[}", '[{"a":1} {}]'])
def test_what_is_no_array_is_refused(data: str) -> None:
    with pytest.raises(InvalidRequest, match="not a JSON array"):
        read(data.encode())


def test_an_array_of_nothing_takes_the_memory_of_its_bytes() -> None:
    data = b"[" + b"[]," * 20_000 + b"[]]"
    tracemalloc.start()
    num_lines = sum(1 for _ in read_lines(io.BytesIO(data)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_lines == 20_001
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b'[{"a":"' + b"x" * 5000 + b'"}]'),
        ("a.csv", b"a,b\n1," + b"x" * 5000 + b"\n"),
        ("a.csv", b"a,b\n1,2\n" + b'"\n",' * 3000),
        ("a.csv", b"a," * 3000),
    ],
)
def test_a_row_without_end_is_refused(name: str, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reading, "MAX_ROW_BYTES", 4000)
    with pytest.raises(InvalidRequest, match=r"longer than 4,000"):
        read(data, name)


def parquet_file(path: Path, text: str, num_rows: int) -> Path:
    shared = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * num_rows, pyarrow.int32()), pyarrow.array([text]))
    parquet.write_table(pyarrow.table({"prompt": shared, "completion": shared}), path, compression="zstd", store_schema=False)
    return path


def test_a_small_parquet_of_huge_strings_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reading, "_PARQUET_MEMORY_BYTES", 100 * 2**20, raising=False)
    path = parquet_file(tmp_path / "bomb.parquet", "x" * 2_000_000, 100)
    assert path.stat().st_size < 20_000
    with path.open("rb") as source, pytest.raises(InvalidRequest, match="too much memory"):
        list(read_lines(source))


def test_a_long_row_of_a_parquet_is_named_and_the_rest_goes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reading, "MAX_ROW_BYTES", 1000)
    table = pyarrow.table({"prompt": ["a", "x" * 2000, "c"], "n": [1, 2, None]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    with (tmp_path / "rows.parquet").open("rb") as source:
        source.read(10)
        source.seek(0)
        lines = list(read_lines(source))
    assert [line.record for line in lines] == [{"prompt": "a", "n": 1}, None, {"prompt": "c"}]
    assert lines[1].problem == "The row is longer than 1,000 bytes."


def test_a_parquet_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not Parquet"):
        read(b"PAR1 and nothing more")


@given(st.lists(st.binary(max_size=8).map(lambda data: data.replace(b"\r", b"\n")), max_size=8))
def test_lines_of_pieces_are_those_of_the_whole(pieces: list[bytes]) -> None:
    whole = b"".join(pieces).split(b"\n")
    assert list(_sources.whole_lines(pieces, 1000)) == (whole if whole[-1] else whole[:-1])


def test_a_line_without_end_is_cut_and_takes_linear_time() -> None:
    begun = time.process_time()
    (line,) = _sources.whole_lines((b"x" * 100 for _ in range(100_000)), 2_000_000)
    assert time.process_time() - begun < 0.5
    assert len(line) == 2_000_001
    assert list(_sources.whole_lines([b"ab\nxxxxxx\ncd\n"], 3)) == [b"ab", b"xxxx"]
