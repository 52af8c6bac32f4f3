"""Files into records, line by line: JSONL, a JSON array, CSV (or TSV), Parquet. What is wrong with a line is said of that line.

Synchronous, for a thread. Knows nothing about what a record means.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal, cast

import orjson

from noria.errors import InvalidRequest, MissingExtra

from ._content import MAX_ROW_BYTES

__all__ = ["Container", "Line", "container_of", "read_lines"]

Container = Literal["jsonl", "json", "csv", "parquet"]
_HEAD = 4096
# The default of 128 KiB refuses rows that are long but right.
_CSV_FIELD = MAX_ROW_BYTES


@dataclass(frozen=True, slots=True)
class Line:
    """A record with its line (in Parquet and JSON arrays: its place), or the reason why there is none. Lines count from 1."""

    number: int
    record: dict[str, Any] | None
    problem: str | None = None


def container_of(head: bytes, filename: str = "") -> Container:
    """How a file is packed, by its first bytes; its name decides only between CSV and the rest."""
    if head.startswith(b"PAR1"):
        return "parquet"
    begun = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if begun.startswith(b"["):
        return "json"
    if begun.startswith(b"{"):
        return "jsonl"
    return "csv" if not filename.lower().endswith((".jsonl", ".ndjson", ".json")) else "jsonl"


def read_lines(source: IO[bytes], filename: str = "", container: Container | None = None) -> Iterator[Line]:
    """The records of a seekable file. Raises InvalidRequest where the file as a whole cannot be read."""
    head = source.read(_HEAD)
    source.seek(0)
    if not head.strip():
        raise InvalidRequest("The file is empty.", param="file", code="empty_file")
    match container or container_of(head, filename):
        case "jsonl":
            yield from _jsonl(source)
        case "json":
            yield from _array(source)
        case "csv":
            yield from _csv(source, "\t" if filename.lower().endswith(".tsv") else ",")
        case "parquet":
            yield from _parquet(source)


def _jsonl(source: IO[bytes]) -> Iterator[Line]:
    number = 0
    while line := source.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            while line and not line.endswith(b"\n"):
                line = source.readline(MAX_ROW_BYTES)
            yield Line(number, None, f"The line is longer than {MAX_ROW_BYTES:,} bytes.")
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield _parsed(number, line)


def _parsed(number: int, line: bytes) -> Line:
    try:
        value: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode()
        except UnicodeDecodeError as bad:
            return Line(number, None, f"Not valid UTF-8 at byte {bad.start + 1}.")
        return Line(number, None, f"Not valid JSON: {error}.")
    return _record(number, value)


def _record(number: int, value: Any) -> Line:
    if not isinstance(value, dict):
        return Line(number, None, f"Not an object but {type(value).__name__}.")
    return Line(number, cast("dict[str, Any]", value))


def _array(source: IO[bytes]) -> Iterator[Line]:
    raw = source.read().removeprefix(b"\xef\xbb\xbf")
    try:
        values: Any = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The file is not a JSON array: {error}.", param="file", code="invalid_json") from None
    for number, value in enumerate(cast("list[Any]", values), 1):
        yield _record(number, value)


def _csv(source: IO[bytes], delimiter: str) -> Iterator[Line]:
    csv.field_size_limit(max(_CSV_FIELD, csv.field_size_limit()))  # of the whole process: never lowered
    text = io.TextIOWrapper(source, "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, delimiter=delimiter)
    try:
        try:
            head = [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise InvalidRequest(f"The file is not CSV: {error}.", param="file") from None
        while True:
            begun = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Line(begun, None, f"Not valid CSV: {error}.")
                continue
            if cells:
                yield _row(begun, head, cells)
    finally:
        text.detach()  # closing the wrapper would close the caller's file


def _row(number: int, head: list[str], cells: list[str]) -> Line:
    if len(cells) != len(head):
        return Line(number, None, f"{len(cells)} cells where the head has {len(head)}.")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return Line(number, None, "Not valid UTF-8.")
    return Line(number, dict(zip(head, cells, strict=True)))


def _parquet(source: IO[bytes]) -> Iterator[Line]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtra("Reading Parquet", "parquet") from None
    try:
        file = parquet.ParquetFile(source)
        number = 0
        for batch in file.iter_batches(batch_size=256):
            for record in batch.to_pylist():
                number += 1
                yield Line(number, _plain(record))
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidRequest(f"The file is not Parquet that can be read: {error}.", param="file") from None


def _plain(value: Any) -> Any:
    """Without the nulls that a column of structs has where a record has nothing, and with only what JSON knows."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in cast("dict[str, Any]", value).items() if part is not None}
    if isinstance(value, list):
        return [_plain(part) for part in cast("list[Any]", value)]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
