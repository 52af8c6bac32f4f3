"""Text on its way to a terminal, without what would command the terminal: models and documents may hold that.

An escape sequence can set the window's title, fill the clipboard or hide lines. Files and pipes get every character as it is.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from typing import Any, TextIO

__all__ = ["HarmlessStream", "harmless", "harmless_streams"]

_CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\ufffd")  # C0, DEL and C1 but for tab and new line


def harmless(text: str) -> str:
    return text.translate(_CONTROLS)


class HarmlessStream:
    """A terminal's stream to print on. Rich and `Rewritable`, which make control sequences of their own, take what is
    behind it (`rich_proxied_file`, as Rich calls it) and make their texts harmless themselves."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(harmless(text))
        return len(text)

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
        sys.stdout, sys.stderr = kept
