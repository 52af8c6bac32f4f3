"""The life of one engine: start, wait until it is healthy, watch, restart with back-off, stop.

It knows nothing about the other engines or about memory: `_supervisor` decides who may run.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from noria.engines._endpoint import Endpoint, EngineSpec, EngineState, EngineStatus
from noria.engines._environment import environment_of_a_command, environment_of_our_own
from noria.engines._process import EngineProcess, tail
from noria.errors import NoriaError, Unavailable

__all__ = ["Engine"]

POLL_S = 0.05
FIRST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 15.0
LOOP_FAILURES = 5
LOOP_WINDOW_S = 120.0
"""This many failures within this time are a crash loop …"""
LOOP_PAUSE_S = 60.0
"""… and the engine is left alone for so long."""
PROBE_S = 10.0
HANG_S = 90.0
"""A started engine that has not answered its health route for so long is killed and restarted."""
TERM_GRACE_S = 10.0


class Engine:
    """One engine's process and its state. All methods run on one event loop."""

    def __init__(
        self,
        spec: EngineSpec,
        folders: tuple[Path, Path],
        admit: Callable[[Engine], Awaitable[None]],
        environment: Mapping[str, str],
    ) -> None:
        """`folders` are those of sockets and of logs; `environment` is read at each start."""
        run_dir, log_dir = folders
        self.spec = spec
        self._environment = environment
        self.state: EngineState = "stopped"
        self.in_flight = 0
        self.last_used = time.monotonic()
        self.idle = asyncio.Event()
        self.idle.set()
        self.endpoint: Endpoint | None = None
        self._run_dir = run_dir
        self._log = log_dir / f"{spec.slug}.log"
        self._admit = admit
        self._process: EngineProcess | None = None
        self._generation = 0
        self._begun: float | None = None
        self._crashes = 0
        self._failures: deque[float] = deque(maxlen=LOOP_FAILURES)
        self._not_before = 0.0
        self._last_error: str | None = None
        self._starting: asyncio.Task[Endpoint] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._restarter: asyncio.Task[None] | None = None

    @property
    def rss_mb(self) -> float:
        return self._process.rss_mb() if self._process else 0.0

    @property
    def occupied_mb(self) -> float:
        """Memory to count: what it uses, and at least what it was said to need."""
        return max(self.rss_mb, float(self.spec.memory_mb)) if self.state in ("starting", "ready", "draining") else 0.0

    def status(self) -> EngineStatus:
        process, endpoint = self._process, self.endpoint
        return EngineStatus(
            name=self.spec.name,
            kind=self.spec.kind,
            state=self.state,
            base_url=endpoint.base_url if endpoint else None,
            socket_path=endpoint.socket_path if endpoint else None,
            pid=process.pid if process else None,
            generation=self._generation,
            in_flight=self.in_flight,
            rss_mb=round(self.rss_mb, 1),
            memory_mb=self.spec.memory_mb,
            uptime_s=time.monotonic() - self._begun if self._begun and self.state == "ready" else None,
            crashes=self._crashes,
            last_error=self._last_error,
            log=None if self.spec.url else self._log,
        )

    async def ready(self) -> Endpoint:
        """The endpoint, once it answers; starts the engine if it does not run. Raises Unavailable."""
        if self.state == "ready" and self.endpoint is not None:
            return self.endpoint
        wait_s = self._not_before - time.monotonic()
        if self._starting is None and wait_s > 2.0:
            raise Unavailable(
                f"The engine {self.spec.name!r} failed {len(self._failures)} times; it is tried again in "
                f"{wait_s:.0f} s. {self._last_error or ''}",
                code="engine_failed",
                retry_after_s=wait_s,
                hint=f"Its log is {self._log}.",
            )
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(max(0.0, wait_s)))
            self._starting.add_done_callback(_retrieve)
        starting = self._starting
        try:
            # Shielded: the start belongs to all who wait for it, not to the first.
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise Unavailable(
                    f"The engine {self.spec.name!r} was stopped while it started.", code="stopped", retry_after_s=1.0
                ) from None
            raise

    @property
    def at_rest(self) -> bool:
        """Stopped, and nobody has begun to start it."""
        return self.state == "stopped" and self._starting is None

    async def stop(self, grace_s: float = TERM_GRACE_S) -> None:
        """Ends the process; it stays stopped until `ready` is called again.

        Until then the state is `draining` and `ready` may not be called: a second process would begin beside this one.
        """
        self.state = "draining"
        # All at once: while one was waited for, the next could begin another.
        tasks: list[asyncio.Task[Any]] = [task for task in (self._restarter, self._watcher) if task is not None]
        tasks += [self._starting] if self._starting is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._restarter = self._starting = self._watcher = None
        if self._process is not None:
            await self._process.stop(grace_s)
        self._process = None
        self._forget_endpoint()
        self.state = "stopped"

    async def _start(self, wait_s: float) -> Endpoint:
        try:
            if wait_s:
                await asyncio.sleep(wait_s)
            await self._admit(self)
            self.state = "starting"
            self._generation += 1
            endpoint = self.endpoint = self._address()
            self._process = await EngineProcess.start(self._command(endpoint), self._variables(), self.spec.cwd, self._log)
            try:
                await self._until_healthy(endpoint, self._process)
            except BaseException:
                await self._process.kill()
                raise
        except BaseException as error:
            if self.state != "draining":  # else `stop` cancelled this, and goes on
                self.state = "stopped"
            self._forget_endpoint()
            if isinstance(error, Unavailable) and error.code == "engine_start_failed":
                self._failed(str(error))
            raise
        finally:
            self._starting = None
        self.state = "ready"
        self._begun = time.monotonic()
        self._watcher = asyncio.create_task(self._watch(endpoint, self._process))
        return endpoint

    def _address(self) -> Endpoint:
        name = self.spec.name
        if self.spec.uses_socket:
            path = self._run_dir / f"{self.spec.slug[-6:]}-{self._generation}.sock"
            path.unlink(missing_ok=True)
            return Endpoint(name, "http://engine", path, self._generation)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return Endpoint(name, f"http://127.0.0.1:{port}", None, self._generation)

    def _command(self, endpoint: Endpoint) -> list[str]:
        port = endpoint.base_url.rpartition(":")[2]
        return [part.replace("{socket}", str(endpoint.socket_path)).replace("{port}", port) for part in self.spec.command]

    def _variables(self) -> dict[str, str]:
        program = self.spec.command[:2] + tuple(part.partition(".")[0] for part in self.spec.command[2:3])
        is_own = program == (sys.executable, "-m", "noria")
        kept = environment_of_our_own() if is_own else environment_of_a_command()
        return {**self._environment, **kept, "PYTHONUNBUFFERED": "1", **self.spec.env}

    async def _until_healthy(self, endpoint: Endpoint, process: EngineProcess) -> None:
        deadline = time.monotonic() + self.spec.startup_timeout_s
        ended = asyncio.ensure_future(process.wait())
        try:
            async with probe_client(endpoint) as client:
                while True:
                    healthy, failure = await ask_health(client, endpoint, self.spec.health_path)
                    if healthy:
                        return
                    if failure is not None:
                        raise self._start_failed(f"could not load ({failure})")
                    await asyncio.wait((ended,), timeout=POLL_S)
                    if ended.done():
                        raise self._start_failed(f"ended with status {ended.result()}")
                    if time.monotonic() > deadline:
                        raise self._start_failed(f"was not ready after {self.spec.startup_timeout_s:.0f} s")
        finally:
            ended.cancel()

    def _start_failed(self, what: str) -> Unavailable:
        said = tail(self._log)
        return Unavailable(
            f"The engine {self.spec.name!r} {what} while starting." + (f" It said:\n{said}" if said else ""),
            code="engine_start_failed",
            retry_after_s=5.0,
            hint=f"Its log is {self._log}.",
        )

    async def _watch(self, endpoint: Endpoint, process: EngineProcess) -> None:
        """Waits for the process's end, kills it when it hangs, and has it restarted."""
        ended = asyncio.ensure_future(process.wait())
        healthy_at = time.monotonic()
        why = ""
        try:
            async with probe_client(endpoint) as client:
                while not ended.done():
                    await asyncio.wait((ended,), timeout=PROBE_S)
                    if ended.done():
                        break
                    healthy, failure = await ask_health(client, endpoint, self.spec.health_path, timeout_s=PROBE_S)
                    if healthy:
                        healthy_at = time.monotonic()
                    elif failure is not None:
                        why = f"failed ({failure}) and was ended"
                        await process.kill()
                    elif time.monotonic() - healthy_at > HANG_S:
                        why = f"had not answered for {HANG_S:.0f} s and was killed"
                        await process.kill()
        finally:
            ended.cancel()
        self._crashes += 1
        self._failed(f"The engine {self.spec.name!r} {why or f'ended with status {process.returncode}'}.")
        self._process = None
        self._forget_endpoint()
        self._restarter = asyncio.create_task(self._restart())

    async def _restart(self) -> None:
        """Brings it back without help, until it runs or is in a crash loop."""
        while (pause := self._not_before - time.monotonic()) <= LONGEST_BACKOFF_S:
            await asyncio.sleep(max(0.0, pause))
            try:
                await self.ready()
            except NoriaError as error:
                if error.code == "engine_start_failed":
                    continue
            return
        # Given up for a while: the first request after the pause tries again.

    def _failed(self, message: str) -> None:
        now = time.monotonic()
        if self._begun and now - self._begun > LOOP_WINDOW_S:
            self._failures.clear()
        self._failures.append(now)
        self._last_error = message
        self.state = "backing_off"
        if len(self._failures) == LOOP_FAILURES and now - self._failures[0] < LOOP_WINDOW_S:
            self._not_before = now + LOOP_PAUSE_S
        else:
            self._not_before = now + min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (len(self._failures) - 1))

    def _forget_endpoint(self) -> None:
        endpoint, self.endpoint = self.endpoint, None
        if endpoint is not None:
            endpoint.ended.set()
            if endpoint.socket_path is not None:
                endpoint.socket_path.unlink(missing_ok=True)


