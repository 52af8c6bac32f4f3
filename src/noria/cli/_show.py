"""How things are shown: tables, JSON, sizes, durations, times. Colours only on terminals, and not with NO_COLOR.

Widths count cells, so that Chinese lines up. Where the output is not a terminal, lines are as long as they are.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = [
    "Column", "ago", "clock", "count", "duration", "err", "facts", "money", "note", "out", "print_json", "progress", "size",
    "table",
]  # fmt: skip

_UNBOUNDED = 10_000


@cache
def out() -> Console:
    """The console of what a command was asked for."""
    return _console(stderr=False)


@cache
def err() -> Console:
    """The console of progress and remarks."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty() and not os.environ.get("COLUMNS")
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=_UNBOUNDED if piped else None)


def note(text: str) -> None:
    """A remark on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


@dataclass(frozen=True, slots=True)
class Column:
    """`shrink`: may be cut when the terminal is narrow; the others keep their width."""

    title: str
    align: Literal["left", "right"] = "left"
    shrink: bool = False
    style: str = ""


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Rows under titles; `empty` is said (on stderr) when there are none."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(
            column.title, justify=column.align, no_wrap=True, overflow="ellipsis", style=column.style, ratio=None,
            min_width=None if column.shrink else _natural(column.title),
        )  # fmt: skip
    found = [[*row] for row in rows]
    if not found:
        note(empty)
        return
    _keep_widths(made, columns, found)
    for row in found:
        made.add_row(*(Text(_one_line(cell)) for cell in row))
    out().print(made)


def _keep_widths(made: Any, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Rich shrinks the widest column first, whichever it is; ours says which may shrink."""
    from rich.cells import cell_len

    for index, column in enumerate(columns):
        if not column.shrink:
            made.columns[index].min_width = max([_natural(column.title), *(cell_len(_one_line(row[index])) for row in rows)])


def _natural(title: str) -> int:
    from rich.cells import cell_len

    return cell_len(title)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def facts(pairs: Iterable[tuple[str, str | None]]) -> None:
    """A card: names and values, the empty ones left out. Values wrap under themselves."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True, style="dim")
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            made.add_row(name, Text(value))
    out().print(made)


def progress(*, by_bytes: bool = False) -> Progress:
    """A progress bar on stderr; nothing moves where stderr is not a terminal."""
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TransferSpeedColumn

    amount = (DownloadColumn(), TransferSpeedColumn()) if by_bytes else (MofNCompleteColumn(),)
    description = TextColumn("{task.description}", markup=False)
    detail = TextColumn("{task.fields[detail]}", markup=False, style="dim")
    bar = BarColumn(bar_width=24)
    return Progress(description, bar, *amount, detail, console=err(), transient=True, disable=not err().is_terminal)


def size(num_bytes: float | None) -> str:
    """`98.0 MB`; empty for None."""
    if num_bytes is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000 or unit == "GB":
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float | None) -> str:
    """`340 µs`, `12 ms`, `1.52 s`, `2 min 05 s`; empty for None."""
    if seconds is None:
        return ""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 99.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def money(usd: float | None) -> str:
    """`$0`, `$0.000123`, `$1.25`; empty where it is not known."""
    if usd is None:
        return ""
    if usd == 0:
        return "$0"
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.6f}".rstrip("0") if usd >= 1e-6 else f"${usd:.1e}"


def count(number: float | None) -> str:
    """`12,345`; empty for None."""
    return "" if number is None else f"{number:,.0f}"


def clock(unix_s: float | None) -> str:
    """Local time: of day for today, else the date as well."""
    if not unix_s:
        return ""
    then, now = datetime.fromtimestamp(unix_s).astimezone(), datetime.now().astimezone()
    if then.date() == now.date():
        return f"{then:%H:%M:%S}"
    return f"{then:%b %d %H:%M}" if then.year == now.year else f"{then:%Y-%m-%d}"


def ago(unix_s: float | None) -> str:
    """`5 min ago`; `never` for None."""
    if not unix_s:
        return "never"
    past = time.time() - unix_s
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if past >= length:
            return f"{past // length:.0f} {unit} ago"
    return "just now" if past >= -1 else "later"
