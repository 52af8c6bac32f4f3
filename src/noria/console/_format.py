"""Figures for people: durations, sizes, counts and money, short enough for a table."""

from __future__ import annotations

__all__ = ["count", "money", "seconds", "size"]


def seconds(value: float | None) -> str:
    """`0.42 ms`, `36 ms`, `1.53 s`, `2 m 05 s`, `3 h 07 m`, `2 d 4 h`."""
    if value is None:
        return "–"
    if value < 0.01:
        return f"{value * 1000:.2f} ms" if value < 0.001 else f"{value * 1000:.1f} ms"
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 59.95:
        return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(num_bytes: float | None) -> str:
    if num_bytes is None:
        return "–"
    for unit in ("B", "KB", "MB", "GB"):
        if num_bytes < 999.5 or unit == "GB":
            return f"{num_bytes:.0f} {unit}" if unit == "B" or num_bytes >= 99.5 else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError("the loop ends with GB")


def count(value: float | None) -> str:
    """`950`, `12,345`, `1.2M`."""
    if value is None:
        return "–"
    if value >= 1e9:
        return f"{value / 1e9:.1f}B"
    return f"{value / 1e6:.1f}M" if value >= 1e6 else f"{value:,.0f}"


def money(usd: float | None) -> str:
    """US dollars; small sums keep two significant digits."""
    if usd is None:
        return "–"
    if usd == 0:
        return "$0"
    if usd < 0.01:
        return f"${usd:.2g}" if usd >= 1e-4 else "<$0.0001"
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.3f}"
