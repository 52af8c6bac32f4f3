"""Backups taken while the server writes, restored into a new home."""

from __future__ import annotations

import io
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from noria.errors import Conflict, InvalidRequest
from noria.store import backup, restore
from tests.conftest import running_server, start_server


@pytest.mark.slow
def test_a_backup_under_load_restores_to_a_working_home(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server:
        client = server.openai()
        kept = [client.files.create(file=(f"{i}.txt", io.BytesIO(f"kept {i}".encode())), purpose="assistants") for i in range(5)]
        stop = threading.Event()
        failures: list[BaseException] = []

        def write() -> None:
            try:
                while not stop.is_set():
                    made = client.files.create(file=("x.txt", io.BytesIO(str(id(made_by)).encode())), purpose="assistants")
                    client.files.delete(made.id)
            except BaseException as error:
                failures.append(error)

        made_by = object()
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(3):
                manifest = backup(server.home, tmp_path / f"{number}.tar.gz")
        finally:
            stop.set()
            writer.join()
        assert not failures
        assert {"noria.db", "blobs"} <= set(manifest.members)
    restore(tmp_path / "2.tar.gz", tmp_path / "again")
    assert not list((tmp_path / "again" / "blobs").glob("tmp/*"))
    again = start_server(tmp_path / "again", **server.env)
    try:
        client = again.openai()
        for number, file in enumerate(kept):
            assert client.files.content(file.id).read() == f"kept {number}".encode()
    finally:
        again.stop()


def test_restoring_refuses_what_is_not_a_backup(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "bad.tar.gz").write_bytes(b"not a tar")
    with pytest.raises(Conflict):
        restore(tmp_path / "bad.tar.gz", tmp_path / "full")
    with pytest.raises(InvalidRequest):
        restore(tmp_path / "bad.tar.gz", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped"])
def test_a_hostile_backup_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(InvalidRequest):
        restore(tmp_path / "evil.tar.gz", tmp_path / "deep" / "new")
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path.parent / "escaped").exists()


def test_a_backup_never_overwrites(tmp_path: Path) -> None:
    home: Any = tmp_path / "home"
    home.mkdir()
    backup(home, tmp_path / "one.tar.gz")
    with pytest.raises(Conflict):
        backup(home, tmp_path / "one.tar.gz")
    assert not list(tmp_path.glob("*.part"))
