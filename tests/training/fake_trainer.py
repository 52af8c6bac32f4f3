"""Plays `python -m noria.training`: files are prepared by the real code, a training is a few lines on standard output.

The job's seed says what happens: 7 is slow, 13 is out of memory once, 14 is killed once after its checkpoint, 15 diverges,
16 is killed each time, 17 is slow and takes two seconds to save, 18 prepares and exports slowly. Checkpoints, the lock, SIGTERM
and the exit codes are as the real one has them.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "engines" / "openvino"))

from noria.training.__main__ import _die_with_server, _only_one
from noria.training._plan import Attempts, Plan, read_json, write_json
from noria.training.worker._reporting import Reporter

STEPS = 6
stopping = False


def stop(*_: object) -> None:
    global stopping
    stopping = True


def train(folder: Path, reporter: Reporter) -> int:
    from tiny_adapters import write_adapter

    plan, failures = Plan.read(folder), Attempts.read(folder).failures
    assert plan.hyper is not None
    signal.signal(signal.SIGTERM, stop)
    state = folder / "checkpoints" / "state.json"
    state.parent.mkdir(exist_ok=True)
    step = (read_json(state) or {"step": 0})["step"]
    with (folder.parent / f"{folder.name}.tries").open("a") as tries:
        tries.write(f"{step} {plan.hyper.micro_tokens}\n")
    reporter.send(type="started", step=step, steps=STEPS, device="cpu", precision="f32")
    while step < STEPS:
        if stopping:
            time.sleep(2.0 if plan.seed == 17 else 0.0)
            write_json(state, {"step": step})
            reporter.send(type="stopped", step=step)
            return 3
        time.sleep(0.8 if plan.seed in {7, 17} else 0.01)
        step += 1
        reporter.send(type="metrics", step=step, data={"step": step, "train_loss": 2.0 / step, "tokens_per_s": 100.0})
        if step == 2:
            write_json(state, {"step": step})
            made = write_adapter(folder / "served" / f"step-{step}", seed=step)
            reporter.send(type="checkpoint", step=step, folder=str(made), metrics={"step": step, "full_valid_loss": 1.0})
        if step == 4 and plan.seed == 13 and not failures:
            reporter.send(type="error", code="out_of_memory", message="The training ran out of memory.")
            return 4
        if step == 4 and (plan.seed == 16 or (plan.seed == 14 and not failures)):
            os.kill(os.getpid(), signal.SIGKILL)
        if step == 4 and plan.seed == 15:
            reporter.send(type="error", code="diverged", message="At step 4 the loss is nan.")
            return 1
    result = write_adapter(folder / "result", seed=99)
    reporter.send(type="done", step=step, folder=str(result), data={"best_step": step, "learned_tokens": 123})
    return 0


def main() -> int:
    action, folder = sys.argv[1], Path(sys.argv[2])
    reporter = Reporter()
    _die_with_server()
    _only_one(folder)
    if action in {"prepare", "export"} and Plan.read(folder).seed == 18:
        (folder / f"{action}.begun").touch()
        if action == "prepare":
            signal.signal(signal.SIGTERM, lambda *_: (time.sleep(2.0), os._exit(143)))
        time.sleep(3.0)
    if action == "export":
        shutil.copytree(Plan.read(folder).model_folder, folder / "prepared")
        return 0
    if action == "prepare":
        from noria.training.worker._prepare import prepare

        return 0 if prepare(folder, reporter) else 2
    return train(folder, reporter)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
