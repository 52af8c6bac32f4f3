"""Which files of the disk are meant: paths become a sorted list of readable files of supported types, and counts of the rest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from noria.errors import InvalidRequest

__all__ = ["Choice", "Found", "LocalFile", "find_files", "path_attribute"]

_MAX_ATTRIBUTE = 512


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line says: paths, and how folders are walked."""

    paths: tuple[Path, ...]
    recursive: bool = True
    glob: str | None = None


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this disk; `key` is what its attribute `path` holds, by which it is found again."""

    path: Path
    key: str

    def sha256(self) -> str:
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while piece := file.read(1024 * 1024):
                digest.update(piece)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Found:
    """`skipped` counts files by what kept them out (an extension, or `empty`); a file whose key begins with one of
    `prefixes` and is not among `files` is gone."""

    files: tuple[LocalFile, ...]
    prefixes: tuple[str, ...]
    skipped: Counter[str] = field(default_factory=Counter[str])


def find_files(choice: Choice, extensions: Collection[str]) -> Found:
    """Raises InvalidRequest for a path that does not exist. A file given by name is taken whatever its type."""
    files: dict[str, LocalFile] = {}
    prefixes: list[str] = []
    skipped: Counter[str] = Counter()
    for given in choice.paths:
        path = given.expanduser()
        if not path.exists():
            raise InvalidRequest(f"{given} does not exist.")
        resolved = path.resolve()
        if resolved.is_dir():
            prefixes.append(str(resolved).rstrip("/") + "/")
            chosen = [file for file in _walk(resolved, choice) if _is_wanted(file, extensions, skipped)]
        else:
            chosen = [resolved]
        files |= {str(file): LocalFile(file, path_attribute(file)) for file in chosen}
    return Found(tuple(files[name] for name in sorted(files)), tuple(prefixes), skipped)


def _walk(folder: Path, choice: Choice) -> Iterator[Path]:
    """Hidden files and folders are left out, links to folders not followed (they may lead in circles)."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if choice.recursive and not entry.is_symlink():
                yield from _walk(entry, choice)
        elif entry.is_file() and (choice.glob is None or fnmatchcase(entry.name, choice.glob)):
            yield entry


def _is_wanted(file: Path, extensions: Collection[str], skipped: Counter[str]) -> bool:
    extension = file.suffix.lower().lstrip(".")
    if extension not in extensions:
        skipped[f".{extension}" if extension else "no extension"] += 1
        return False
    if file.stat().st_size == 0:
        skipped["empty"] += 1
        return False
    return True


def path_attribute(path: Path) -> str:
    """The path as an attribute may hold it: whole where it fits, else by its end and a hash."""
    text = str(path)
    if len(text) <= _MAX_ATTRIBUTE:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{digest}…{text[-(_MAX_ATTRIBUTE - len(digest) - 1) :]}"
