"""How many parts an OTLP request has, before any is made: two bytes can be an event, which takes half a kilobyte once it is one.

Goes through the binary form without making objects of it. Knows only which fields hold messages, and nothing of their meaning.
Sources: https://protobuf.dev/programming-guides/encoding/ and
https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto
"""

from __future__ import annotations

__all__ = ["parts_of"]

_Inside = dict[int, str]
_MESSAGES: dict[str, _Inside] = {
    "request": {1: "resource spans"},
    "resource spans": {1: "resource", 2: "scope spans"},
    "resource": {1: "pair"},
    "scope spans": {1: "scope", 2: "span"},
    "scope": {3: "pair"},
    "span": {9: "pair", 11: "event", 13: "link", 15: "status"},
    "event": {3: "pair"},
    "link": {4: "pair"},
    "status": {},
    "pair": {2: "value"},
    "value": {5: "values", 6: "pairs"},
    "values": {1: "value"},
    "pairs": {1: "pair"},
}
_FIXED = {1: 8, 5: 4}


def parts_of(data: bytes, most: int) -> int:
    """The fields of an ExportTraceServiceRequest and of all in it; stops behind `most`. Raises ValueError for other data."""
    parts = 0
    left = [(0, len(data), _MESSAGES["request"])]
    while left:
        at, end, inside = left.pop()
        while at < end:
            parts += 1
            if parts > most:
                return parts
            key = data[at]
            at += 1
            if key > 127:
                key, at = _number(data, at - 1)
            kind = key & 7
            if kind == 2:
                length = data[at] if at < end else 128
                at += 1
                if length > 127:  # one byte is the rule, and a call costs more than all else here
                    length, at = _number(data, at - 1)
                begin, at = at, at + length
                if at > end:
                    raise ValueError("a field is longer than what it is in")
                if length and (key >> 3) in inside:
                    left.append((begin, at, _MESSAGES[inside[key >> 3]]))
            elif kind == 0:
                _, at = _number(data, at)
            elif kind in _FIXED:
                at += _FIXED[kind]
            else:
                raise ValueError(f"wire type {kind}")
    return parts


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The variable-length number at a place, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
