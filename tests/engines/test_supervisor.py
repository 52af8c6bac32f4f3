"""The supervisor with real processes: a tiny engine on a Unix socket or a port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import httpx
import psutil
import pytest

from noria.engines import Endpoint, EngineSpec, Supervisor, _engine, _supervisor
from noria.errors import ConfigurationError, NotFound, Unavailable

TINY = str(Path(__file__).with_name("tiny_engine.py"))


def spec(name: str = "tiny", *options: str, port: bool = False, **settings: object) -> EngineSpec:
    where = ("--port", "{port}") if port else ("--uds", "{socket}")
    settings.setdefault("memory_mb", 64)
    return EngineSpec(name, (sys.executable, "-I", "-S", TINY, *where, *options), **settings)  # type: ignore[arg-type]


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncGenerator[Supervisor]:
    made = Supervisor(tmp_path / "run", 1024)
    yield made
    await made.aclose()


async def get(endpoint: Endpoint, path: str) -> str:
    uds = str(endpoint.socket_path) if endpoint.socket_path else None
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=uds), timeout=10, trust_env=False) as client:
        return (await client.get(endpoint.base_url + path)).raise_for_status().text


async def until(condition, timeout_s: float = 8.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("port", [False, True])
async def test_an_engine_starts_when_it_is_leased_and_stays(supervisor: Supervisor, port: bool) -> None:
    async with supervisor.lease(spec(port=port)) as endpoint:
        first = await get(endpoint, "/v1/pid")
        (status,) = supervisor.status()
        assert (status.state, status.in_flight, status.pid) == ("ready", 1, int(first))
        assert status.rss_mb > 1
    async with supervisor.lease(spec(port=port)) as endpoint:
        assert await get(endpoint, "/v1/pid") == first
    assert supervisor.status()[0].in_flight == 0


async def test_it_waits_until_the_engine_is_healthy_and_starts_it_once(supervisor: Supervisor) -> None:
    slow = spec("slow", "--delay", "0.5")

    async def pid() -> str:
        async with supervisor.lease(slow) as endpoint:
            return await get(endpoint, "/v1/pid")

    assert len(set(await asyncio.gather(*(pid() for _ in range(8))))) == 1
    assert supervisor.status()[0].generation == 1


async def test_the_sockets_are_private(supervisor: Supervisor) -> None:
    async with supervisor.lease(spec()) as endpoint:
        assert endpoint.socket_path is not None
        assert endpoint.socket_path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_start_that_fails_shows_what_the_engine_said(supervisor: Supervisor) -> None:
    with pytest.raises(Unavailable, match="no such model: xyz") as caught:
        await supervisor.warm(spec("bad", "--fail", "no such model: xyz"))
    assert caught.value.retry_after_s
    assert supervisor.status()[0].state == "backing_off"


async def test_a_command_that_does_not_exist_is_named(supervisor: Supervisor) -> None:
    with pytest.raises(Unavailable, match="/no/such/server"):
        await supervisor.warm(EngineSpec("none", ("/no/such/server", "{port}")))


async def test_an_engine_that_is_never_ready_is_ended(supervisor: Supervisor) -> None:
    with pytest.raises(Unavailable, match="was not ready"):
        await supervisor.warm(spec("late", "--delay", "60", startup_timeout_s=0.4))
    assert supervisor.status()[0].pid is None or gone(supervisor.status()[0].pid or 0)


async def test_a_crash_loop_is_left_alone_for_a_while(supervisor: Supervisor) -> None:
    bad = spec("bad", "--fail", "broken")
    retry_after = 0.0
    for _ in range(20):
        with pytest.raises(Unavailable) as caught:
            await supervisor.warm(bad)
        retry_after = caught.value.retry_after_s or 0.0
        if retry_after > 30:
            break
        if caught.value.code == "engine_failed":
            await asyncio.sleep(min(retry_after, 1.0))
    assert retry_after > 30
    assert "broken" in str(caught.value)


async def test_kill_9_under_load_gives_unavailable_and_the_engine_comes_back_alone(supervisor: Supervisor) -> None:
    tiny = spec()
    await supervisor.warm(tiny)
    (before,) = supervisor.status()

    async def ask() -> object:
        try:
            async with supervisor.lease(tiny) as endpoint:
                return await get(endpoint, "/v1/slow?s=5")
        except Unavailable as error:
            return error

    asked = [asyncio.create_task(ask()) for _ in range(10)]
    await until(lambda: supervisor.status()[0].in_flight == 10)
    await asyncio.sleep(0.1)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    for answer in await asyncio.gather(*asked):
        assert isinstance(answer, Unavailable)
        assert answer.code == "engine_ended"
        assert answer.retry_after_s
    await until(lambda: supervisor.status()[0].state == "ready")
    (after,) = supervisor.status()
    assert (after.generation, after.crashes, after.in_flight) == (2, 1, 0)
    async with supervisor.lease(tiny) as endpoint:
        assert endpoint.generation == 2
        assert await get(endpoint, "/v1/pid") == str(after.pid)


async def test_a_failed_restart_is_tried_again(supervisor: Supervisor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    flaky = spec("flaky", "--fail", "not yet", "--fail-if", str(gate))
    await supervisor.warm(flaky)
    gate.touch()
    os.kill(supervisor.status()[0].pid or 0, signal.SIGKILL)
    await until(lambda: "not yet" in (supervisor.status()[0].last_error or ""))
    gate.unlink()
    await until(lambda: supervisor.status()[0].state == "ready")


async def test_an_engine_that_hangs_is_killed_and_comes_back(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_engine, "PROBE_S", 0.2)
    monkeypatch.setattr(_engine, "HANG_S", 0.5)
    await supervisor.warm(spec())
    os.kill(supervisor.status()[0].pid or 0, signal.SIGSTOP)
    await until(lambda: supervisor.status()[0].generation == 2 and supervisor.status()[0].state == "ready", 20)
    assert "had not answered" in (supervisor.status()[0].last_error or "")


async def test_engines_that_outgrow_the_budget_together_lose_the_idle_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_supervisor, "TEND_S", 0.1)
    supervisor = Supervisor(tmp_path, 200)
    await supervisor.warm(spec("a", memory_mb=20))
    async with supervisor.lease(spec("b", memory_mb=20)) as endpoint:
        await get(endpoint, "/v1/grow?mb=220")
        await until(lambda: supervisor.status()[0].state == "stopped")
        assert supervisor.status()[1].state == "ready"
    await supervisor.aclose()


async def test_the_idle_engine_used_longest_ago_is_evicted(supervisor: Supervisor) -> None:
    a, b, c = (spec(name, memory_mb=400) for name in "abc")
    for each in (a, b, a, c):  # a was used after b
        await supervisor.warm(each)
    states = {status.name: status.state for status in supervisor.status()}
    assert states == {"a": "ready", "b": "stopped", "c": "ready"}


async def test_a_leased_engine_is_not_evicted_but_waited_for(supervisor: Supervisor) -> None:
    a, b = spec("a", memory_mb=800), spec("b", memory_mb=800)
    order: list[str] = []

    async def second() -> None:
        async with supervisor.lease(b):
            order.append("b runs")

    async with supervisor.lease(a) as endpoint:
        task = asyncio.create_task(second())
        assert await get(endpoint, "/v1/slow?s=0.4") == "ok"
        order.append("a has answered")
    await task
    assert order == ["a has answered", "b runs"]


async def test_an_engine_that_cannot_fit_is_refused(supervisor: Supervisor) -> None:
    with pytest.raises(ConfigurationError, match="needs 4096 MiB"):
        await supervisor.warm(spec(memory_mb=4096))


async def test_stop_drains_first(supervisor: Supervisor) -> None:
    tiny = spec()

    async def ask() -> str:
        async with supervisor.lease(tiny) as endpoint:
            return await get(endpoint, "/v1/slow?s=0.5")

    asked = asyncio.create_task(ask())
    await until(lambda: any(status.in_flight for status in supervisor.status()))
    await supervisor.stop("tiny")
    assert asked.done()
    assert asked.result() == "ok"
    assert supervisor.status()[0].state == "stopped"
    with pytest.raises(NotFound):
        await supervisor.stop("unknown")


async def test_a_drain_has_an_end(supervisor: Supervisor) -> None:
    tiny = spec(drain_s=0.2)

    async def ask() -> str:
        async with supervisor.lease(tiny) as endpoint:
            return await get(endpoint, "/v1/slow?s=30")

    asked = asyncio.create_task(ask())
    await until(lambda: any(status.in_flight for status in supervisor.status()))
    await supervisor.stop("tiny")
    with pytest.raises(Unavailable):
        await asked


async def test_a_changed_spec_replaces_the_engine(supervisor: Supervisor) -> None:
    async with supervisor.lease(spec()) as endpoint:
        first = await get(endpoint, "/v1/pid")
    async with supervisor.lease(spec(env={"COLOUR": "blue"})) as endpoint:
        assert await get(endpoint, "/v1/pid") != first
        assert await get(endpoint, "/v1/env?name=COLOUR") == "blue"
    assert gone(int(first))


def engines_alive() -> list[int]:
    """The tiny engines that descend from this process."""
    found: list[int] = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if TINY in words and "_launcher.py" not in " ".join(words) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@contextlib.asynccontextmanager
async def asking(supervisor: Supervisor, *specs: EngineSpec) -> AsyncGenerator[set[str]]:
    """Clients that ask without a pause, one of each spec; what they get is the ids of the processes that answered."""
    answered: set[str] = set()

    async def ask(wanted: EngineSpec) -> None:
        while True:
            with contextlib.suppress(Unavailable):
                async with supervisor.lease(wanted) as endpoint:
                    answered.add(await get(endpoint, "/v1/pid"))
            await asyncio.sleep(0.01)

    clients = [asyncio.create_task(ask(each)) for each in specs]
    await until(lambda: answered)
    try:
        yield answered
    finally:
        for client in clients:
            client.cancel()
        for ended in await asyncio.gather(*clients, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError), ended


async def test_an_engine_stopped_under_traffic_ends_before_the_next_begins(supervisor: Supervisor) -> None:
    slow_to_end = spec("tiny", "--linger", "0.4", drain_s=0.1)
    async with asking(supervisor, *[slow_to_end] * 4) as answered:
        for _ in range(3):
            await asyncio.gather(supervisor.stop("tiny"), supervisor.stop("tiny"))
            assert len(engines_alive()) <= 1
            seen = len(answered)
            await until(lambda seen=seen: len(answered) > seen)
    (status,) = supervisor.status()
    assert status.state == "ready"
    assert engines_alive() == [status.pid]
    assert status.socket_path is not None
    assert status.socket_path.exists()


async def test_a_spec_that_changes_under_traffic_leaves_one_process(supervisor: Supervisor) -> None:
    old, new = (spec("tiny", "--linger", "0.4", env={"COLOUR": colour}) for colour in ("red", "blue"))

    async def colour(after_s: float) -> str:
        await asyncio.sleep(after_s)
        async with supervisor.lease(new) as endpoint:
            return await get(endpoint, "/v1/env?name=COLOUR")

    await supervisor.warm(old)
    assert await asyncio.gather(*(colour(0.1 * number) for number in range(8))) == ["blue"] * 8
    (status,) = supervisor.status()
    assert (status.generation, status.state) == (1, "ready")
    assert engines_alive() == [status.pid]


async def test_a_stop_whose_caller_goes_away_is_finished(supervisor: Supervisor) -> None:
    async with supervisor.lease(spec()):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(supervisor.stop("tiny"), 0.05)
    async with asyncio.timeout(8):
        await supervisor.warm(spec())
    (status,) = supervisor.status()
    assert status.generation == 2
    assert engines_alive() == [status.pid]


async def test_a_stop_in_the_middle_of_a_start_leaves_no_process(supervisor: Supervisor) -> None:
    for pause_s in (0.0, 0.01, 0.02, 0.05, 0.1):
        starting = asyncio.create_task(supervisor.warm(spec()))
        await asyncio.sleep(pause_s)
        if supervisor.status():
            await supervisor.stop("tiny")
        with contextlib.suppress(Unavailable):
            await starting
        await supervisor.stop("tiny")
    await until(lambda: not engines_alive(), 3)


async def test_closing_under_traffic_leaves_no_process(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "run", 1024)
    async with asking(supervisor, *[spec("tiny", "--linger", "0.2")] * 4, spec("other")):
        await supervisor.aclose()
        await asyncio.sleep(0.2)
        assert engines_alive() == []


async def test_engines_do_not_see_norias_secrets(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NORIA_SECRET_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    async with supervisor.lease(spec()) as endpoint:
        assert await get(endpoint, "/v1/env?name=NORIA_SECRET_KEY") == ""
        assert await get(endpoint, "/v1/env?name=OPENAI_API_KEY") == ""
        assert await get(endpoint, "/v1/env?name=CUDA_VISIBLE_DEVICES") == "1"


async def test_a_url_engine_is_checked_and_not_started(supervisor: Supervisor) -> None:
    async with supervisor.lease(spec(port=True)) as endpoint:
        far = EngineSpec("far", url=endpoint.base_url)
        async with supervisor.lease(far) as there:
            assert await get(there, "/v1/pid")
    with pytest.raises(Unavailable, match="does not answer"):
        await supervisor.warm(EngineSpec("dead", url="http://127.0.0.1:9"))


async def test_closing_ends_everything(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "run", 1024)
    async with supervisor.lease(spec()) as endpoint:
        child = int(await get(endpoint, "/v1/spawn"))
        socket_path = endpoint.socket_path
    pid = supervisor.status()[0].pid
    await supervisor.aclose()
    assert gone(pid or 0)
    assert gone(child), "a process that left the engine's group outlived it"
    assert socket_path is not None
    assert not socket_path.parent.exists()
    with pytest.raises(Unavailable):
        await supervisor.warm(spec())


@pytest.fixture
def short_path() -> Generator[Path]:
    """Sockets of a long run folder live elsewhere (see the next test)."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


