"""Versions written out: streamed to a caller, or kept as a file of `/v1/files` that a training job takes.

The bytes are the same each time for the same rows, so that a file is made once for a version, a split and a format.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Container, Sequence
from typing import IO, Any

from sqlalchemy import select

from noria.errors import InvalidRequest
from noria.store import Blobs, Database, Dataset, DatasetVersion, File, new_id

from ._content import Split
from ._records import Format
from ._versions import Row, Versions
from ._writing import SUFFIX, FileWriter, ParquetWriter

__all__ = ["Exporter"]

_PIECE = 1024 * 1024


class Exporter:
    def __init__(self, database: Database, blobs: Blobs, versions: Versions) -> None:
        self._database, self._blobs, self._versions = database, blobs, versions

    async def stream(
        self,
        dataset: Dataset,
        version: DatasetVersion,
        split: Split | None,
        writer: FileWriter,
        only: Container[str] | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The file's bytes as they are made; `writer` counts what was written and what its format cannot hold.

        `only` are ids of the rows to take; default: all.
        """

        def wanted(batch: Sequence[Row]) -> list[dict[str, Any]]:
            return [row.content for row in batch if only is None or row.row_id in only]

        if writer.format == "parquet":
            with tempfile.TemporaryFile() as spool:
                table = await asyncio.to_thread(ParquetWriter, writer, spool)
                try:
                    async for batch in self._versions.batches(dataset.id, version.number, split):
                        await asyncio.to_thread(table.add, wanted(batch))
                finally:
                    await asyncio.to_thread(table.close)
                spool.seek(0)
                async for piece in _pieces(spool):
                    yield piece
            return
        yield writer.head()
        async for batch in self._versions.batches(dataset.id, version.number, split):
            yield await asyncio.to_thread(writer.batch, wanted(batch))

    async def file(
        self,
        dataset: Dataset,
        version: DatasetVersion,
        split: Split | None,
        format: Format,
        newest: Collection[str] | None = None,
    ) -> File:
        """The version as an uploaded file would be, with where it came from and how many rows were written and left out; of
        `newest`, these rows alone.

        Raises InvalidRequest where no row fits.
        """
        origin = {"kind": "dataset", "dataset_id": dataset.id, "version": version.number, "split": split, "format": format}
        if newest is not None:
            origin["newest"] = len(newest)
        writer = FileWriter(format, to_learn=True)
        with tempfile.TemporaryFile() as spool:
            async for piece in self.stream(dataset, version, split, writer, newest):
                await asyncio.to_thread(spool.write, piece)
            if writer.written == 0:
                where = f"the {split} split of version" if split else "version"
                raise InvalidRequest(
                    f"No row of {where} {version.number} of {dataset.name} can be written as {format}.",
                    param="format",
                    hint=f"{writer.left_out} rows have no answer to learn, or no words in it."
                    if writer.left_out
                    else "There are no rows.",
                )
            spool.seek(0)
            return await self._keep(dataset, origin, {"written": writer.written, "left_out": writer.left_out}, spool)

    async def _keep(self, dataset: Dataset, origin: dict[str, Any], counts: dict[str, int], spool: IO[bytes]) -> File:
        async with self._blobs.references:
            blob = await self._blobs.put(_pieces(spool))
            async with self._database.read() as session:
                query = select(File).where(File.project_id == dataset.project_id, File.sha256 == blob.sha256)
                same = [row for row in await session.scalars(query) if {**(row.origin or {}), **counts} == {**origin, **counts}]
            if same:
                return same[0]
            part = f"-{origin['split']}" if origin["split"] else ""
            part += f"-newest-{origin['newest']}" if "newest" in origin else ""
            row = File(
                id=new_id("file-"),
                project_id=dataset.project_id,
                filename=f"{dataset.name}@{origin['version']}{part}.{SUFFIX[origin['format']]}",
                purpose="fine-tune",
                bytes=blob.size,
                sha256=blob.sha256,
                origin={**origin, **counts},
            )
            async with self._database.write() as session:
                session.add(row)
        return row


async def _pieces(spool: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(spool.read, _PIECE):
        yield piece
