"""Files into records, line by line: JSONL, a JSON array, CSV (or TSV), Parquet. What is wrong with a line is said of that line.

Memory is bounded by a row's, whatever the file holds: arrays are cut into their elements before they are parsed, and Parquet
is read in a process of its own (`_parquet_child`). Synchronous, for a thread. Knows nothing about what a record means.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import orjson

from noria.errors import InvalidRequest, MissingExtra

from ._content import MAX_ROW_BYTES

__all__ = ["Container", "Line", "container_of", "read_lines"]

Container = Literal["jsonl", "json", "csv", "parquet"]
_HEAD = 4096
# The default of 128 KiB refuses rows that are long but right.
_CSV_FIELD = MAX_ROW_BYTES
_PIECE = 2**20
# A whole string, or else one mark; a quotation mark alone begins a string that ends in a later piece.
_MARK = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)
_PARQUET_MEMORY_BYTES = 2 * 2**30
_PARQUET_CPU_S = 60
_PARQUET_BYTES_PER_CPU_S = 500_000
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
    for number, element in enumerate(_elements(source), 1):
        try:
            value: Any = orjson.loads(element)
        except orjson.JSONDecodeError as error:
            raise _no_array(f"in row {number}: {error}") from None
        yield _record(number, value)


def _elements(source: IO[bytes]) -> Iterator[bytes]:
    """The elements of a JSON array as they are written, found by counting brackets; whether they are JSON is not looked at."""
    buffer = source.read(_PIECE).removeprefix(b"\xef\xbb\xbf")
    start = at = depth = number = 0
    while True:
        for mark in _MARK.finditer(buffer, at):
            at = mark.end()
            kind = buffer[mark.start() : mark.start() + 1]
            if kind == b'"' and at == mark.start() + 1:
                at = mark.start()
                break
            if kind in b"[{":
                depth += 1
                start = at if depth == 1 else start
            elif kind in b"]}":
                depth -= 1
            if depth == 0 or (depth == 1 and kind == b","):
                element = buffer[start : mark.start()]
                if number or depth or element.strip():  # an array may be empty
                    number += 1
                    _refuse_longer(number, len(element))
                    yield element
                start = at
            if depth == 0:
                if kind != b"]":
                    raise _no_array("it ends with a brace")
                _refuse_more(source, buffer[at:])
                return
        else:
            at = len(buffer)
        _refuse_longer(number + 1, len(buffer) - start)
        # As much again as is kept, so that a long string is not looked through anew for each piece of it.
        more = source.read(max(_PIECE, len(buffer) - start))
        if not more:
            raise _no_array("it has no end")
        buffer, at, start = buffer[start:] + more, at - start, 0


def _refuse_longer(number: int, num_bytes: int) -> None:
    if num_bytes > MAX_ROW_BYTES:
        raise InvalidRequest(f"Row {number} is longer than {MAX_ROW_BYTES:,} bytes.", param="file", code="row_too_large")


def _refuse_more(source: IO[bytes], rest: bytes) -> None:
    while not rest.strip():
        if not (rest := source.read(_PIECE)):
            return
    raise _no_array("something follows its end")


def _no_array(why: str) -> InvalidRequest:
    return InvalidRequest(f"The file is not a JSON array: {why}.", param="file", code="invalid_json")


def _csv(source: IO[bytes], delimiter: str) -> Iterator[Line]:
    csv.field_size_limit(max(_CSV_FIELD, csv.field_size_limit()))  # of the whole process: never lowered
    text = io.TextIOWrapper(source, "utf-8-sig", errors="surrogateescape", newline="")
    lines = _TextLines(text)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        try:
            head = _head(next(reader, []))
        except csv.Error as error:
            raise InvalidRequest(f"The file is not CSV: {error}.", param="file") from None
        while True:
            begun = reader.line_num + 1
            lines.begin_row()
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


class _TextLines(Iterator[str]):
    """The lines of a text, as long as those of one row are not longer than a row may be."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text, self._left = text, MAX_ROW_BYTES

    def begin_row(self) -> None:
        self._left = MAX_ROW_BYTES

    def __next__(self) -> str:
        line = self._text.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise InvalidRequest(f"A row is longer than {MAX_ROW_BYTES:,} characters.", param="file", code="row_too_large")
        if not line:
            raise StopIteration
        return line


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
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtra("Reading Parquet", "parquet")
    with _real_file(source) as file:
        max_cpu_s = _PARQUET_CPU_S + os.fstat(file.fileno()).st_size // _PARQUET_BYTES_PER_CPU_S
        child = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("_parquet_child.py"))]
            + [str(limit) for limit in (MAX_ROW_BYTES, _PARQUET_MEMORY_BYTES, max_cpu_s)],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "ARROW_DEFAULT_MEMORY_POOL": "system"},
        )
        try:
            yield from _answers(cast("IO[bytes]", child.stdout))
        finally:
            child.kill()
            child.communicate()


def _answers(said: IO[bytes]) -> Iterator[Line]:
    number = 0
    while (line := said.readline(MAX_ROW_BYTES + 2)).endswith(b"\n"):
        answer: dict[str, Any] = orjson.loads(line)
        if "end" in answer:
            return
        if "error" in answer:
            raise _no_parquet(answer["error"])
        number += 1
        yield _record(number, answer["row"]) if "row" in answer else Line(number, None, answer["problem"])
    raise _no_parquet("reading it takes too much memory or time")


def _no_parquet(why: str) -> InvalidRequest:
    return InvalidRequest(f"The file is not Parquet that can be read: {why}.", param="file", code="invalid_parquet")


@contextlib.contextmanager
def _real_file(source: IO[bytes]) -> Generator[IO[bytes]]:
    """A file that another process can read from its beginning: the one given, or a copy of what lies elsewhere."""
    try:
        os.lseek(source.fileno(), 0, os.SEEK_SET)
    except (AttributeError, OSError, ValueError):
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            copy.seek(0)
            yield copy
    else:
        yield source