async def test_a_long_run_folder_is_no_hindrance(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / ("long-" * 30), 1024)
    async with supervisor.lease(spec()) as endpoint:
        assert endpoint.socket_path is not None
        assert len(str(endpoint.socket_path)) <= 107
        assert endpoint.socket_path.parent.stat().st_mode & 0o777 == 0o700
        assert await get(endpoint, "/v1/pid")
    await supervisor.aclose()


def test_engines_die_with_a_killed_server_and_its_sockets_are_cleaned(short_path: Path) -> None:
    script = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_supervisor import spec, get
from noria.engines import Supervisor
async def main():
    supervisor = Supervisor(Path({str(short_path)!r}), 1024)
    async with supervisor.lease(spec()) as endpoint:
        print(await get(endpoint, "/v1/pid"), await get(endpoint, "/v1/spawn"), flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    server = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    pids = [int(word) for word in server.stdout.readline().split()]
    assert len(pids) == 2
    server.kill()
    server.wait()
    server.stdout.close()
    deadline = time.monotonic() + 5
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert list(short_path.glob("noria-engines-*"))

    async def again() -> None:
        supervisor = Supervisor(short_path, 1024)
        assert len(os.listdir(short_path)) == 2  # its own folder, and the logs  # noqa: PTH208
        await supervisor.aclose()

    asyncio.run(again())


def test_a_spec_says_where_to_listen() -> None:
    with pytest.raises(ConfigurationError, match="where to listen"):
        EngineSpec("x", ("serve",))
    with pytest.raises(ConfigurationError, match="either"):
        EngineSpec("x")


async def test_an_engine_that_says_that_it_failed_is_not_waited_for(supervisor: Supervisor) -> None:
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="out of vocabulary") as error:
        async with supervisor.lease(spec("broken", "--cannot", "a token is out of vocabulary")):
            pass
    assert error.value.code == "engine_start_failed"
    assert time.monotonic() - begun < 10
    (status,) = supervisor.status()
    assert status.state == "backing_off"
    assert status.pid is None or gone(status.pid)


async def test_a_far_engines_health_is_asked_where_its_name_led_when_it_was_checked(supervisor: Supervisor) -> None:
    """A name that would lead elsewhere by now (DNS rebinding) is not looked up again."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, supervisor.lease(EngineSpec("far", url=f"http://engine.invalid:{port}", address="127.0.0.1")) as endpoint:
        assert endpoint.base_url == f"http://engine.invalid:{port}"
    assert [line for line in asked[0].split("\r\n") if line.lower().startswith("host:")] == [f"Host: engine.invalid:{port}"]
