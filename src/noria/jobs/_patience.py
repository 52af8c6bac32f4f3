"""Waiting for the database, however long it is away: what was begun is done again as it was. Knows nothing about jobs.

An upstream's Unavailable is not waited for here: whoever asks a model has a patience of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from noria.errors import DatabaseUnavailable

__all__ = ["patiently", "waits_s"]

_log = logging.getLogger("noria.jobs")
_T = TypeVar("_T")


def waits_s() -> Iterator[float]:
    """Half a second, then twice as long each time, up to half a minute, for ever."""
    return itertools.chain((0.5, 1.0, 2.0, 4.0, 8.0, 16.0), itertools.repeat(30.0))


async def patiently(work: Callable[[], Awaitable[_T]], what: str) -> _T:
    """What `work` gives, which is done again while the database is away. `what` is what the log says of it."""
    for wait_s in waits_s():
        try:
            return await work()
        except DatabaseUnavailable as error:
            _log.warning("%s waits %s s for the database: %s", what, wait_s, error)
            await asyncio.sleep(wait_s)
    raise AssertionError("unreachable: the waits have no end")
