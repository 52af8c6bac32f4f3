"""Text on its way to a terminal, without what would command the terminal: models and documents may hold that.

An escape sequence can set the window's title, fill the clipboard or hide lines. Files and pipes get every character as it is.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Generator
from typing import Any, TextIO

__all__ = ["HarmlessPieces", "HarmlessStream", "harmless", "harmless_streams"]

_LINE_END = re.compile(r"\r+\n")
_CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\ufffd")  # C0, DEL and C1 but for tab and new line


def harmless(text: str) -> str:
    return _LINE_END.sub("\n", text).translate(_CONTROLS)


class HarmlessPieces:
    """`harmless` for a text that comes in pieces: a carriage return waits for what follows it."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        whole = self._held + piece
        known = whole.rstrip("\r")
        self._held = whole[len(known) :]
        return harmless(known)

    def end(self) -> str:
        """What was held back and had nothing behind it."""
        held, self._held = self._held, ""
        return harmless(held)


class HarmlessStream:
    """A terminal's stream to print on. Rich and `Rewritable`, which make control sequences of their own, take what is
    behind it (`rich_proxied_file`, as Rich calls it) and make their texts harmless themselves."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream
        self._pieces = HarmlessPieces()

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(self._pieces.feed(text))
        return len(text)

    def end(self) -> None:
        """Nothing more will be written."""
        self.rich_proxied_file.write(self._pieces.end())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextlib.contextmanager
def harmless_streams() -> Generator[None, None, None]:
    """stdout and stderr, where they are terminals, as harmless ones."""
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (HarmlessStream(each) if each.isatty() else each for each in kept)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, HarmlessStream):
                with contextlib.suppress(OSError):  # the terminal is gone
                    stream.end()
        sys.stdout, sys.stderr = kept
