"""Files into rows, whichever format they are in. What is wrong with a line is said of that line; the rest goes in.

With `strict` nothing goes in where anything is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import IO, Any

from noria.errors import InvalidRequest, NoriaError
from noria.store import Blobs, File

from ._content import NewRow, Source
from ._progress import Report, Told
from ._reading import Line, container_of, read_lines
from ._records import Format, RecordFormat, read_record
from ._versions import Staging, Versions

__all__ = ["Importer", "read_rows_of"]

_BATCH = 200


class Importer:
    def __init__(self, blobs: Blobs, versions: Versions) -> None:
        self._blobs, self._versions = blobs, versions

    async def stage(
        self, staging: Staging, file: File, format: Format | None, report: Report, told: Told, *, strict: bool = False
    ) -> None:
        """Stages a file's rows. Raises InvalidRequest where it cannot be read at all, or with `strict` where a line cannot."""
        source = await asyncio.to_thread(self._blobs.open, file.sha256)
        try:
            lines = read_rows_of(source, file.filename, format, Source(file_id=file.id))
            while batch := await asyncio.to_thread(_next, lines):
                rows: list[NewRow] = []
                for line, row in batch:
                    report.considered += 1
                    if isinstance(row, NewRow):
                        rows.append(row)
                    else:
                        report.fail(line, row)
                if strict and report.failed:
                    first = report.errors[0]
                    raise InvalidRequest(f"Line {first['line']}: {first['message']}", param="file", code="invalid_row")
                await self._versions.stage(staging, rows)
                await told(report)
        finally:
            await asyncio.to_thread(source.close)


def _next(lines: Iterator[tuple[int, NewRow | str]]) -> list[tuple[int, NewRow | str]]:
    return [line for _, line in zip(range(_BATCH), lines, strict=False)]


def read_rows_of(
    source: IO[bytes], filename: str, format: Format | None, origin: Source | None = None
) -> Iterator[tuple[int, NewRow | str]]:
    """Line by line a row, or what is wrong."""
    container: Any = format if format in {"csv", "parquet"} else None
    if format is not None and container is None:  # a format of lines or of one array, not of a table
        head = source.read(4096)
        source.seek(0)
        container = "json" if container_of(head, filename) == "json" else "jsonl"
    record_format: RecordFormat | None = None if format in {None, "csv", "parquet"} else format  # type: ignore[assignment]
    sources = (origin,) if origin else ()
    for line in read_lines(source, filename, container):
        yield line.number, _row(line, record_format, sources)


def _row(line: Line, format: RecordFormat | None, sources: tuple[Source, ...]) -> NewRow | str:
    if line.record is None:
        return line.problem or "unreadable"
    try:
        return NewRow(read_record(line.record, format), sources)
    except NoriaError as error:
        return str(error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a shape that nobody has thought of
        return f"The record cannot be read ({type(error).__name__}: {error}); its fields are {_fields(line.record)}."


def _fields(record: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, record))[:10])
