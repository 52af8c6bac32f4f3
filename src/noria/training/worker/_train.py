"""One try of a training: from the newest checkpoint, or from the start, to the result."""

from __future__ import annotations

import os
import resource
import signal
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.engines.openvino import chat_renderer
from noria.training._plan import ADAPTER, DataFacts, Hyper, Plan, read_json, write_json

from ._reporting import Reporter

if TYPE_CHECKING:
    from ._course import Course

__all__ = ["STOPPED", "train"]

STOPPED, OUT_OF_MEMORY = 3, 4


def train(folder: Path, reporter: Reporter) -> int:
    """The process's exit code. What went wrong is reported before it ends."""
    plan = Plan.read(folder)
    assert plan.hyper is not None
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    _limit_memory(plan, plan.hyper)
    try:
        return _train(folder, plan, plan.hyper, reporter, stop)
    except MemoryError:
        reporter.send(type="error", code="out_of_memory", message="The training ran out of memory.")
        return OUT_OF_MEMORY
    except Exception as error:
        from ._checkpoints import DiskFull

        if _is_out_of_memory(error):
            reporter.send(type="error", code="out_of_memory", message=_first_line(error))
            return OUT_OF_MEMORY
        traceback.print_exc()
        code = "disk_full" if isinstance(error, DiskFull) else getattr(error, "code", None) or "training_failed"
        reporter.send(type="error", code=code, message=f"{type(error).__name__}: {_first_line(error)}")
        return 1


def _train(folder: Path, plan: Plan, hyper: Hyper, reporter: Reporter, stop: threading.Event) -> int:
    reporter.send(type="progress", done=0, total=1, what="loading")
    import torch
    import transformers

    from ._course import Course
    from ._sft import Stopped

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if hyper.device == "cpu":
        torch.set_num_threads(plan.threads)
    data = DataFacts.read(folder)
    assert data is not None
    course = Course(folder, plan, Path(data.checkpoint), reporter, stop)
    renderer = chat_renderer(Path(data.checkpoint))
    try:
        if plan.forgetting_check:
            _score(folder, "before", course, renderer, reporter)
        course.run()
        course.take_best()
        if plan.forgetting_check:
            _score(folder, "after", course, renderer, reporter)
    except Stopped:
        course.keep()
        reporter.send(type="stopped", step=course.step)
        return STOPPED
    result = course.keeper.serve(ADAPTER)
    reporter.send(type="done", step=course.step, folder=str(result), data=course.summary())
    return 0


def _score(folder: Path, when: str, course: Course, renderer: Any, reporter: Reporter) -> None:
    """Scores once: what a resumed training begins from is no longer what it was before."""
    from ._scoring import general_scores

    path = folder / f"general-{when}.json"
    found = read_json(path) if when == "before" else None
    if found is None:
        known = course.known_scores if when == "before" else None
        found = read_json(known) if known is not None else None
        if found is None:
            reporter.send(type="progress", done=0, total=1, what=f"general set {when}")
            found = general_scores(course.model, renderer)
            if known is not None:
                write_json(known, found)
        write_json(path, found)
    reporter.send(type="forgetting", what=when, data={"items": found})


def _limit_memory(plan: Plan, hyper: Hyper) -> None:
    """Allocations beyond the limit fail here, where that can be said, before the system kills anybody. Not with a GPU's driver,
    which reserves far more than it uses. The margin is what is reserved and never touched: stacks and arenas of threads."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if hyper.device == "cpu" and plan.memory_mb:
        limit = (plan.memory_mb * 5 // 4 + 512) * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    os.nice(max(0, 10 - os.nice(0)))


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text or "std::bad_alloc" in text


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")[:500]
