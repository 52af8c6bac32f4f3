"""Server-sent events: bytes in any pieces become the `data` of each event.

Knows nothing of what the data mean. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

__all__ = ["events"]

_LINE = re.compile(r"\r\n|\n|\r")


def events(pieces: Iterable[bytes]) -> Iterator[str]:
    """The data of each event, as it is complete. An event that the stream's end cuts off is dropped, as the standard says."""
    data: list[str] = []
    for line in _lines(pieces):
        if not line:
            if data:
                yield "\n".join(data)
            data = []
            continue
        field, _, value = line.partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
    rest = ""
    for piece in pieces:
        rest += decode(piece)
        # A carriage return at the very end may be half of a CRLF: wait for what follows.
        held = rest.endswith("\r")
        *whole, last = _LINE.split(rest[:-1] if held else rest)
        yield from whole
        rest = last + "\r" if held else last
    if rest.endswith("\r"):
        yield rest[:-1]
