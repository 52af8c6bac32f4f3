"""Listens to the training process: what it reports becomes events, progress, checkpoints that can be asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from noria.jobs import JobContext, patiently
from noria.store import TuningEvent

from ._forgetting import compare
from ._plan import Report, read_json, write_json
from ._records import ENDED, Records, metrics_event

__all__ = ["Listener"]

_FLUSH_S = 0.5
_ESTIMATE_S = 5.0


class Listener:
    """One job's. `failure` is what the process says it ended of, `problems` what is wrong with its files."""

    def __init__(
        self,
        tuning_id: str,
        folder: Path,
        records: Records,
        context: JobContext,
        checkpoint: Callable[[Report], Awaitable[None]],
    ) -> None:
        self._id, self._folder, self._records, self._context = tuning_id, folder, records, context
        self._checkpoint = checkpoint
        self.failure: Report | None = None
        self.problems: list[str] = []
        self.done = (folder / "done.json").exists()
        self._events: list[TuningEvent] = []
        self._flushed = self._estimated = self._begun_at = 0.0
        self._begun_step, self._total = 0, 1

    async def hear(self, report: Report) -> None:
        """However long the database is away: the training goes on meanwhile, and what it reports waits in its pipe."""
        if report.get("type") == "metrics":
            self._events.append(metrics_event(self._id, report.get("data", {}), self._total))
        await patiently(lambda: self._tell(report), f"A report of the training {self._id}")

    async def _tell(self, report: Report) -> None:
        """May be done again."""
        match report.get("type"):
            case "metrics":
                await self._heard_metrics(report)
            case "started":
                await self._heard_started(report)
            case "note":
                await self._records.say(self._id, report.get("message", ""), report.get("level", "info"))
            case "problem":
                await self._heard_problem(report)
            case "invalid":
                count = report.get("count", 0)
                self.problems.append(f"{report.get('file')}: {count:,} line{'s are' if count != 1 else ' is'} wrong in all.")
            case "checkpoint":
                await self.flush()
                await self._checkpoint(report)
            case "forgetting":
                await self._heard_forgetting(report)
            case "progress":
                await self._context.progress(report.get("done", 0), report.get("total"), "", stage=report.get("what", ""))
            case "error":
                self.failure = report
            case "done":
                await self.flush()  # after it nothing is trained again that would tell these
                await asyncio.to_thread(write_json, self._folder / "done.json", report)
                self.done = True
            case _:
                pass

    async def _heard_started(self, report: Report) -> None:
        step, self._total = report.get("step", 0), report.get("steps", 1)
        self._begun_at, self._begun_step = time.time(), step
        await self._records.forget_steps_after(self._id, step)
        where = f"on {report.get('device')} in {report.get('precision')}"
        text = f"Fine-tuning goes on after step {step} of {self._total}" if step else "Fine-tuning job started"
        await self._records.say(self._id, f"{text}, {where}.")

    async def _heard_metrics(self, report: Report) -> None:
        data = report.get("data", {})
        if time.monotonic() - self._flushed > _FLUSH_S:
            await self.flush()
        detail = {key: data[key] for key in ("train_loss", "full_valid_loss", "tokens_per_s") if data.get(key) is not None}
        await self._context.progress(data["step"], self._total, "steps", stage="training", **detail)
        if time.monotonic() - self._estimated > _ESTIMATE_S:
            self._estimated = time.monotonic()
            taken = data["step"] - self._begun_step
            left_s = (time.time() - self._begun_at) / max(1, taken) * (self._total - data["step"])
            await self._records.update(self._id, unless=ENDED, estimated_finish=int(time.time() + left_s))

    async def _heard_problem(self, report: Report) -> None:
        line, reason = report.get("line", 0), report.get("reason", "")
        text = f"{report.get('file')}, line {line}: {reason}" if line else f"{report.get('file')}: {reason}"
        await self._records.say(self._id, text, "error")
        self.problems.append(text)

    async def _heard_forgetting(self, report: Report) -> None:
        if report.get("what") != "after":
            return
        before = await asyncio.to_thread(read_json, self._folder / "general-before.json")
        found = compare(before or [], report.get("data", {}).get("items", [])) if before else None
        if found is None:
            return
        row = await self._records.get(self._id)
        await self._records.update(self._id, resolved={**row.resolved, "forgetting": found})
        text = f"General set: {found['before']:.0%} known before, {found['after']:.0%} after."
        if found["forgot"]:
            text += " The model has forgotten: fewer epochs, a lower rate or some general rows among the training data may help."
        await self._records.say(self._id, text, "warn" if found["forgot"] else "info", {"forgetting": found})

    async def flush(self) -> None:
        events = list(self._events)
        self._flushed = time.monotonic()
        if events:
            await self._records.add_events(events)
            del self._events[: len(events)]
