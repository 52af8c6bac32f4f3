"""Parquet on standard input to JSON lines on standard output, under limits on memory and processor time that it sets on itself.

A file of some kilobytes may hold strings of gigabytes, so the server runs this as a program of its own (`_reading`) and takes
`{"row": …}`, `{"problem": …}` for a row that is too long, and at the end `{"end": true}` or `{"error": …}`. Imports nothing of
Noria's, so that it begins quickly.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import orjson
import pyarrow
import pyarrow.parquet as parquet

_BATCH_ROWS, _BATCH_BYTES = 256, 16 * 1024 * 1024
_MAX_GROUP_BYTES = 2**31


class _Refused(Exception):
    """The file, or a row of it, with the reason."""


def main() -> None:
    max_row_bytes, max_memory_bytes, max_cpu_s = map(int, sys.argv[1:])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not garble the answers
    _confine(max_memory_bytes, max_cpu_s)
    with contextlib.suppress(BrokenPipeError):
        for answer in _answers(max_row_bytes):
            answers.write(answer + b"\n")
        answers.flush()
    os._exit(0)  # whoever has stopped listening is not told again at exit


def _confine(max_memory_bytes: int, max_cpu_s: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + max_memory_bytes
    for what, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, max_cpu_s),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(what, (value, value))


def _answers(max_row_bytes: int) -> Iterator[bytes]:
    try:
        with open(0, "rb", closefd=False) as source:
            for record in _records(source):
                yield _answer(record, max_row_bytes)
    except MemoryError:
        yield orjson.dumps({"error": "reading it needs too much memory"})
    except _Refused as error:
        yield orjson.dumps({"error": str(error)})
    except Exception as error:  # whatever a hostile file brings about is the file's fault
        yield orjson.dumps({"error": f"{type(error).__name__}: {str(error)[:500]}"})
    else:
        yield orjson.dumps({"end": True})


def _answer(record: dict[str, Any], max_row_bytes: int) -> bytes:
    try:
        plain = {name: _plain(value, name) for name, value in record.items()}
    except _Refused as error:
        return orjson.dumps({"problem": str(error)})
    row = orjson.dumps({"row": {name: value for name, value in plain.items() if value is not None}})
    if len(row) > max_row_bytes:
        return orjson.dumps({"problem": f"The row is longer than {max_row_bytes:,} bytes."})
    return row


def _records(source: Any) -> Iterator[dict[str, Any]]:
    file = parquet.ParquetFile(source)
    for group in range(file.num_row_groups):
        num_rows = _batch_rows(file.metadata.row_group(group), group)
        for batch in file.iter_batches(num_rows, row_groups=[group], use_threads=False):
            # Row by row: a text that all rows share is repeated in each.
            for index in range(batch.num_rows):
                yield batch.slice(index, 1).to_pylist()[0]


def _batch_rows(group: Any, index: int) -> int:
    """How many rows of a group are taken at once, by its size before compression."""
    size: int = group.total_byte_size
    if size > _MAX_GROUP_BYTES:
        raise _Refused(f"row group {index} has {size:,} bytes, more than {_MAX_GROUP_BYTES:,}; write it with smaller row groups")
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * group.num_rows // max(1, size)))


def _plain(value: Any, column: str) -> Any:
    """Only what JSON knows, without the nulls that a column of structs has where a record has nothing.

    A number that is none counts as a null: tables mark with it what is missing.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        raise _Refused(f"The column {column!r} holds bytes, which a row cannot.")
    if isinstance(value, list):
        parts = cast("list[Any]", value)
        if parts and all(isinstance(part, tuple) for part in parts):  # a map
            value = {str(key): part for key, part in parts}
        else:
            return [_plain(part, column) for part in parts]
    if isinstance(value, dict):
        plain = {key: _plain(part, column) for key, part in cast("dict[str, Any]", value).items()}
        return {key: part for key, part in plain.items() if part is not None}
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


if __name__ == "__main__":
    pyarrow.set_cpu_count(1)
    main()
