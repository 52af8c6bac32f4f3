"""Figures for people as the console shows them: a dash where one is not known."""

from __future__ import annotations

from noria import client

__all__ = ["count", "money", "seconds", "size"]

_UNKNOWN = "–"


def seconds(value: float | None) -> str:
    return _UNKNOWN if value is None else client.seconds(value)


def size(num_bytes: float | None) -> str:
    return _UNKNOWN if num_bytes is None else client.size(num_bytes)


def count(value: float | None) -> str:
    """`950`, `12,345`, `1.2M`."""
    if value is None:
        return _UNKNOWN
    if value >= 1e9:
        return f"{value / 1e9:.1f}B"
    return f"{value / 1e6:.1f}M" if value >= 1e6 else f"{value:,.0f}"


def money(usd: float | None) -> str:
    return _UNKNOWN if usd is None else client.money(usd)
