"""The walls: bubblewrap's command line for this machine, tried once before it is trusted.

Inside there is /usr and Python's own folders, read-only, an empty private /tmp in memory, a few devices, and nothing else: no
/etc, no /proc, no home, no network, no other processes, no capabilities, and a filter before what the kernel may be asked.
Started as root, the program becomes a user that owns nothing (the kernel does not count root's processes, so a limit on them
would not hold). Knows nothing about what is run.
Source: https://github.com/containers/bubblewrap
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

from noria.errors import NotBuilt

from ._contract import Limits
from ._seccomp import filter_program

__all__ = ["command", "open_filter", "require_sandbox", "site_packages"]

_HINT = "Run: sudo apt install bubblewrap (Debian, Ubuntu) or: sudo dnf install bubblewrap (Fedora)."
_PROBE_S = 10


def require_sandbox() -> None:
    """Raises NotBuilt, with what to install or allow, where code cannot be shut in on this machine."""
    if shutil.which("bwrap") is None:
        raise NotBuilt("Running code needs bubblewrap, which is not installed.", code="missing_bubblewrap", hint=_HINT)
    if filter_program() is None:
        raise NotBuilt(
            f"Code cannot be shut in on {platform.machine()}: the numbers of its system calls are not known here.",
            code="sandbox_unavailable",
            hint="Use an x86-64 or an aarch64 machine.",
        )
    if said := _probe():
        raise NotBuilt(
            f"bubblewrap cannot make a sandbox here: {said}",
            code="sandbox_unavailable",
            hint="In a container it needs user namespaces or CAP_SYS_ADMIN.",
        )


@functools.cache
def _probe() -> str:
    """What bubblewrap complains of when it runs an empty program; nothing when all is well."""
    try:
        with open_filter() as fd:
            words = command(Limits(), "pass", fd)
            done = subprocess.run(words, capture_output=True, timeout=_PROBE_S, check=False, text=True, pass_fds=[fd])
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


@contextlib.contextmanager
def open_filter() -> Generator[int]:
    """A descriptor from which one bubblewrap reads the filter; its process must inherit it."""
    program = filter_program()
    assert program is not None, "asked for before require_sandbox"
    ours, theirs = os.pipe()
    try:
        os.write(theirs, program)  # less than a pipe holds
        os.close(theirs)
        yield ours
    finally:
        os.close(ours)


def command(limits: Limits, program: str, filter_fd: int) -> list[str]:
    """The argument list that runs the Python source `program` inside, behind the filter that `open_filter` gave."""
    shared_memory = max(1, limits.disk_mb // 4) * 2**20
    return [
        "bwrap",
        *_namespaces(),
        "--die-with-parent",
        "--new-session",  # no terminal to push input into
        "--clearenv",
        *_environment(),
        *("--size", str(limits.disk_mb * 2**20), "--perms", "1777", "--tmpfs", "/tmp"),
        *_folders(),  # after /tmp, for Python itself may be installed below it
        # A shared mapping of /dev/zero is memory that no process is charged for; bound so, it is no device and cannot be opened.
        *("--dev", "/dev", "--ro-bind", "/dev/null", "/dev/zero"),
        *("--size", str(shared_memory), "--perms", "1777", "--tmpfs", "/dev/shm"),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"),
        *("--seccomp", str(filter_fd)),
        *(sys.executable, "-I", "-S", "-B", "-u", "-c", program),
    ]


def _namespaces() -> list[str]:
    if os.geteuid() == 0:
        # Without a user namespace, so that the child can become a user the host counts the processes of.
        names = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        return [*names, "--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return ["--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"]


def _environment() -> list[str]:
    # One thread and one arena: each further one reserves address space, which the memory limit counts.
    wanted = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }
    return [part for name, value in wanted.items() for part in ("--setenv", name, value)]


@functools.cache
def _folders() -> tuple[str, ...]:
    """Read-only views of /usr and of Python's prefixes; the links that lead into /usr on this distribution."""
    parts = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            parts += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            parts += ["--ro-bind", str(path), str(path)]
    if Path("/etc/ld.so.cache").exists():
        parts += ["--perms", "0755", "--dir", "/etc", "--ro-bind", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for prefix in dict.fromkeys((sys.base_prefix, sys.prefix)):
        if not prefix.startswith("/usr/") and prefix not in {"/", "/usr", str(Path.home())}:
            # The folders on the way are empty ones of the sandbox's own, which its user may pass.
            for above in list(Path(prefix).parents)[-2::-1]:
                parts += ["--perms", "0755", "--dir", str(above)]
            parts += ["--ro-bind", prefix, prefix]
    return tuple(parts)


def site_packages() -> list[str]:
    """Where this Python keeps libraries, for code inside to import (`-S` leaves them out, and `.pth` files with them)."""
    return [path for path in sys.path if path.endswith(("site-packages", "dist-packages")) and path.startswith(sys.prefix)]
