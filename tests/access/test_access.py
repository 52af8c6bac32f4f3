"""Keys, limits, stored credentials and addresses, without a server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.access import CredentialStore, Keys, RateLimiter, check_public_url
from noria.errors import (
    AuthenticationFailed,
    ConfigurationError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    Unavailable,
)
from noria.store import Cursor, Database, Project


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(f"sqlite:///{tmp_path / 'noria.db'}")
    async with opened.write() as session:
        session.add(Project(id="proj_other", name="other"))
    yield opened
    await opened.aclose()


def _on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("noria.db*"))


async def test_the_first_key_shuts_the_door_for_good(database: Database) -> None:
    keys = Keys(database)
    assert (await keys.authenticate(None)).key_id is None
    issued = await keys.create("one", scopes=["inference"])
    for wrong in (None, "", "sk-noria-wrong", issued.secret + "x", issued.row.digest):
        with pytest.raises(AuthenticationFailed):
            await keys.authenticate(wrong)
    caller = await keys.authenticate(issued.secret)
    caller.require("inference")
    for scope in ("data", "traces", "admin"):
        with pytest.raises(PermissionDenied):
            caller.require(scope)  # type: ignore[arg-type]
    await keys.revoke(caller.project_id, issued.row.id)
    with pytest.raises(AuthenticationFailed):
        await keys.authenticate(issued.secret)
    with pytest.raises(AuthenticationFailed):
        await Keys(database).authenticate(None)  # after a restart too


async def test_keys_are_not_in_the_database(database: Database, tmp_path: Path) -> None:
    issued = await Keys(database).create("one")
    stored = _on_disk(tmp_path)
    assert issued.secret.encode() not in stored
    assert issued.secret[20:].encode() not in stored


async def test_a_key_expires(database: Database) -> None:
    keys = Keys(database)
    issued = await keys.create("brief", expires_at=int(time.time()) - 1)
    with pytest.raises(AuthenticationFailed, match="expired"):
        await keys.authenticate(issued.secret)


async def test_projects_do_not_see_each_others_keys(database: Database) -> None:
    keys = Keys(database)
    mine, other = await keys.create("mine"), await keys.create("other", project_id="proj_other")
    assert [row.id for row in (await keys.list("proj_other", Cursor())).data] == [other.row.id]
    with pytest.raises(NotFound):
        await keys.revoke("proj_other", mine.row.id)
    assert (await keys.authenticate(other.secret)).project_id == "proj_other"


async def test_a_key_works_while_its_use_cannot_be_noted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(database)
    issued = await keys.create("one")

    def full() -> None:
        raise Unavailable("The disk of the database is full.", code="disk_full")

    monkeypatch.setattr(database, "write", full)
    assert (await keys.authenticate(issued.secret)).key_id == issued.row.id


async def test_credentials_are_encrypted_and_kept_apart(database: Database, tmp_path: Path) -> None:
    store = CredentialStore(database, tmp_path)
    await store.put("openai", "sk-very-secret")
    assert await store.get("openai") == "sk-very-secret"
    assert await store.get("openai", "proj_other") is None
    assert b"sk-very-secret" not in _on_disk(tmp_path)
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600
    assert await CredentialStore(database, tmp_path).get("openai") == "sk-very-secret"
    with pytest.raises(ConfigurationError, match="cannot be decrypted"):
        await CredentialStore(database, tmp_path, "another secret").get("openai")
    await store.put("openai", "sk-changed")
    assert await store.get("openai") == "sk-changed"
    await store.delete("openai")
    assert await store.get("openai") is None


@given(st.integers(1, 600), st.lists(st.floats(0, 30), max_size=200))
def test_a_limit_is_never_passed(per_minute: int, waits: list[float]) -> None:
    """Over any time, at most a minute's worth at once and the rate beside it."""
    now = 0.0
    limiter = RateLimiter(lambda: now)
    passed = 0
    for wait in waits:
        now += wait
        try:
            limiter.take("k", per_minute)
        except RateLimited:
            continue
        passed += 1
    assert passed <= per_minute + now * per_minute / 60 + 1e-6


def test_waiting_as_told_is_enough() -> None:
    now = 0.0
    limiter = RateLimiter(lambda: now)
    for _ in range(5):
        limiter.take("k", 5)
    with pytest.raises(RateLimited) as error:
        limiter.take("k", 5)
    now += (error.value.retry_after_s or 0) + 1e-6
    limiter.take("k", 5)
    limiter.take("another", 5)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "http://[::1]:8080",
        "http://169.254.169.254/latest",
        "http://[64:ff9b::a9fe:a9fe]",
        "http://[fe80::1%25eth0]",
        "http://0",
        "http://u:p@8.8.8.8",
        "ftp://8.8.8.8",
        "http://8.8.8.8:99999",
        "http://",
        "http://[::ffff:10.0.0.1]",
        "http://224.0.0.1",
        "http://[::1",
        "http://a]b",
        "http://[v1.x]",
        "http://a\x00b",
        f"http://{'a' * 70}.test",
    ],
)
async def test_addresses_that_are_not_public(url: str) -> None:
    with pytest.raises(InvalidRequest):
        await check_public_url(url, param="base_url")


@pytest.mark.parametrize("url", ["http://8.8.8.8", "https://[2606:4700::1111]:8443/v1", "http://[64:ff9b::808:808]/"])
async def test_public_addresses(url: str) -> None:
    assert await check_public_url(url, param="base_url")
