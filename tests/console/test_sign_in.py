"""Who gets the owner's rights in the console: a real console on loopback, before a small API that may ask for keys."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from noria.console._visitors import Visitors, is_direct
from tests.console.conftest import Instance


@dataclass
class Place:
    home: Path
    api: str
    state: dict[str, bool]
    instance: Instance

    def browser(self) -> httpx.Client:
        return httpx.Client(base_url=self.instance.url, trust_env=False, timeout=20)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("home")
    state = {"keys": False, "slow": False}
    app = FastAPI()

    @app.get("/v1/noria/status")
    async def status(request: Request) -> JSONResponse:
        if state["slow"]:
            await asyncio.sleep(6)
        if state["keys"] and request.headers.get("authorization") not in ("Bearer owner", "Bearer sk-noria-mine"):
            return JSONResponse({"error": {"message": "No key.", "type": "authentication_error", "code": "invalid_api_key"}}, 401)
        return JSONResponse({"keys_required": state["keys"]})

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    (home / "run").mkdir()
    (home / "run" / "server.json").write_text(json.dumps({"url": url, "token": "owner", "pid": os.getpid()}))
    made = Instance(home)
    try:
        made.start("console")
        yield Place(home, url, state, made)
    finally:
        for name in list(made.processes):
            made.stop(name)
        server.should_exit = True
        thread.join()


def leads_to_sign_in(answer: httpx.Response) -> bool:
    return answer.is_redirect and answer.headers["location"].startswith("/sign-in")


def test_without_keys_this_machine_needs_no_token(place: Place) -> None:
    place.state["keys"] = False
    with place.browser() as browser:
        assert browser.get("/settings").status_code == 200


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "via"])
@pytest.mark.parametrize("keys", [False, True])
def test_whoever_comes_through_a_proxy_signs_in(place: Place, header: str, keys: bool) -> None:
    place.state["keys"] = keys
    with place.browser() as browser:
        assert leads_to_sign_in(browser.get("/settings", headers={header: "127.0.0.1"}))
        token = place.instance.facts("console")["token"]
        browser.get("/enter", params={"token": token}, headers={header: "127.0.0.1"})
        assert leads_to_sign_in(browser.get("/settings", headers={header: "127.0.0.1"}))
        browser.get("/enter", params={"token": token})  # and what was granted here is not carried there
        assert browser.get("/settings").status_code == 200
        assert leads_to_sign_in(browser.get("/settings", headers={header: "127.0.0.1"}))


def test_once_keys_exist_the_console_lends_its_rights_only_to_who_holds_its_address(place: Place) -> None:
    place.state["keys"] = True
    announced = place.home / "run" / "console.json"
    assert announced.stat().st_mode & 0o777 == 0o600
    with place.browser() as stranger, place.browser() as owner:
        assert leads_to_sign_in(stranger.get("/settings"))
        assert leads_to_sign_in(stranger.get("/"))
        assert "expired" in stranger.get("/enter", params={"token": "wrong"}).headers["location"]
        assert leads_to_sign_in(stranger.get("/settings"))
        entered = owner.get("/enter", params={"token": json.loads(announced.read_text())["token"]})
        assert entered.status_code == 200
        assert entered.headers["cache-control"] == "no-store"
        assert owner.get("/settings").status_code == 200
        assert leads_to_sign_in(stranger.get("/settings"))
        cookie = next(header for header in entered.headers.get_list("set-cookie"))
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()


def test_a_slow_api_leaves_the_console_standing(place: Place) -> None:
    place.state.update(keys=True, slow=True)
    try:
        with place.browser() as visitor, place.browser() as proxied:
            shown = visitor.get("/settings")
            assert shown.status_code == 200
            assert "nav-link" in shown.text
            assert leads_to_sign_in(proxied.get("/settings", headers={"via": "1.1 proxy"}))
            assert visitor.get("/sign-in").status_code == 200
    finally:
        place.state["slow"] = False


@pytest.mark.parametrize("keys", [False, True])
def test_beyond_loopback_it_listens_only_once_a_key_exists(place: Place, tmp_path: Path, keys: bool) -> None:
    place.state["keys"] = keys
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "server.json").write_text((place.home / "run" / "server.json").read_text())
    command = [sys.executable, "-m", "noria.console", "--home", str(tmp_path), "--host", "0.0.0.0", "--port", "0"]
    if not keys:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "noria keys create" in done.stderr
        return
    other = Instance(tmp_path)
    try:
        url = other.start("console", "--host", "0.0.0.0")["url"]
        place.state["keys"] = False  # whatever the API would let pass by now
        with httpx.Client(base_url=url, trust_env=False, timeout=20) as browser:
            assert "token" not in other.facts("console")
            assert leads_to_sign_in(browser.get("/settings"))
    finally:
        other.stop("console")


def test_a_ticket_works_once_and_a_grant_ends_with_signing_out() -> None:
    visitors = Visitors()
    grant = visitors.admit("sk-noria-mine")
    ticket = visitors.ticket(grant)
    assert visitors.redeem(ticket, direct=False) == grant
    assert visitors.redeem(ticket, direct=False) is None
    assert visitors.key(grant) == "sk-noria-mine"
    owner = visitors.redeem(visitors.login_token, direct=True)
    assert visitors.redeem(visitors.login_token, direct=False) is None
    assert owner is not None
    assert visitors.is_owner(owner)
    assert not visitors.is_owner(grant)
    visitors.dismiss(owner)
    assert not visitors.is_owner(owner)
    assert visitors.redeem("", direct=True) is None
    assert visitors.redeem("ü", direct=True) is None


def test_only_this_machine_without_a_proxy_is_direct() -> None:
    assert is_direct("127.0.0.1", {})
    assert is_direct("::1", {})
    assert not is_direct(None, {})
    assert not is_direct("10.0.0.5", {})
    assert not is_direct("127.0.0.1", {"x-forwarded-for": "127.0.0.1"})
