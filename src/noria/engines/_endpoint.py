"""The supervisor's vocabulary: what an engine is, where it answers, how it is doing."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from noria.errors import ConfigurationError, Unavailable

__all__ = ["Endpoint", "EngineSpec", "EngineState", "EngineStatus"]

EngineState = Literal["stopped", "starting", "ready", "draining", "backing_off"]

RESTART_S = 2.0
"""What a client whose engine died is told to wait: a restart of a small model takes about that."""


@dataclass(frozen=True)
class EngineSpec:
    """How to run one engine, or where one runs already.

    In `command`, `{socket}` stands for the path of the Unix socket to listen on and `{port}` for a free port of
    127.0.0.1; one of the two must occur. An engine with a `url` is only watched.
    """

    name: str
    command: tuple[str, ...] = ()
    url: str | None = None
    kind: str = "chat"
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: Path | None = None
    health_path: str = "/health"
    """Answers 200 when the engine can work, and not before."""
    startup_timeout_s: float = 180.0
    memory_mb: int = 1024
    """What it is expected to need; counted until it runs, and then if it uses less."""
    drain_s: float = 30.0
    """How long requests in flight may go on when it is to stop."""
    address: str | None = field(default=None, compare=False)
    """Where the name in `url` led when it was checked: its health is asked there, whatever the name leads to a moment later."""

    def __post_init__(self) -> None:
        if bool(self.command) == (self.url is not None):
            raise ConfigurationError(f"The engine {self.name!r} needs either a command or a url.")
        if self.command and not any("{socket}" in part or "{port}" in part for part in self.command):
            raise ConfigurationError(
                f"The command of the engine {self.name!r} does not say where to listen.",
                hint="Put {socket} (a Unix socket's path) or {port} (on 127.0.0.1) into it.",
            )

    @property
    def uses_socket(self) -> bool:
        return any("{socket}" in part for part in self.command)

    @property
    def slug(self) -> str:
        """A short file name that is unique to the name."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name)[:40]
        return f"{readable}-{hashlib.sha256(self.name.encode()).hexdigest()[:6]}"


@dataclass(frozen=True, eq=False)
class Endpoint:
    """Where a leased engine answers. Routes are `base_url` + `/v1/…`, through `socket_path` where that is set."""

    name: str
    base_url: str
    socket_path: Path | None
    generation: int
    """Counts the engine's starts: connections of another generation are dead."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when this process has ended, by itself or because it was stopped."""

    async def died(self, grace_s: float = 0.5) -> bool:
        """Whether the process has ended. A broken connection is seen before the death is: hence the grace."""
        try:
            await asyncio.wait_for(self.ended.wait(), grace_s)
        except TimeoutError:
            return False
        return True

    def unavailable(self) -> Unavailable:
        """What to raise for a request that the engine's death left unanswered."""
        return Unavailable(
            f"The engine {self.name!r} ended while it worked on this request; it is being restarted.",
            code="engine_ended",
            retry_after_s=RESTART_S,
        )


@dataclass(frozen=True)
class EngineStatus:
    """One line of `Supervisor.status()`."""

    name: str
    kind: str
    state: EngineState
    base_url: str | None
    socket_path: Path | None
    pid: int | None
    generation: int
    in_flight: int
    rss_mb: float
    memory_mb: int
    uptime_s: float | None
    crashes: int
    """Unasked ends since the supervisor began."""
    last_error: str | None
    log: Path | None
