"""The jobs that bring weights onto this machine: those of a card, and a GGUF file that becomes a card.

Both may run again after a crash: what was pulled stays, what was prepared stays, a card is replaced by itself.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from noria.engines import PullProgress
from noria.jobs import JobContext
from noria.models import Hub, card_of_gguf

__all__ = ["Importer", "Puller"]


class Puller:
    """Pulls the weights of a model that has a card."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def run(self, context: JobContext, arguments: Any) -> None:
        card = (await self._hub.resolve(arguments["model"], context.project_id)).card
        assert card.weights is not None
        await _pull(self._hub, card.weights, context)


class Importer:
    """Pulls one GGUF file, prepares it for the local engine, and adds a card that says what the file says of itself."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def run(self, context: JobContext, arguments: Any) -> None:
        weights = f"gguf:{arguments['gguf']}"
        folder = await _pull(self._hub, weights, context)
        card = await asyncio.to_thread(card_of_gguf, arguments["model"], weights, folder, arguments.get("title") or "")
        await self._hub.catalogue.add(card, context.project_id)


async def _pull(hub: Hub, weights: str, context: JobContext) -> Path:
    """In a thread of its own: a pull lasts minutes, and a few of them would hold all threads that uploads and searches need."""
    own = ThreadPoolExecutor(1, thread_name_prefix="noria-pull")
    here, report = contextvars.copy_context(), _report_to(context)
    try:
        return await asyncio.get_running_loop().run_in_executor(own, lambda: here.run(hub.weights.pull, weights, report))
    finally:
        own.shutdown(wait=False)  # it ends by itself when the job is to stop


def _report_to(context: JobContext) -> Callable[[PullProgress], None]:
    loop = asyncio.get_running_loop()

    def report(progress: PullProgress) -> None:
        context.check()
        update = context.progress(progress.done_bytes, progress.total_bytes, "bytes", stage=progress.stage, file=progress.file)
        asyncio.run_coroutine_threadsafe(update, loop)

    return report
