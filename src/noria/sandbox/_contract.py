"""What a sandboxed program may use, and what is known of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Finished", "Limits", "Outcome", "Stop"]

Stop = Literal["time", "memory", "processes", "output", "ended"]
"""Why the sandbox ended a program; `ended`: it went away by itself in the middle of a call."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`wall_s` and `cpu_s` count from the start (of a call, in a session); memory is of all its processes together."""

    wall_s: float = 10.0
    cpu_s: int = 10
    memory_mb: int = 512
    processes: int = 16
    output_kb: int = 256
    """Of standard output and error together; what is above ends the program."""
    disk_mb: int = 64
    """Of its private folder, which lies in memory."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A program's end. `exit_code` is None when it was stopped; `stopped` says why."""

    stdout: str
    stderr: str
    exit_code: int | None
    stopped: Stop | None
    duration_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One call's end: a `value`, or what went wrong. `stopped` is set where the sandbox had to end the program."""

    value: Any = None
    error: str | None = None
    stopped: Stop | None = None