def _retrieve(task: asyncio.Task[Endpoint]) -> None:
    """Marks a start's failure as seen: whoever waited for it may have gone."""
    if not task.cancelled():
        task.exception()


def probe_client(endpoint: Endpoint, address: str | None = None) -> httpx.AsyncClient:
    """A client for health checks; no proxy of the environment stands between the server and its engines.

    `address`: connect there instead of looking the name up again.
    """
    if address is not None:
        return httpx.AsyncClient(transport=_Pinned(address), trust_env=False)
    uds = str(endpoint.socket_path) if endpoint.socket_path else None
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=uds), trust_env=False)


class _Pinned(httpx.AsyncHTTPTransport):
    """Connects to one address; `Host` and the certificate's name stay those of the URL."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "sni_hostname": request.url.host}
        request.url = request.url.copy_with(host=self._address)
        return await super().handle_async_request(request)


async def is_healthy(client: httpx.AsyncClient, endpoint: Endpoint, path: str, timeout_s: float = 5.0) -> bool:
    return (await ask_health(client, endpoint, path, timeout_s))[0]


async def ask_health(client: httpx.AsyncClient, endpoint: Endpoint, path: str, timeout_s: float = 5.0) -> tuple[bool, str | None]:
    """Whether it can work, and why it never will if it says so: `{"status": "failed", "error": …}`, as Noria's own engines do."""
    try:
        answer = await client.get(f"{endpoint.base_url.rstrip('/')}{path}", timeout=timeout_s)
    except httpx.HTTPError:
        return False, None
    if answer.status_code == 200:
        return True, None
    try:
        said: Any = answer.json()
    except ValueError:
        return False, None
    failed = isinstance(said, dict) and said.get("status") == "failed"
    return False, str(said.get("error") or "no reason given") if failed else None
