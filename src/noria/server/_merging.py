"""The job that merges a tuned model into its base and writes it for others to use: safetensors, OpenVINO, or both.

The result lies in the home's `exports/`, in a folder of the model's name. Merging again replaces it; a job that a crash
interrupted starts over and leaves nothing half written.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from noria.errors import InvalidRequest, NoriaError
from noria.jobs import JobContext
from noria.models import Hub, ModelCard

__all__ = ["Merger", "check_mergeable"]


class Merger:
    """The job. Its `detail.folder` is where the result lies on the server's machine."""

    def __init__(self, hub: Hub, exports: Path) -> None:
        self._hub, self._exports = hub, exports

    async def run(self, context: JobContext, arguments: Any) -> None:
        card, _ = await self._hub.catalogue.find(arguments["model"], context.project_id)
        check_mergeable(card)
        out = self._exports / _folder_name(card.id)
        base = await self._hub.prepared_folder(card, context.project_id)
        command = [sys.executable, "-m", "noria.engines.openvino._merge", str(base), str(out)]
        command += ["--name", card.id, "--format", arguments["format"]]
        if card.adapter is not None:
            command += ["--adapter", str(self._hub.home_folder(card.adapter))]
        await _run(command, context)
        await context.progress(1, 1, "", stage="done", folder=str(out))


def check_mergeable(card: ModelCard) -> None:
    """Raises InvalidRequest for a model that training did not make."""
    if card.adapter is None and card.folder is None:
        raise InvalidRequest(
            f"{card.id} is not a tuned model: there is nothing to merge.",
            param="model",
            code="not_a_tuned_model",
            hint="Models made by fine-tuning have an adapter.",
        )


def _folder_name(model_id: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", model_id).strip("-.")[:80]
    return f"{readable}-{hashlib.sha256(model_id.encode()).hexdigest()[:6]}"


async def _run(command: list[str], context: JobContext) -> None:
    """In a process of its own: its memory goes back to the system, and native code cannot take the server down."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said = asyncio.ensure_future(process.stderr.read())
    try:
        async for line in process.stdout:
            await context.progress(0, None, "", stage=line.decode().strip())
        status = await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    if status != 0:
        lines = (await said).decode(errors="replace").strip().splitlines()
        killed = "It was killed: is there enough memory?" if status < 0 else ""
        raise NoriaError("\n".join([*lines[-5:], killed]).strip() or f"Merging ended with {status}.", code="merge_failed")
