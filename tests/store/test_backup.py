"""Backups taken while the server writes, restored into a new home."""

from __future__ import annotations

import io
import json
import shutil
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


def archive(path: Path, *members: tarfile.TarInfo, names: tuple[str, ...] = ()) -> Path:
    """A backup by hand: its manifest and then whatever is given, each file of its size in zeros."""
    manifest = json.dumps({"version": "0", "created_at": 0, "database": "sqlite", "members": names}).encode()
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("noria-backup.json")
        info.size = len(manifest)
        tar.addfile(info, io.BytesIO(manifest))
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


@pytest.mark.parametrize(
    "given",
    [
        member("engine.py"),
        member("run/server.json"),
        member("noria.toml/x"),
        member("./../noria.toml"),
        member("blobs/../engine.py"),
        member("blobs"),
        member("noria.db", tarfile.DIRTYPE),
        member("blobs/link", tarfile.SYMTYPE, link="../secret.key"),
        member("blobs/link", tarfile.LNKTYPE, link="noria-backup.json"),
        member("blobs/pipe", tarfile.FIFOTYPE),
        member("blobs/null", tarfile.CHRTYPE),
    ],
    ids=lambda given: f"{given.name}-{given.type!r}",
)
def test_restoring_takes_out_only_what_a_backup_holds(tmp_path: Path, given: tarfile.TarInfo) -> None:
    with pytest.raises(InvalidRequest, match="is not a backup of Noria"):
        restore(archive(tmp_path / "evil.tar.gz", given), tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.tar.gz"]


def test_restoring_stops_at_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "one.tar.gz", *(member(f"blobs/{number}", size=100) for number in range(10)))
    monkeypatch.setattr(_backup, "MAX_BYTES", 1000)
    with pytest.raises(InvalidRequest, match="1000 bytes"):
        restore(path, tmp_path / "new")
    monkeypatch.setattr(_backup, "MAX_BYTES", 10_000)
    monkeypatch.setattr(_backup, "MAX_MEMBERS", 10)
    with pytest.raises(InvalidRequest, match="10 files"):
        restore(path, tmp_path / "new")
    monkeypatch.setattr(_backup, "MAX_MEMBERS", 11)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 99))  # type: ignore[attr-defined]
    with pytest.raises(InvalidRequest, match="disk"):
        restore(path, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["one.tar.gz"]


def test_a_manifest_names_nothing_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        restore(archive(tmp_path / "evil.tar.gz", names=("/etc/passwd",)), tmp_path / "new")


def test_linked_files_go_in_as_files(tmp_path: Path) -> None:
    """Weights share their bytes by hard links, and a large folder may lie on another disk."""
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    (home / "models" / "a.bin").write_text("a")
    (home / "models" / "b.bin").hardlink_to(home / "models" / "a.bin")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "blob").write_text("x")
    (home / "blobs").symlink_to(tmp_path / "far")
    backup(home, tmp_path / "one.tar.gz")
    restore(tmp_path / "one.tar.gz", tmp_path / "again")
    assert [(tmp_path / "again/models" / name).read_text() for name in ("a.bin", "b.bin")] == ["a", "a"]
    assert (tmp_path / "again/blobs/blob").read_text() == "x"
    assert not (tmp_path / "again/blobs").is_symlink()


def test_a_backup_never_overwrites(tmp_path: Path) -> None:
    home: Any = tmp_path / "home"
    home.mkdir()
    backup(home, tmp_path / "one.tar.gz")
    with pytest.raises(Conflict):
        backup(home, tmp_path / "one.tar.gz")
    assert not list(tmp_path.glob("*.part"))
