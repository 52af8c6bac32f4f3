"""Figures for people: durations, sizes and money, short enough for a table."""

from __future__ import annotations

import math

__all__ = ["money", "seconds", "size"]


def seconds(value: float) -> str:
    """`340 µs`, `4.2 ms`, `36 ms`, `1.53 s`, `12.0 s`, `2 min 05 s`, `3 h 07 min`, `2 d 4 h`."""
    if value < 0.0009995:
        return f"{value * 1e6:.0f} µs"
    if value < 0.9995:
        return f"{value * 1e3:.1f} ms" if value < 0.00995 else f"{value * 1e3:.0f} ms"
    if value < 59.95:
        return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(num_bytes: float) -> str:
    """`12 B`, `98.0 MB`, `118 MB`; powers of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5 or unit == "GB":
            return f"{num_bytes:.0f} {unit}" if unit == "B" or num_bytes >= 99.95 else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError("the loop ends with GB")


def money(usd: float) -> str:
    """US dollars: `$0`, `$0.00012`, `$0.150`, `$1.25`; small sums keep two significant digits."""
    if usd == 0:
        return "$0"
    if usd >= 0.01:
        return f"${usd:,.2f}" if usd >= 1 else f"${usd:.3f}"
    if usd < 1e-6:
        return "<$0.000001"
    return f"${usd:.{1 - math.floor(math.log10(usd))}f}"
