"""A real server and a real console on a temporary home, and a real Chromium in front of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

CHROMIUM = Path("/usr/bin/chromium")
LAUNCH = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@dataclass
class Instance:
    home: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *options: str) -> dict[str, Any]:
        """Starts `server` or `console` and waits until it says where it listens."""
        announced = self.home / "run" / f"{name}.json"
        environment = {**os.environ, "NORIA_LOG_LEVEL": "warning", "NORIA_ALLOW_ENGINE_COMMANDS": "true"}
        command = [sys.executable, "-m", f"noria.{name}", "--home", str(self.home), "--port", "0", *options]
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + 60
        while not announced.exists():
            if self.processes[name].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.home / f"{name}.log").read_text())
            time.sleep(0.1)
        return self.facts(name)

    def facts(self, name: str) -> dict[str, Any]:
        return json.loads((self.home / "run" / f"{name}.json").read_text())

    def stop(self, name: str) -> None:
        process = self.processes.pop(name)
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def client(self) -> httpx.Client:
        facts = self.facts("server")
        return httpx.Client(base_url=facts["url"], headers={"authorization": f"Bearer {facts['token']}"}, timeout=90)

    @property
    def url(self) -> str:
        return self.facts("console")["url"]

    def enter(self, page: Any) -> None:
        """Signs a fresh visitor in as the owner: other tests may have made keys."""
        page.goto(f"{self.url}/enter?token={self.facts('console')['token']}")
        page.wait_for_url(f"{self.url}/")


@pytest.fixture(scope="session")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    made = Instance(tmp_path_factory.mktemp("home"))
    made.start("server")
    try:
        made.start("console")
        yield made
    finally:
        for name in list(made.processes):
            made.stop(name)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=LAUNCH)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, instance: Instance) -> Iterator[Any]:
    """A page of a fresh visitor, English. Fails the test if anything left loopback or a script failed."""
    context = chromium.new_context(base_url=instance.url, viewport={"width": 1440, "height": 900}, locale="en-US")
    page = context.new_page()
    left: list[str] = []
    failed: list[str] = []
    page.set_default_timeout(20_000)
    page.on("request", lambda request: None if stays(request.url) else left.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    instance.enter(page)
    yield page
    context.close()
    assert left == []
    assert failed == []


def stays(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in {"data", "blob", "about"} or parts.hostname == "127.0.0.1"
