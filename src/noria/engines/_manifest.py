"""`noria-weights.json`: what a model's folder holds and what it was made of. Written last: where it is, the model is whole.

What an engine must know about the model is in files of the engine's own, which this one lists like any other.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from noria.engines._download import sha256_of
from noria.engines._recipes import Kind, Preparation

__all__ = ["MANIFEST", "FileRecord", "Manifest", "SourceRecord", "describe", "read_manifest", "write_manifest"]

MANIFEST = "noria-weights.json"


class SourceRecord(BaseModel):
    """A file as it was pulled; it stays in the folder's `source/` so that a later Noria can prepare it anew."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    name: str
    sha256: str
    size: int


class FileRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    sha256: str
    size: int


class Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    id: str
    kind: Kind
    sources: list[SourceRecord]
    preparation: Preparation
    prepared_with: int
    """The preparation's version; an older one is prepared anew from `source/`, without the network."""
    files: list[FileRecord]

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(file.size for file in self.files)


def describe(folder: Path) -> list[FileRecord]:
    """Every file under the folder, but the manifest."""
    return [
        FileRecord(path=str(path.relative_to(folder)), sha256=sha256_of(path), size=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    ]


def read_manifest(folder: Path, *, deep: bool = False) -> Manifest | None:
    """The manifest, if the folder holds all it says: by size, and with `deep` by hash. Else None."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        for file in manifest.files:
            path = folder / file.path
            if path.stat().st_size != file.size or (deep and sha256_of(path) != file.sha256):
                return None
    except (OSError, ValidationError):
        return None
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes it durably, after the files that it names are durable themselves."""
    for file in manifest.files:
        _sync(folder / file.path)
    path = folder / MANIFEST
    with path.open("wb") as out:
        out.write(manifest.model_dump_json(indent=1).encode())
        out.flush()
        os.fsync(out.fileno())
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
