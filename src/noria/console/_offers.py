"""What a form offers to choose from: the newest rows of a list, and those that were asked for wherever they stand in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from noria.errors import NotFound

__all__ = ["Offer", "chosen", "offer"]

_PAGE = 100
_PAGES = 10


class Getter(Protocol):
    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any: ...


@dataclass(frozen=True, slots=True)
class Offer:
    """`more`: there are others, older than these. `missing` are the ids that were asked for and are nowhere."""

    rows: list[dict[str, Any]]
    more: bool = False
    missing: tuple[str, ...] = ()

    @property
    def count(self) -> str:
        """`12`, or `1000+`."""
        return f"{len(self.rows)}{'+' if self.more else ''}"


async def offer(
    api: Getter, path: str, wanted: Iterable[str | None] = (), *, params: Mapping[str, Any] | None = None, pages: int = _PAGES
) -> Offer:
    """The newest rows of the list at `path`, up to `pages` hundreds of them, and each of `wanted`, by its id."""
    rows: list[dict[str, Any]] = []
    after: str | None = None
    more = True
    for _ in range(pages):
        page = await api.get(path, {**(params or {}), "limit": _PAGE, "after": after})
        rows += page["data"]
        after = page.get("next_cursor") or page.get("last_id")
        more = bool(page["has_more"] and after)
        if not more:
            break
    known = {row["id"] for row in rows}
    absent = [each for each in dict.fromkeys(wanted) if each and each not in known]
    found = await asyncio.gather(*(_find(api, f"{path}/{quote(each, safe='')}") for each in absent))
    rows += [row for row in found if row is not None]
    return Offer(rows, more, tuple(each for each, row in zip(absent, found, strict=True) if row is None))


async def _find(api: Getter, path: str) -> dict[str, Any] | None:
    try:
        return await api.get(path)
    except NotFound:
        return None


def chosen(options: Mapping[str, str], wanted: str | None) -> str | None:
    """What a field holds at first: what was asked for or nothing, and only where nothing was asked for the first of all."""
    if wanted:
        return wanted if wanted in options else None
    return next(iter(options), None)
