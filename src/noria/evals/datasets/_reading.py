"""Files into records, line by line: JSONL, a JSON array, CSV (or TSV), Parquet. What is wrong with a line is said of that line.

Synchronous, for a thread. Knows nothing about what a record means.
"""

from __future__ import annotations

import csv
import io
import math
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
_BATCH_ROWS, _BATCH_BYTES = 256, 16 * 1024 * 1024
_MAX_GROUP_BYTES = 2**31
_OPEN_QUOTE = "Not valid CSV: a quote opened in this line is closed nowhere, so that all that follows belongs to it."


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
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        try:
            head = _head(next(reader, []))
        except csv.Error as error:
            raise InvalidRequest(f"The file is not CSV: {error}.", param="file") from None
        while True:
            begun = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                open_ = str(error) == "unexpected end of data"
                yield Line(begun, None, _OPEN_QUOTE if open_ else f"Not valid CSV: {error}.")
                continue
            if cells:
                yield _row(begun, head, cells)
    finally:
        text.detach()  # closing the wrapper would close the caller's file


def _head(cells: list[str]) -> list[str]:
    """The columns' names. Only the nameless may be several, which spreadsheets leave at the end of lines."""
    names = [name.strip() for name in cells]
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            "The file's first line is not valid UTF-8.", param="file", code="invalid_encoding", hint="Save the table as UTF-8."
        ) from None
    seen: set[str] = set()
    for name in filter(None, names):
        if name in seen:
            raise InvalidRequest(f"Two columns are named {name!r}.", param="file", hint="Rename one of them.")
        seen.add(name)
    return names


def _row(number: int, head: list[str], cells: list[str]) -> Line:
    if len(cells) != len(head):
        return Line(number, None, f"{len(cells)} cells where the head has {len(head)}.")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return Line(number, None, "Not valid UTF-8.")
    filled = [(name, cell) for name, cell in zip(head, cells, strict=True) if name or cell]
    if sum(not name for name, _ in filled) > 1:
        return Line(number, None, "Several cells stand in columns without a name.")
    return Line(number, dict(filled))


def _parquet(source: IO[bytes]) -> Iterator[Line]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtra("Reading Parquet", "parquet") from None
    try:
        file = parquet.ParquetFile(source)
        number = 0
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(_batch_rows(file.metadata.row_group(group), group), row_groups=[group]):
                for record in batch.to_pylist():
                    number += 1
                    yield _plain_line(number, record)
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidRequest(f"The file is not Parquet that can be read: {error}.", param="file") from None


def _batch_rows(group: Any, index: int) -> int:
    """How many rows of a group are taken at once, by its size before compression."""
    size: int = group.total_byte_size
    if size > _MAX_GROUP_BYTES:
        raise InvalidRequest(
            f"Row group {index} of the file has {size:,} bytes, more than {_MAX_GROUP_BYTES:,}.",
            param="file",
            hint="Write it with smaller row groups.",
        )
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * group.num_rows // max(1, size)))


def _plain_line(number: int, record: dict[str, Any]) -> Line:
    try:
        plain = {name: _plain(value, name) for name, value in record.items()}
    except InvalidRequest as error:
        return Line(number, None, str(error))
    return Line(number, {name: value for name, value in plain.items() if value is not None})


def _plain(value: Any, column: str) -> Any:
    """Only what JSON knows, without the nulls that a column of structs has where a record has nothing.

    A number that is none counts as a null: tables mark with it what is missing.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        raise InvalidRequest(f"The column {column!r} holds bytes, which a row cannot.", param=column)
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
