"""The training process as the server sees it: started, watched, listened to, stopped. Knows nothing about jobs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson
import psutil

from noria.engines import environment_of_a_command, environment_of_our_own
from noria.errors import ConfigurationError

from ._plan import Report

__all__ = ["Launch", "TrainingProcess"]

_LINE_BYTES = 4 * 2**20
Action = Literal["prepare", "train", "export"]


@dataclass(frozen=True, slots=True)
class Launch:
    """How training processes are run. `command` stands for `python -m noria.training` where it is given."""

    command: str | None
    threads: int
    memory_mb: int
    compiled: Path
    """Where compiled modules are kept when the environment has Python keep none."""


class TrainingProcess:
    """One run of `python -m noria.training`, or of the command that a setting names instead of it."""

    def __init__(self, process: asyncio.subprocess.Process, action: Action, log: Path, memory_mb: int) -> None:
        self._process, self.action, self.log, self._memory_mb = process, action, log, memory_mb
        self.peak_mb = 0.0
        self.over_memory = False
        self.asked_to_stop = False

    @classmethod
    async def start(cls, action: Action, folder: Path, launch: Launch) -> TrainingProcess:
        """It writes what libraries print into `log.txt` of its folder."""
        begin = shlex.split(launch.command) if launch.command else [sys.executable, "-m", "noria.training"]
        env = environment_of_a_command() if launch.command else environment_of_our_own()
        env |= {"OMP_NUM_THREADS": str(launch.threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        env.setdefault("OMP_WAIT_POLICY", "passive")  # a waiting thread that spins would take the engines' processors
        if env.pop("PYTHONDONTWRITEBYTECODE", None):
            # Else the thousands of modules that torch and transformers are would be compiled anew at each start: 10 s.
            env["PYTHONPYCACHEPREFIX"] = str(launch.compiled)
        log = folder / "log.txt"
        with log.open("ab") as out:
            try:
                process = await asyncio.create_subprocess_exec(
                    *begin, action, str(folder),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=out,
                    env=env, start_new_session=True, limit=_LINE_BYTES,
                )  # fmt: skip
            except OSError as error:
                raise ConfigurationError(
                    f"train_command = {launch.command!r} cannot be run: {error}.", param="train_command"
                ) from None
        return cls(process, action, log, launch.memory_mb)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def reports(self) -> AsyncGenerator[Report, None]:
        """What it says, until it ends. A process above its memory is killed."""
        assert self._process.stdout is not None
        watching = asyncio.create_task(self._watch())
        try:
            while line := await self._process.stdout.readline():
                with contextlib.suppress(orjson.JSONDecodeError):  # a torn last line of a killed process
                    yield orjson.loads(line)
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(psutil.Error):
                here = psutil.Process(self.pid)
                used = sum(each.memory_info().rss for each in (here, *here.children(recursive=True))) / 2**20
                self.peak_mb = max(self.peak_mb, used)
                if used > self._memory_mb:
                    self.over_memory = True
                    self._signal(signal.SIGKILL)
            await asyncio.sleep(0.5)

    async def wait(self) -> int:
        """The exit code; negative for a signal."""
        return await self._process.wait()

    async def stop(self, grace_s: float) -> None:
        """Asks it to save and end; kills it when it does not within `grace_s`."""
        if self._process.returncode is None:
            self.asked_to_stop = True
            self._signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), grace_s)
            except TimeoutError:
                self._signal(signal.SIGKILL)
                await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        """To its whole group: a command that wraps the training is not the training."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = [line for line in self.log.read_text("utf-8", "replace").splitlines() if line.strip()]
            return lines[-1][:300] if lines else ""
        return ""
