"""Server-sent events: bytes in any pieces become the `data` of each event.

Knows nothing of what the data mean. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

__all__ = ["EventReader", "events"]

_LINE = re.compile(r"\r\n|\n|\r")


class EventReader:
    """Takes bytes as they come. An event that the stream's end cuts off is dropped, as the standard says."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._rest = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[str]:
        """The data of each event that this piece completes."""
        rest = self._rest + self._decode(piece)
        # A carriage return at the very end may be half of a CRLF: wait for what follows.
        held = rest.endswith("\r")
        *whole, last = _LINE.split(rest[:-1] if held else rest)
        self._rest = last + "\r" if held else last
        return self._take(whole)

    def end(self) -> list[str]:
        """What the last carriage return completes, when nothing follows."""
        return self._take([self._rest[:-1]]) if self._rest.endswith("\r") else []

    def _take(self, lines: list[str]) -> list[str]:
        found: list[str] = []
        for line in lines:
            if not line:
                if self._data:
                    found.append("\n".join(self._data))
                self._data = []
                continue
            field, _, value = line.partition(":")
            if field == "data":
                self._data.append(value.removeprefix(" "))
        return found


def events(pieces: Iterable[bytes]) -> Iterator[str]:
    """The data of each event, as it is complete."""
    reader = EventReader()
    for piece in pieces:
        yield from reader.feed(piece)
    yield from reader.end()
