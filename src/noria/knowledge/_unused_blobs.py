"""Blobs that no row names: released with the last row that named them, or found long after a crash.

A blob is put before the row that names it, so that a crash between the two leaves one that nobody knows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection

from sqlalchemy import select

from noria.store import Blobs, Database, File, StoreFile

__all__ = ["collect", "release"]

_log = logging.getLogger("noria.knowledge")
_NAMES = (File.sha256, StoreFile.text_sha256)  # every column that names a blob; a test knows what the others hold
_SPARED_S = 7 * 86400.0


async def release(database: Database, blobs: Blobs, sums: Collection[str | None]) -> None:
    """Deletes those of these blobs that no row names; under `Blobs.references`."""
    for sha256 in set(sums) - {None}:
        assert sha256 is not None
        async with database.read() as session:
            needed = [await session.scalar(select(column).where(column == sha256).limit(1)) for column in _NAMES]
        if not any(needed):
            await blobs.delete(sha256)


async def collect(database: Database, blobs: Blobs) -> int:
    """Deletes the blobs that no row names, and returns how many. Careful, for the database may be the wrong one, or as old as
    a backup: only a folder of this machine is looked through, a week's blobs are spared, and nothing is deleted where more
    would be than stays."""
    old = await asyncio.to_thread(blobs.put_before, time.time() - _SPARED_S)  # listed before the rows are
    if not old:
        return 0
    named: set[str | None] = set()
    async with database.read() as session:
        for column in _NAMES:
            named |= set(await session.scalars(select(column).distinct()))
    unused = old - named
    if len(unused) > len(named - {None}):
        _log.warning("%s blobs are named by no row, which are too many to delete: is this their database?", len(unused))
        return 0
    for sha256 in unused:
        async with blobs.references:  # each by itself, for uploads wait
            await release(database, blobs, {sha256})
    return len(unused)
