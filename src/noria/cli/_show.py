"""How things are shown: tables, JSON, sizes, durations, times. Colours only on terminals, and not with NO_COLOR.

Widths count cells, so that Chinese lines up. Where the output is not a terminal, lines are as long as they are.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from noria import client

from ._harmless import HarmlessStream, harmless

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

__all__ = [
    "Column",
    "ago",
    "clock",
    "count",
    "duration",
    "err",
    "facts",
    "fit",
    "hanging",
    "money",
    "note",
    "out",
    "paragraph",
    "print_json",
    "progress",
    "size",
    "table",
]  # fmt: skip

_UNBOUNDED = 10_000
_GAP = "  "
_LEAST = 8
"""Cells that a column keeps however narrow the terminal is."""


@cache
def out() -> Console:
    """The console of what a command was asked for."""
    return _console(stderr=False)


@cache
def err() -> Console:
    """The console of progress and remarks."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Safe(Console):
        """Its own colours and movements are all that reaches the terminal; see `_harmless`."""

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control or not self.is_terminal else segment._replace(text=harmless(segment.text))

    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty() and not os.environ.get("COLUMNS")
    behind = stream.rich_proxied_file if isinstance(stream, HarmlessStream) else None  # a progress bar puts itself in front
    return Safe(file=behind, stderr=stderr, highlight=False, markup=False, emoji=False, width=_UNBOUNDED if piped else None)


def note(text: str) -> None:
    """A remark on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


@dataclass(frozen=True, slots=True)
class Column:
    """`shrink`: may be cut when the terminal is narrow; the others keep their width. `raw`: white space is kept."""

    title: str
    align: Literal["left", "right"] = "left"
    shrink: bool = False
    style: str = ""
    raw: bool = False


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Rows under titles, cut to the terminal; `empty` is said (on stderr) when there are none.

    A column in which no row has anything is left out.
    """
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    found = [[cell if column.raw else _one_line(cell) for column, cell in zip(columns, row, strict=True)] for row in rows]
    if not found:
        note(empty)
        return
    used = [index for index in range(len(columns)) if any(row[index] for row in found)]
    shown = [columns[index] for index in used]
    cells = [[row[index] for index in used] for row in found]
    natural = [max(cell_len(text) for text in column) for column in zip([each.title for each in shown], *cells, strict=True)]
    room = out().width - len(_GAP) * (len(shown) - 1)
    widths = fit(natural, [each.shrink for each in shown], room)

    def line(texts: Sequence[str], *, head: bool = False) -> Text:
        made = Text()
        for number, (text, column, width) in enumerate(zip(texts, shown, widths, strict=True)):
            short = text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"
            space = " " * (width - cell_len(short))
            made.append(_GAP if number else "")
            made.append(space + short if column.align == "right" else short + space, style="bold" if head else column.style)
        made.rstrip()
        return made

    _print_line(line([each.title for each in shown], head=True))
    for row in cells:
        _print_line(line(row))


def fit(natural: Sequence[int], shrinkable: Sequence[bool], room: int) -> list[int]:
    """Widths that take no more than `room` together if shrinking those that may does it: the widest give way first."""
    widths = list(natural)
    while sum(widths) > room:
        candidates = [index for index, may in enumerate(shrinkable) if may and widths[index] > _LEAST]
        if not candidates:
            return widths
        widths[max(candidates, key=widths.__getitem__)] -= 1
    return widths


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _print_line(text: Text) -> None:
    out().print(text, no_wrap=True, overflow="ignore", crop=False)


def paragraph(text: str, *, indent: int = 0, style: str = "") -> None:
    """Text wrapped to the terminal, each line moved in."""
    from rich.text import Text

    for line in Text(text, style=style).wrap(out(), max(out().width - indent, _LEAST)):
        line.rstrip()
        _print_line(Text(" " * indent if line else "") + line)


def hanging(sign: str, style: str, name: str, text: str) -> None:
    """A coloured sign, a bold name, and text that wraps under itself."""
    from rich.text import Text

    column = len(sign) + len(name)
    for number, line in enumerate(Text(text).wrap(out(), max(out().width - column, _LEAST))):
        line.rstrip()
        _print_line(Text.assemble((sign, style), (name, "bold"), line) if number == 0 else Text(" " * column) + line)


def facts(pairs: Iterable[tuple[str, str | None]]) -> None:
    """A card: names and values, the empty ones left out. Values wrap under themselves."""
    from rich.cells import cell_len
    from rich.text import Text

    given = [(name, value) for name, value in pairs if value]
    column = max((cell_len(name) for name, _ in given), default=0) + len(_GAP)
    for name, value in given:
        lines = Text(value).wrap(out(), max(out().width - column, _LEAST))
        for number, line in enumerate(lines):
            line.rstrip()
            head = Text(name + " " * (column - cell_len(name)), style="dim") if number == 0 else Text(" " * column)
            _print_line(head + line)


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
    return "" if num_bytes is None else client.size(num_bytes)


def duration(seconds: float | None) -> str:
    """`340 µs`, `12 ms`, `1.52 s`, `2 min 05 s`; empty for None."""
    return "" if seconds is None else client.seconds(seconds)


def money(usd: float | None) -> str:
    """`$0`, `$0.00012`, `$1.25`; empty where it is not known."""
    return "" if usd is None else client.money(usd)


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
