"""Backups of an instance's home: one tar file, consistent while the server runs.

SQLite files go in through SQLite's own online backup; blobs, fine-tuned models, the secret and `noria.toml` as they are.
What can be made again is left out: indexes, pulled weights, merged exports, the work files of trainings. A PostgreSQL
database is not in it (its own tools back it up better): the manifest says so, and restoring says so again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from noria import __version__
from noria.errors import Conflict, InvalidRequest

__all__ = ["Manifest", "backup", "restore"]

_MANIFEST = "noria-backup.json"
# The first two are copied before anything slow: a job's row and its steps should be of one moment.
_DATABASES = ("noria.db", "jobs.db", "traces.db")
_FILES = ("noria.toml", "secret.key")
_FOLDERS = ("blobs", "adapters", "models")

MAX_BYTES = 4 * 1024**4
MAX_MEMBERS = 20_000_000
"""What is restored at most: far beyond an instance's, so that only a file made to fill the disk meets it."""
_MAX_MANIFEST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds. `database` is `sqlite`, or `external` when PostgreSQL keeps the rows."""

    version: str
    created_at: int
    database: str
    members: tuple[str, ...]


def backup(home: Path, target: Path, *, external_database: bool = False) -> Manifest:
    """Writes `target` (a .tar.gz that only its owner may read), whole or not at all. Raises Conflict when it exists already."""
    if target.exists():
        raise Conflict(f"{target} exists already.", hint="Choose another name or remove it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(dir=target.parent) as scratch,
            os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
            tarfile.open(fileobj=file, mode="w:gz", compresslevel=3, dereference=True) as tar,
        ):
            wanted = [name for name in _DATABASES if name == "jobs.db" or not external_database]
            members = [name for name in wanted if (home / name).exists()]
            for name in members:
                _copy_sqlite(home / name, Path(scratch) / name)
            for name in members:
                tar.add(Path(scratch) / name, name)
                (Path(scratch) / name).unlink()
            for name in (*_FILES, *_FOLDERS):
                if (home / name).exists():
                    _add(tar, home, home / name)
                    members.append(name)
            manifest = Manifest(__version__, int(time.time()), "external" if external_database else "sqlite", tuple(members))
            data = json.dumps(asdict(manifest), indent=1).encode()
            info = tarfile.TarInfo(_MANIFEST)
            info.size, info.mtime = len(data), manifest.created_at
            tar.addfile(info, io.BytesIO(data))
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    return manifest


def restore(source: Path, home: Path) -> Manifest:
    """Unpacks a backup into an empty or missing `home`. Raises Conflict when it holds anything, InvalidRequest on a bad file.

    Nothing is taken from it but what `backup` writes; its databases and settings are the word of whoever made it.
    """
    if home.exists() and any(home.iterdir()):
        raise Conflict(f"{home} is not empty.", hint="Restore into a new folder: noria restore FILE --home DIR.")
    home.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".restore-", dir=home.parent))
    try:
        try:
            with tarfile.open(source, "r:gz") as tar:
                tar.extractall(staging, filter=_Limits().check)  # noqa: S202 - the filter lets nothing else through
            manifest = Manifest(**json.loads((staging / _MANIFEST).read_bytes()))
            _require(set(manifest.members) <= {*_DATABASES, *_FILES, *_FOLDERS}, "its list of members names others")
        except (tarfile.TarError, OSError, EOFError, ValueError, TypeError, KeyError) as error:
            raise InvalidRequest(f"{source} is not a backup of Noria: {error}.") from None
        for name in manifest.members:
            if not (staging / name).exists():
                raise InvalidRequest(f"{source} is incomplete: {name} is missing.")
        (staging / _MANIFEST).unlink()
        if home.exists():
            home.rmdir()
        staging.rename(home)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    home.chmod(0o700)
    return manifest


class _Limits:
    """What of an archive is unpacked: files and folders under the names that a backup has, no links, and not without end."""

    def __init__(self) -> None:
        self._members = self._bytes = 0

    def check(self, member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
        name = member.name
        if name in (_MANIFEST, *_DATABASES, *_FILES):
            _require(member.isreg(), f"{name} is no file")
        else:
            inside = name.startswith(tuple(f"{top}/" for top in _FOLDERS)) and ".." not in name.split("/")
            _require(inside or name in _FOLDERS, f"it holds {name!r}")
            _require(member.isdir() or (inside and member.isreg()), f"{name} is no file or folder")
        _require(name != _MANIFEST or member.size <= _MAX_MANIFEST_BYTES, f"{name} is too large")
        self._members += 1
        self._bytes += member.size
        _require(self._members <= MAX_MEMBERS, f"it holds more than {MAX_MEMBERS} files and folders")
        _require(self._bytes <= MAX_BYTES, f"it holds more than {MAX_BYTES} bytes")
        if member.size > shutil.disk_usage(folder).free:
            raise InvalidRequest(f"The disk of {folder} is too full for {name}.", hint="Restore into a folder on another disk.")
        return tarfile.data_filter(member, folder)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _copy_sqlite(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)) as reader,
        contextlib.closing(sqlite3.connect(target)) as writer,
    ):
        reader.backup(writer)


def _add(tar: tarfile.TarFile, home: Path, path: Path) -> None:
    """A file, or a folder with all in it, without what is under way (`tmp`, `.x.partial`) or deleted while we read."""
    if path.name.endswith(".partial"):
        return
    with contextlib.suppress(FileNotFoundError):
        tar.add(path, str(path.relative_to(home)), recursive=False)
    if path.is_dir() and path.name != "tmp":
        for entry in sorted(path.iterdir()):
            _add(tar, home, entry)
