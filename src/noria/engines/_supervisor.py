"""Runs engines on demand within a memory budget: starts, leases, drains, evicts, stops.

`async with supervisor.lease(spec) as endpoint:` is the whole of it for a caller. Engines that are leased are never
evicted; the one idle for longest goes first. Everything runs on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from noria.engines._endpoint import Endpoint, EngineSpec, EngineStatus
from noria.engines._engine import Engine, is_healthy, probe_client
from noria.errors import ConfigurationError, NoriaError, NotFound, Unavailable

__all__ = ["Supervisor"]

PREFIX = "noria-engines-"
MAX_SOCKET_DIR = 64
"""A Unix socket's path may have 107 bytes; the folder's and the file's name take about 40."""
REMOTE_CHECK_S = 5.0
"""A URL engine that was healthy is not asked again for so long."""
TEND_S = 10.0
ADMISSION_WAIT_S = 10.0
"""How long a start waits for busy engines to make room."""


class Supervisor:
    """All engines of one server. Close it with `aclose()`; if the server dies without, its engines die too."""

    def __init__(self, run_dir: Path, memory_budget_mb: int, *, log_dir: Path | None = None) -> None:
        self._run_dir, self._lock = _claim(run_dir)
        self._log_dir = log_dir or run_dir / "logs"
        self._budget_mb = memory_budget_mb
        self.environment: dict[str, str] = {}
        """Given to every engine that is started from now on; what an engine's spec or the server's own environment says wins."""
        self._engines: dict[str, Engine] = {}
        self._remote: dict[str, _Remote] = {}
        self._ending: dict[Engine, asyncio.Task[None]] = {}
        self._admission = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._tender: asyncio.Task[None] | None = None
        self._closed = False

    @asynccontextmanager
    async def lease(self, spec: EngineSpec) -> AsyncGenerator[Endpoint]:
        """An engine that answers, for the time of the block; it is started if it does not run.

        Raises Unavailable (with `retry_after_s`) when it cannot be had. An error inside the block that comes from the
        engine's death is turned into Unavailable as well; a caller that leaves the block by hand uses
        `endpoint.died()` and `endpoint.unavailable()`.
        """
        if spec.url is not None:
            yield await self._remote_endpoint(spec)
            return
        engine, endpoint = await self._acquire(spec)
        try:
            yield endpoint
        except (NoriaError, asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:
            if await endpoint.died():
                raise endpoint.unavailable() from error
            raise
        finally:
            engine.in_flight -= 1
            engine.last_used = time.monotonic()
            if engine.in_flight == 0:
                engine.idle.set()
                self._announce()

    async def warm(self, spec: EngineSpec) -> None:
        """Starts the engine and waits until it answers."""
        async with self.lease(spec):
            pass

    def status(self) -> list[EngineStatus]:
        """Every engine that was asked for since the start, by name."""
        states = [engine.status() for engine in self._engines.values()]
        states += [remote.status() for remote in self._remote.values()]
        return sorted(states, key=lambda status: status.name)

    async def stop(self, name: str) -> None:
        """Drains the engine for at most its `drain_s`, then ends it. The next lease starts it again."""
        if self._remote.pop(name, None) is not None:
            return
        engine = self._engines.get(name)
        if engine is None:
            raise NotFound(f"No engine {name!r} was started.")
        await self._end(engine, engine.spec.drain_s)

    async def aclose(self) -> None:
        """Ends every engine at once."""
        self._closed = True
        if self._tender is not None:
            self._tender.cancel()
            await asyncio.gather(self._tender, return_exceptions=True)
        for engine in self._engines.values():
            engine.idle.set()  # cuts short the draining that goes on
        await asyncio.gather(*[self._end(engine, 0) for engine in self._engines.values()], return_exceptions=True)
        self._engines.clear()
        shutil.rmtree(self._run_dir, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)

    async def _acquire(self, spec: EngineSpec) -> tuple[Engine, Endpoint]:
        while True:
            if self._closed:
                raise Unavailable("The server is stopping.", code="stopping", retry_after_s=5.0)
            if self._tender is None:
                self._tender = asyncio.create_task(self._tend())
            engine = self._engines.get(spec.name)
            if engine is None or (engine.spec != spec and engine.at_rest):
                engine = Engine(spec, (self._run_dir, self._log_dir), self._admit, self.environment)
                self._engines[spec.name] = engine
            elif engine.spec != spec or engine.state == "draining":
                await self._end(engine, engine.spec.drain_s)
                continue  # meanwhile it may have been started again, or replaced
            engine.last_used = time.monotonic()
            endpoint = await engine.ready()
            # Between the start and here another task may have run: take it only if it is still this one.
            if engine.state == "ready" and engine.endpoint is endpoint:
                engine.in_flight += 1
                engine.idle.clear()
                return engine, endpoint

    async def _admit(self, newcomer: Engine) -> None:
        """Returns when there is memory for one more engine, having evicted others if need be."""
        need = newcomer.spec.memory_mb
        if need > self._budget_mb:
            raise ConfigurationError(
                f"The engine {newcomer.spec.name!r} needs {need} MiB; all engines together may use {self._budget_mb}.",
                code="memory_budget",
                hint="Raise engine_memory_mb (NORIA_ENGINE_MEMORY_MB), or choose a smaller model.",
            )
        deadline = time.monotonic() + ADMISSION_WAIT_S
        async with self._admission:
            while self._occupied_mb(newcomer) + need > self._budget_mb:
                if await self._evict_one(newcomer):
                    continue
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Unavailable(
                        f"No memory for the engine {newcomer.spec.name!r}: those that run are all at work.",
                        code="memory_busy",
                        retry_after_s=5.0,
                        hint="Raise engine_memory_mb (NORIA_ENGINE_MEMORY_MB) to run them side by side.",
                    )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left), self._changed:
                        await self._changed.wait()
            newcomer.state = "starting"  # counted from here on

    def _occupied_mb(self, excluded: Engine | None = None) -> float:
        return sum(engine.occupied_mb for engine in self._engines.values() if engine is not excluded)

    async def _evict_one(self, newcomer: Engine | None) -> bool:
        """Stops the engine that has been idle for longest; False if none is idle."""
        idle = [
            engine
            for engine in self._engines.values()
            if engine is not newcomer and engine.state == "ready" and engine.in_flight == 0
        ]
        if not idle:
            return False
        victim = min(idle, key=lambda engine: engine.last_used)
        await self._end(victim, 0)
        return True

    async def _end(self, engine: Engine, drain_s: float) -> None:
        """Drains an engine that is at work for at most `drain_s`, then stops it; joins the ending that goes on already.

        Goes on when its caller is cancelled: an engine left half ended would be waited for for ever.
        """
        ending = self._ending.get(engine)
        if ending is None:
            at_work = engine.state == "ready"
            engine.state = "draining"  # no lease and no start begins from here on
            ending = self._ending[engine] = asyncio.create_task(self._drain_and_stop(engine, drain_s if at_work else 0))
        await asyncio.shield(ending)

    async def _drain_and_stop(self, engine: Engine, drain_s: float) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(engine.idle.wait(), drain_s)
            await engine.stop()
        finally:
            del self._ending[engine]
            self._announce()

    async def _tend(self) -> None:
        """Evicts idle engines when those that run have grown over the budget together."""
        while True:
            await asyncio.sleep(TEND_S)
            running = [engine for engine in self._engines.values() if engine.state == "ready"]
            used = await asyncio.to_thread(lambda running=running: sum(engine.rss_mb for engine in running))
            if used > self._budget_mb and len(running) > 1 and not self._admission.locked():
                async with self._admission:
                    await self._evict_one(max(running, key=lambda engine: engine.last_used))

    def _announce(self) -> None:
        """Wakes those who wait for an engine to become idle or to stop."""

        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.get_running_loop().create_task(notify())
        task.add_done_callback(lambda _: None)  # keeps a reference until it is done

    async def _remote_endpoint(self, spec: EngineSpec) -> Endpoint:
        remote = self._remote.get(spec.name)
        if remote is None or remote.spec != spec:
            remote = self._remote[spec.name] = _Remote(spec)
        remote.spec = spec  # equal, but for the address that was checked just now
        await remote.check()
        return remote.endpoint


