"""What this machine can train with, found out without importing torch."""

from __future__ import annotations

import functools
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from noria.errors import MissingExtra

__all__ = ["Machine", "require_extra", "this_machine"]

_NEEDED = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")


@dataclass(frozen=True, slots=True)
class Machine:
    """`bf16`: the processor multiplies bfloat16 itself; elsewhere it would be slower than float32."""

    cuda: bool
    bf16: bool
    memory_mb: int
    threads: int


@functools.cache
def this_machine() -> Machine:
    flags = _cpu_flags()
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return Machine(
        cuda=Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "?") not in {"", "-1"},
        bf16=bool(flags & {"amx_bf16", "avx512_bf16"}),
        memory_mb=_memory_mb(),
        threads=max(1, min(cores, usable)),
    )


def _memory_mb() -> int:
    """Of this machine, or of the container that we live in."""
    total = psutil.virtual_memory().total
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text()))
        except (OSError, ValueError):  # absent, or `max`
            continue
    return total // 2**20


def _cpu_flags() -> set[str]:
    try:
        with Path("/proc/cpuinfo").open() as lines:
            return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
    except OSError:
        return set()


def require_extra() -> None:
    """Raises MissingExtra with the `pip install` that a training needs."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise MissingExtra("Fine-tuning", "train")
