"""`python -m noria.training prepare|train|export FOLDER`: one training, in a process of its own.

It ends when its server does: by the kernel's word, and because its standard input, which the server holds, is then closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import threading
import time
from pathlib import Path

from .worker._reporting import Reporter

_PR_SET_PDEATHSIG = 1


def _die_with_server() -> None:
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the closed pipe below is enough
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    # A descriptor of its own: a forked child closes sys.stdin, and would wait for ever for a reader's lock.
    pipe, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def wait() -> None:
        while os.read(pipe, 4096):
            pass
        os._exit(75)

    threading.Thread(target=wait, daemon=True).start()


def _only_one(folder: Path) -> int:
    """Held while this process lives: a predecessor that is still dying is waited for."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + 30
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            if time.monotonic() > deadline:
                sys.exit(f"Another process trains in {folder}.")
            time.sleep(0.1)


def main() -> int:
    """0: done; 2: the file is bad; 3: stopped as asked; 4: out of memory; else a failure, reported where possible."""
    action, folder = sys.argv[1], Path(sys.argv[2])
    reporter = Reporter()
    _die_with_server()
    lock = _only_one(folder)
    try:
        if action == "prepare":
            from .worker._prepare import prepare

            return 0 if prepare(folder, reporter) else 2
        if action == "export":
            from .worker._export import export

            export(folder, reporter)
            return 0
        from .worker._train import train

        return train(folder, reporter)
    finally:
        os.close(lock)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # torch's and tokenizers' threads take seconds to end
