"""Fixtures that every folder may use: a real server in a process of its own, on a temporary home."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

SCRIPTED_CHAT = {"id": "scripted", "task": "chat", "source": "engine", "engine": "scripted", "context_tokens": 4096}
SCRIPTED_EMBEDDING = {
    "id": "scripted-embedding",
    "task": "embedding",
    "source": "engine",
    "engine": "scripted",
    "dimensions": 64,
    "context_tokens": 4096,
}


@dataclass
class NoriaServer:
    """A running server. `client` has the owner's key."""

    home: Path
    process: subprocess.Popen[bytes]
    url: str
    token: str
    env: dict[str, str]

    def client(self, **options: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, **options)

    def openai(self, **options: Any) -> openai.OpenAI:
        options.setdefault("max_retries", 0)
        options.setdefault("api_key", self.token)
        return openai.OpenAI(base_url=f"{self.url}/v1", http_client=httpx.Client(trust_env=False), timeout=60, **options)

    def add_model(self, card: dict[str, Any]) -> None:
        with self.client() as client:
            client.post("/v1/noria/models", json=card).raise_for_status()

    def log(self) -> str:
        return (self.home / "server.log").read_text()

    def kill(self) -> None:
        """kill -9, as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def restart(self) -> NoriaServer:
        """The same home again, in a new process."""
        self.stop()
        return start_server(self.home, **self.env)


def start_server(home: Path, **env: str) -> NoriaServer:
    """Starts `python -m noria.server` on any free port and waits until it listens."""
    home.mkdir(parents=True, exist_ok=True)
    announced = home / "run" / "server.json"
    announced.unlink(missing_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NORIA_", "OPENAI_"))} | env
    if "NORIA_CACHE" in os.environ and "NORIA_CACHE" not in env:
        environment["NORIA_CACHE"] = os.environ["NORIA_CACHE"]
    log = (home / "server.log").open("ab")
    command = [sys.executable, "-m", "noria.server", "--home", str(home), "--port", "0"]
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    log.close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}:\n{(home / 'server.log').read_text()}")
        if announced.exists():
            with contextlib.suppress(json.JSONDecodeError, httpx.HTTPError):
                facts = json.loads(announced.read_text())
                if facts["pid"] == process.pid and httpx.get(f"{facts['url']}/health", trust_env=False).status_code == 200:
                    return NoriaServer(home, process, facts["url"], facts["token"], env)
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"the server did not listen in time:\n{(home / 'server.log').read_text()}")


@contextlib.contextmanager
def running_server(home: Path, *, scripted: bool = True, **env: str) -> Iterator[NoriaServer]:
    """A server for the time of a block; with `scripted`, chat and embedding models that need no weights are there."""
    if scripted:
        env = {"NORIA_CHAT_MODEL": "scripted", "NORIA_EMBEDDING_MODEL": "scripted-embedding", **env}
    server = start_server(home, **env)
    try:
        if scripted:
            server.add_model(SCRIPTED_CHAT)
            server.add_model(SCRIPTED_EMBEDDING)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaServer]:
    """One server with scripted models, shared by tests that leave it as they found it (or make their own stores)."""
    with running_server(tmp_path_factory.mktemp("noria")) as running:
        yield running


@pytest.fixture
def client(server: NoriaServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


# Debian's place, the newest version there is; a path that is not there where none is installed.
PG_BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda found: int(found.parent.name), default=Path("/nonexistent"))


class Postgres:
    """A PostgreSQL of one's own, on a Unix socket; it may be stopped and started again. Close it."""

    def __init__(self) -> None:
        self._home = Path(subprocess.check_output(["mktemp", "-d", "/tmp/noria-pg-XXXXXX"], text=True).strip())
        self._as_postgres: list[str] = []
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            owner = pwd.getpwnam("postgres")
            os.chown(self._home, owner.pw_uid, owner.pw_gid)
            self._as_postgres = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        self._run("initdb", "-U", "noria", "-A", "trust", "-E", "UTF8", "--locale=C")
        self.url = f"postgresql://noria@/postgres?host={self._home}"

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self._home} -c fsync=off"
        self._run("pg_ctl", "-w", "-l", str(self._home / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def pids(self) -> list[int]:
        """The server's process and its children."""
        first = int((self._home / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]

    def close(self) -> None:
        if (self._home / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def _run(self, program: str, *options: str) -> None:
        command = [*self._as_postgres, str(PG_BIN / program), "-D", str(self._home / "data"), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/tmp")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL for all tests of this session."""
    if not (PG_BIN / "initdb").exists():
        pytest.skip("PostgreSQL is not installed")
    server = Postgres()
    server.start()
    try:
        yield server.url
    finally:
        server.close()


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """The URL of an empty database on it."""
    from sqlalchemy import create_engine, text

    admin = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    name = f"t{os.urandom(6).hex()}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield postgres_url.replace("/postgres?", f"/{name}?")
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()
