"""Identifiers with OpenAI's prefixes whose order is the order of creation.

Forty-eight bits of milliseconds, sixteen of a counter, sixty-four random, in hex after the prefix (the layout of UUID
version 7, RFC 9562). Because ids sort by time, a page of a list is one range scan on the primary key, and a cursor
stays valid while rows come and go.
"""

from __future__ import annotations

import secrets
import threading
import time

__all__ = ["new_id"]

_lock = threading.Lock()
_last = (0, 0)


def new_id(prefix: str, *, tail: int | None = None) -> str:
    """A fresh id such as `file-019a…` (32 hex digits), greater than every one made here before.

    `tail` stands where the random part else does: an answer's id ends in the span that made it, so that its trace is
    found from it without a note of which belongs to which.
    """
    global _last
    with _lock:
        now = time.time_ns() // 1_000_000
        last_ms, count = _last
        if now <= last_ms:
            now, count = last_ms, count + 1
            if count > 0xFFFF:
                now, count = now + 1, 0
        else:
            count = 0
        _last = (now, count)
    return f"{prefix}{now:012x}{count:04x}{secrets.token_hex(8) if tail is None else format(tail, '016x')}"
