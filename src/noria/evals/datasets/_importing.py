"""Files into rows, whichever format they are in. What is wrong with a line is said of that line; the rest goes in.

With `strict` nothing goes in where anything is wrong. Rows of a file that a dataset was exported to, or of one with the same
bytes, keep where they came from in that dataset, so that a deletion finds them here too.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from sqlalchemy import and_, or_, select

from noria.errors import Conflict, InvalidRequest, NoriaError
from noria.store import Blobs, Database, File, RowSource

from ._content import NewRow, Source, row_id_of
from ._progress import Report, Told
from ._reading import Line, container_of, read_lines
from ._records import Format, RecordFormat, read_record
from ._versions import Row, Staging, Versions, chunks
from ._writing import to_record

__all__ = ["Importer", "read_rows_of"]

_BATCH = 200


@dataclass(frozen=True, slots=True)
class _Exported:
    """What is known of a file that rows were exported to: the files of the same bytes, and whose the rows in it are."""

    sha256: str
    file_ids: list[str] = field(default_factory=list[str])
    rows: defaultdict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict[str, set[tuple[str, str]]](set))
    """Of the id of a row as it is read: the ids of the dataset and the row that were written."""


class Importer:
    """`gate` is held from looking up where rows came from to staging them, so that a deletion in between is not undone."""

    def __init__(self, database: Database, blobs: Blobs, versions: Versions, gate: asyncio.Lock) -> None:
        self._database, self._blobs, self._versions, self._gate = database, blobs, versions, gate

    async def stage(
        self, staging: Staging, file: File, format: Format | None, report: Report, told: Told, *, strict: bool = False
    ) -> None:
        """Stages a file's rows. Raises InvalidRequest where it cannot be read at all, or with `strict` where a line cannot."""
        source = await asyncio.to_thread(self._blobs.open, file.sha256)
        try:
            exported = await self._exported(file)
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
                if exported.file_ids:
                    async with self._gate:
                        await self._versions.stage(staging, await self._with_sources(exported, rows))
                else:
                    await self._versions.stage(staging, rows)
                await told(report)
        finally:
            await asyncio.to_thread(source.close)

    async def _exported(self, file: File) -> _Exported:
        found = _Exported(file.sha256)
        async with self._database.read() as session:
            query = select(File).where(File.project_id == file.project_id, File.sha256 == file.sha256, File.origin.is_not(None))
            files = list(await session.scalars(query.order_by(File.id)))
        for same in files:
            origin = same.origin or {}
            if origin.get("kind") == "dataset":
                found.file_ids.append(same.id)
                async for batch in self._versions.batches(origin["dataset_id"], origin["version"], origin.get("split")):
                    await asyncio.to_thread(_note, found, batch, origin["dataset_id"], origin.get("format", "openai"))
        return found

    async def _with_sources(self, exported: _Exported, rows: Sequence[NewRow]) -> list[NewRow]:
        """The rows with what those that were exported were made of. Raises Conflict where any of it was deleted since."""
        wanted = [sorted(exported.rows.get(row_id_of(row.content), ())) for row in rows]
        keys = sorted({key for held in wanted for key in held})
        known: defaultdict[tuple[str, str], list[Source]] = defaultdict(list)
        async with self._database.read() as session:
            left = set(await session.scalars(select(File.id).where(File.sha256 == exported.sha256)))
            if not left.issuperset(exported.file_ids):
                raise Conflict("Rows of the file were deleted meanwhile, and its content with them.", hint="Export it again.")
            for chunk in chunks(keys, _BATCH):
                here = or_(*(and_(RowSource.dataset_id == one, RowSource.row_id == row_id) for one, row_id in chunk))
                for row in await session.scalars(select(RowSource).where(here, RowSource.staged.is_(None))):
                    source = Source(row.trace_id, row.span_id, row.feedback_id, row.completion_id)
                    if source != Source():
                        known[row.dataset_id, row.row_id].append(source)
        return [
            NewRow(row.content, (*row.sources, *(source for key in held for source in known[key])))
            for row, held in zip(rows, wanted, strict=True)
        ]


def _note(exported: _Exported, rows: Sequence[Row], dataset_id: str, format: Format) -> None:
    """Notes rows by the id that they have when the file is read: not every format says all of a row."""
    for row in rows:
        record = to_record(row.content, format)
        read = None if record is None else _row(Line(0, record), None, ())
        if isinstance(read, NewRow):
            exported.rows[row_id_of(read.content)].add((dataset_id, row.row_id))


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
