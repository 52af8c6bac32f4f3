"""Text that streams onto a terminal and may be written once more over itself."""

from __future__ import annotations

import shutil
from typing import TextIO

from rich.cells import get_character_cell_size

from ._harmless import HarmlessPieces, harmless

__all__ = ["Rewritable", "rows_of"]


class Rewritable:
    """Shows text as it comes when `live`; keeps it otherwise, and `replace` prints it."""

    def __init__(self, stream: TextIO, *, live: bool) -> None:
        self._stream: TextIO = getattr(stream, "rich_proxied_file", stream)
        self._live, self._text = live, ""
        self._pieces = HarmlessPieces()

    def write(self, piece: str) -> None:
        piece = self._pieces.feed(piece) if self._live else piece
        self._text += piece
        if self._live:
            self._stream.write(piece)
            self._stream.flush()

    def replace(self, text: str) -> None:
        """Ends the text as `text`. What has scrolled out of sight cannot be rewritten: then it is printed below."""
        text = harmless(text) if self._live else text
        if self._live and text == self._text:
            self._stream.write("\n")
        elif self._live:
            width, height = shutil.get_terminal_size()
            up = rows_of(self._text, width) - 1
            if up < height - 1:
                self._stream.write(f"\r\x1b[{up}A" if up else "\r")
                self._stream.write("\x1b[J")
            else:
                self._stream.write("\n\n")
            self._stream.write(text + "\n")
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def rows_of(text: str, width: int) -> int:
    """Rows that the text takes on a terminal: a wide character that does not fit moves to the next row whole."""
    rows = 1
    for line in text.split("\n"):
        column = 0
        for character in line:
            cells = 8 - column % 8 if character == "\t" else get_character_cell_size(character)
            if column + cells > width:
                rows, column = rows + 1, 0
            column += cells
        rows += 1
    return rows - 1
