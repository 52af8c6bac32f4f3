"""How fast a training learns and how long: the rate's course over steps or minutes, and the clock that survives a restart."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from noria.training._plan import Hyper, read_json, write_json

__all__ = ["Clock", "paced", "rate_at"]


class Clock:
    """Seconds spent training, over all tries; `max_s` is the budget, if there is one."""

    def __init__(self, max_s: float | None) -> None:
        self.max_s, self._before, self._begun = max_s, 0.0, time.monotonic()

    @property
    def spent_s(self) -> float:
        return self._before + time.monotonic() - self._begun

    @property
    def share(self) -> float:
        return self.spent_s / self.max_s if self.max_s else 0.0

    def save(self, folder: Path, learned_tokens: int) -> None:
        write_json(folder / "clock.json", {"spent_s": self.spent_s, "learned_tokens": learned_tokens})

    def load(self, folder: Path) -> int:
        """Goes on from a checkpoint's clock; returns how many tokens had been learned."""
        found = read_json(folder / "clock.json") or {}
        self._before, self._begun = float(found.get("spent_s", 0.0)), time.monotonic()
        return int(found.get("learned_tokens", 0))


def rate_at(progress: float, hyper: Hyper) -> float:
    """The factor of the learning rate when `progress` (0 to 1) of the training is done."""
    if progress < hyper.warmup:
        return progress / hyper.warmup
    left = (1.0 - min(1.0, progress)) / (1.0 - hyper.warmup)
    if hyper.scheduler == "constant":
        return 1.0
    return left if hyper.scheduler == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)


def paced(trainer_class: type[Any], hyper: Hyper, clock: Clock) -> type[Any]:
    """The trainer with our course of the rate: by steps, or by minutes where those run out sooner."""

    def factor(total: int) -> Callable[[int], float]:
        # Half a step on: neither the first nor the last step is wasted on a rate of zero.
        return lambda step: rate_at(max((step + 0.5) / total, min(0.995, clock.share)), hyper)

    class Paced(trainer_class):
        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor(num_training_steps))
            self._created_lr_scheduler = True
            return self.lr_scheduler

    return Paced
