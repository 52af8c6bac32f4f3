"""Reports to the server: one JSON object a line, on what was standard output when the process began."""

from __future__ import annotations

import os
import sys
import threading
from typing import BinaryIO, Unpack

import orjson

from noria.training._plan import Report

__all__ = ["Reporter"]


class Reporter:
    """Takes standard output away from the libraries, which like to write there: what they print goes to stderr."""

    def __init__(self, out: BinaryIO | None = None) -> None:
        self._lock = threading.Lock()
        if out is None:
            sys.stdout.flush()
            out = os.fdopen(os.dup(1), "wb", buffering=0)
            os.dup2(2, 1)
        self._out = out

    def send(self, **report: Unpack[Report]) -> None:
        """Writes at once; a server that is gone ends this process soon, by other means."""
        line = orjson.dumps(report, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
        with self._lock:
            self._out.write(line)

    def note(self, message: str, *, warn: bool = False) -> None:
        self.send(type="note", message=message, level="warn" if warn else "info")
