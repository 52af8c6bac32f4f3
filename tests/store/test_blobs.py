"""Blobs: named by their content, whole or not there."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.errors import NotFound, PayloadTooLarge
from noria.store import Blobs


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        await asyncio.sleep(0)
        yield piece


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=2000), max_size=6))
def test_what_goes_in_comes_out(tmp_path: Path, given_pieces: list[bytes]) -> None:
    async def check() -> None:
        blobs = Blobs(str(tmp_path))
        data = b"".join(given_pieces)
        ref = await blobs.put(pieces(*given_pieces))
        assert ref == (hashlib.sha256(data).hexdigest(), len(data)) == await blobs.put(data)
        assert await blobs.get(ref.sha256) == data == b"".join(blobs.pieces(ref.sha256))

    asyncio.run(check())


async def test_the_same_content_at_once_is_one_whole_file(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    data = os.urandom(300_000)
    refs = await asyncio.gather(*[blobs.put(pieces(data[:100_000], data[100_000:])) for _ in range(20)])
    assert len(set(refs)) == 1
    assert files(tmp_path) == [refs[0].sha256]
    assert await blobs.get(refs[0].sha256) == data


async def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await blobs.put(broken())
    with pytest.raises(PayloadTooLarge):
        await blobs.put(pieces(b"123", b"456"), max_bytes=5)
    waiting = asyncio.ensure_future(blobs.put(_never()))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert files(tmp_path) == []


async def _never() -> AsyncIterator[bytes]:
    yield b"begun"
    await asyncio.Event().wait()


async def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    ref = await blobs.put(b"kept")
    torn, written = tmp_path / "tmp" / "torn", tmp_path / "tmp" / "being-written"
    torn.write_bytes(b"half a fi")
    os.utime(torn, (1000, 1000))
    written.write_bytes(b"by a job that was taken up again")
    await blobs.sweep(2000)
    assert files(tmp_path) == sorted([ref.sha256, "being-written"])
    await blobs.sweep(1e11)
    assert files(tmp_path) == [ref.sha256]
    await blobs.sweep(1e11)
    assert await blobs.put(b"more")


async def test_old_blobs_are_found_in_a_folder_only(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    old, new = await blobs.put(b"old"), await blobs.put(b"new")
    os.utime(blobs.path(old.sha256), (1000, 1000))
    assert blobs.put_before(2000) == {old.sha256}
    assert blobs.put_before(1e11) == {old.sha256, new.sha256}
    assert Blobs("memory://blobs").put_before(1e11) == set()


async def test_absent_blobs(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    await blobs.delete("0" * 64)
    assert not await blobs.exists("0" * 64)
    with pytest.raises(NotFound):
        await blobs.get("0" * 64)