class _Remote:
    """An engine on another machine, or started by someone else: asked for its health, never started."""

    def __init__(self, spec: EngineSpec) -> None:
        assert spec.url is not None
        self.spec = spec
        self.endpoint = Endpoint(spec.name, spec.url.rstrip("/"), None, 1)
        self._healthy_at = float("-inf")
        self._last_error: str | None = None

    async def check(self) -> None:
        if time.monotonic() - self._healthy_at < REMOTE_CHECK_S:
            return
        async with probe_client(self.endpoint, self.spec.address) as client:
            healthy = await is_healthy(client, self.endpoint, self.spec.health_path)
        if not healthy:
            self._last_error = f"{self.spec.url}{self.spec.health_path} does not answer 200."
            raise Unavailable(
                f"The engine {self.spec.name!r} is not healthy: {self._last_error}",
                code="engine_unreachable",
                retry_after_s=REMOTE_CHECK_S,
                hint="Start it there, or correct its url.",
            )
        self._last_error = None
        self._healthy_at = time.monotonic()

    def status(self) -> EngineStatus:
        return EngineStatus(
            name=self.spec.name,
            kind=self.spec.kind,
            state="ready" if self._last_error is None else "backing_off",
            base_url=self.endpoint.base_url,
            socket_path=None,
            pid=None,
            generation=1,
            in_flight=0,
            rss_mb=0.0,
            memory_mb=0,
            uptime_s=None,
            crashes=0,
            last_error=self._last_error,
            log=None,
        )


def _claim(run_dir: Path) -> tuple[Path, int]:
    """A folder (0700) for this supervisor's sockets, held by a lock, and what dead supervisors left is removed."""
    run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    # A long path does not fit into a socket's address.
    base = run_dir if len(os.fsencode(run_dir)) <= MAX_SOCKET_DIR else Path(tempfile.gettempdir())
    for old in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            handle = os.open(old / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
            finally:
                os.close(handle)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return folder, handle
