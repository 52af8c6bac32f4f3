"""Backups taken while the server writes, restored into a new home."""

from __future__ import annotations

import io
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from noria.errors import Conflict, InvalidRequest
from noria.store import _backup, backup, restore
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


def test_fine_tuned_models_and_the_secret_are_in_it_and_nobody_else_reads_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("adapters/ftjob-1/adapter.safetensors", "models/ftjob-2/openvino_model.bin", "secret.key", "noria.toml"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    (home / "adapters/.ftjob-3.partial").mkdir()
    for left_out in ("indexes", "exports", "training", "logs", "run"):
        (home / left_out).mkdir()
    manifest = backup(home, tmp_path / "one.tar.gz")
    assert set(manifest.members) == {"adapters", "models", "secret.key", "noria.toml"}
    assert (tmp_path / "one.tar.gz").stat().st_mode & 0o777 == 0o600
    restore(tmp_path / "one.tar.gz", tmp_path / "again")
    assert (tmp_path / "again/adapters/ftjob-1/adapter.safetensors").read_text() == "adapters/ftjob-1/adapter.safetensors"
    assert (tmp_path / "again/models/ftjob-2/openvino_model.bin").read_text() == "models/ftjob-2/openvino_model.bin"
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["adapters", "models", "noria.toml", "secret.key"]
    assert not list((tmp_path / "again").rglob("*.partial"))


def test_rows_and_the_steps_of_jobs_are_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("noria.db", "jobs.db", "traces.db"):
        (home / name).touch()
    copied: list[str] = []
    add = tarfile.TarFile.add

    def copy(source: Path, target: Path) -> None:
        copied.append(source.name)
        target.touch()

    def pack(tar: tarfile.TarFile, *args: Any, **options: Any) -> None:
        copied.append("packed")
        add(tar, *args, **options)

    monkeypatch.setattr(_backup, "_copy_sqlite", copy)
    monkeypatch.setattr(tarfile.TarFile, "add", pack)
    backup(home, tmp_path / "one.tar.gz")
    assert copied[:2] == ["noria.db", "jobs.db"]


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
