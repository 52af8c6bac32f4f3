"""The extractor process: reads one file after another from its standard input, under limits it sets on itself.

Started by ExtractorPool; it ends when its input does. It may write no file, open few, and use no
more memory and processor time than `Limits` says.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from noria.errors import InvalidRequest, NoriaError, PayloadTooLarge
from noria.knowledge._document import Limits, unreadable
from noria.knowledge.loaders import load_document

__all__ = ["main"]

_MAX_OPEN_FILES = 64


def main() -> None:
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt, EOFError):
        _serve()


def _serve() -> None:
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Native libraries that print must not garble the answers.
    os.dup2(2, 1)
    header, _ = _read(requests)
    limits = Limits(**header)
    _confine(limits)
    _write(answers, {"ready": True})
    while True:
        try:
            header, data = _read(requests)
        except EOFError:
            return
        _write(answers, _answer(header, data, limits))


def _confine(limits: Limits) -> None:
    memory = _address_space() + limits.max_memory_bytes
    for what, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
    ):
        resource.setrlimit(what, (value, value))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _limit_cpu(time_s: float) -> None:
    """Processor time counts from the process's start, so that the limit moves with each file."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime + time_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _answer(header: dict[str, Any], data: bytes, limits: Limits) -> dict[str, Any]:
    filename: str = header["filename"]
    _limit_cpu(header["time_s"])
    try:
        if header["path"] is not None:
            data = _read_file(header["path"], filename, limits)
        return {"document": load_document(data, filename=filename, limits=limits).to_wire()}
    except MemoryError:
        # What was allocated is not all given back: the next file deserves a fresh process.
        return {**_failure(unreadable(filename, "reading it needs too much memory.", hint="Split the file.")), "spent": True}
    except NoriaError as error:
        return _failure(error)
    except Exception as error:
        # A loader met something its author did not think of. The file is at fault as far as its owner can tell.
        return _failure(unreadable(filename, f"it cannot be read ({type(error).__name__}: {str(error)[:200]})."))


def _failure(error: NoriaError) -> dict[str, Any]:
    kind = PayloadTooLarge if isinstance(error, PayloadTooLarge) else InvalidRequest
    return {
        "error": {
            "class": kind.__name__,
            "message": error.message,
            "param": error.param,
            "code": error.code,
            "hint": error.hint,
        }
    }


def _read_file(path: str, filename: str, limits: Limits) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(limits.max_bytes + 1)
    except OSError as error:
        raise unreadable(filename, f"it cannot be opened ({error.strerror}).") from error


def _read(stream: BinaryIO) -> tuple[dict[str, Any], bytes]:
    sizes = _exactly(stream, 16)
    header = orjson.loads(_exactly(stream, int.from_bytes(sizes[:8], "big")))
    return header, _exactly(stream, int.from_bytes(sizes[8:], "big"))


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _write(stream: BinaryIO, answer: dict[str, Any]) -> None:
    encoded = orjson.dumps(answer)
    stream.write(len(encoded).to_bytes(8, "big"))
    stream.write(encoded)
    stream.flush()
