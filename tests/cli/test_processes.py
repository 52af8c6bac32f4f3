"""Processes that commands start: servers for one call, `noria up`, logs, and that nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from noria.cli._connection import console_login
from noria.cli._prepare import print_banner
from noria.cli._processes import Child, LogFile
from noria.client import Announced
from noria.settings import load
from tests.conftest import running_server

from .conftest import Run

SCRIPTED = {"NORIA_CHAT_MODEL": "scripted", "NORIA_EMBEDDING_MODEL": "scripted-embedding"}


def wait_for(condition: object, timeout_s: float = 40.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def processes_of(home: Path) -> list[int]:
    found: list[int] = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if str(home) in " ".join(process.info["cmdline"] or ()) and process.info["pid"] != os.getpid():
            found.append(process.info["pid"])
    return found


def test_a_log_is_rotated_by_size(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "logs" / "x.log", max_bytes=100, keep=2)
    for number in range(20):
        log.write(f"line {number:03d} of the log\n".encode())
    log.close()
    names = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert names == ["x.log", "x.log.1", "x.log.2"]
    assert "line 019" in (tmp_path / "logs" / "x.log").read_text()
    assert all(path.stat().st_size <= 100 for path in (tmp_path / "logs").iterdir())


def test_a_child_keeps_its_last_words_and_is_stopped(tmp_path: Path) -> None:
    child = Child("test", ["-c", "print('hello', flush=True); import time; time.sleep(60)"], tmp_path / "x.log")
    wait_for(lambda: child.last_lines() == ["hello"])
    child.stop()
    assert child.exit_code() == -signal.SIGTERM
    assert (tmp_path / "x.log").read_text() == "hello\n"


def test_a_child_that_will_not_end_is_made_to(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    child = Child("test", ["-c", stubborn], tmp_path / "x.log")
    wait_for(lambda: child.last_lines() == ["on"])
    child.stop(timeout_s=0.3)
    assert child.exit_code() == -signal.SIGKILL


def test_a_server_is_started_for_a_call_and_stopped(run: Run, tmp_path: Path) -> None:
    result = run("stores", "list", "--home", tmp_path / "home", "--json")
    assert (result.exit_code, result.stdout) == (0, "[]\n")
    assert "starting one for this command" in result.stderr
    assert processes_of(tmp_path / "home") == []
    assert not (tmp_path / "home" / "run" / "server.json").exists()


def test_a_server_that_cannot_start_says_why(run: Run, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "noria.db").write_bytes(b"not a database" * 100)
    result = run("stores", "list", "--home", home)
    assert result.exit_code in {1, 2}
    assert "Traceback" not in result.stderr.partition("\n")[0]
    assert processes_of(home) == []


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose default models need no weights."""
    with running_server(tmp_path / "home"):
        pass
    return tmp_path / "home"


@contextlib.contextmanager
def up(home: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "noria.cli", "up", "--home", str(home), "--port", "0", "--no-console", *options]
    out = (home / "up.txt").open("w")
    process = subprocess.Popen(command, stdout=out, stderr=out, text=True, env={**os.environ, **SCRIPTED})
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        out.close()
        wait_for(lambda: processes_of(home) == [])


def said(home: Path) -> str:
    return (home / "up.txt").read_text()


def is_ready(home: Path) -> bool:
    return "Ctrl-C stops it." in said(home)


@pytest.mark.slow
def test_up_stands_tells_a_second_one_and_stops_in_order(run: Run, home: Path) -> None:
    with up(home) as process:
        wait_for(lambda: is_ready(home))
        assert "Noria is ready." in said(home)
        second = run("up", "--home", home)
        assert second.exit_code == 1
        assert "runs already" in second.stderr
        assert "http://127.0.0.1:" in second.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert processes_of(home) == []
        assert not (home / "run" / "server.json").exists()
        assert "Stopped." in said(home)


@pytest.mark.slow
def test_when_the_server_dies_up_says_so(home: Path) -> None:
    with up(home) as process:
        wait_for(lambda: is_ready(home))
        server = next(child.pid for child in psutil.Process(process.pid).children())
        os.kill(server, signal.SIGKILL)
        assert process.wait(30) == 1
        assert "The server has ended by itself (signal SIGKILL)." in said(home)


@pytest.mark.slow
def test_when_up_is_killed_its_server_goes_too(home: Path) -> None:
    with up(home) as process:
        wait_for(lambda: is_ready(home))
        process.kill()
        process.wait()
        wait_for(lambda: processes_of(home) == [])


@pytest.mark.parametrize("terminal", [False, True])
def test_the_owners_secret_is_shown_in_terminals_only(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    facts = {"url": "http://127.0.0.1:8421", "pid": os.getpid(), "token": "tok-of-owner"}
    with running_server(tmp_path) as server:
        (tmp_path / "run" / "console.json").write_text(json.dumps(facts))
        second = run("up", "--home", tmp_path)
    assert "Its console: http://127.0.0.1:8421" in second.stderr
    assert "tok-of-owner" not in second.output
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    address = console_login(tmp_path, sys.stdout)
    running = Announced(server.url, server.token, server.process.pid)
    print_banner(load({"home": tmp_path}).settings, running, address, keys=True)
    shown = capsys.readouterr().out
    assert ("/enter?token=tok-of-owner" in shown) is terminal
    assert ("Sign in there with an API key" in shown) is not terminal


def test_a_taken_port_is_named(run: Run, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("serve", "--home", tmp_path, "--port", port)
    assert result.exit_code == 2
    assert f"Cannot listen on 127.0.0.1:{port}" in result.stderr
