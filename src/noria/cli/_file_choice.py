"""Which files of the disk are meant: paths become a sorted list of readable files of supported types, and counts of the rest."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from noria.errors import InvalidRequest

__all__ = ["Choice", "Found", "LocalFile", "find_files", "path_attribute", "printable"]

_MAX_ATTRIBUTE = 512
_SHORTENED = re.compile(r"…[0-9a-f]{64}$")  # what `path_attribute` puts at the end of a long path


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


@dataclass(frozen=True)
class Found:
    """`skipped` counts files by what kept them out (an extension, or `empty`); `unreadable` are folders and files that could
    not be looked at, with the reason. `folders` are those that were walked; keys are relative to `root`, if they are at all."""

    files: tuple[LocalFile, ...]
    folders: tuple[Path, ...]
    skipped: Counter[str] = field(default_factory=Counter[str])
    unreadable: dict[str, str] = field(default_factory=dict[str, str])
    root: Path = Path("/")

    def is_gone(self, key: str) -> bool:
        """Whether a file known by this key lay in one of the folders and is there no more. One that the choice leaves out
        (a pattern, a type) is still there, and so is one that cannot be looked at."""
        path = self.root / key
        if not any(path != folder and path.is_relative_to(folder) for folder in self.folders):
            return False
        if _SHORTENED.search(key):
            return not self.unreadable and key not in self._long_keys
        return _is_missing(path)

    @cached_property
    def _long_keys(self) -> frozenset[str]:
        """The keys of all files in the folders whose paths do not fit an attribute."""
        paths = (Path(at, name) for folder in self.folders for at, _, names in os.walk(folder) for name in names)
        return frozenset(path_attribute(path) for path in paths if len(str(path)) > _MAX_ATTRIBUTE)


def _is_missing(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def find_files(choice: Choice, extensions: Collection[str]) -> Found:
    """Raises InvalidRequest for a path that does not exist. A file given by name is taken whatever its type."""
    files: dict[str, LocalFile] = {}
    folders: list[Path] = []
    walk = _Walk(choice, extensions)
    for given in choice.paths:
        resolved = _resolved(given)
        if resolved.is_dir():
            folders.append(resolved)
            chosen = list(walk.files(resolved))
        else:
            chosen = [resolved]
        files |= {str(file): LocalFile(file, path_attribute(file)) for file in chosen}
    return Found(tuple(files[name] for name in sorted(files)), tuple(folders), walk.skipped, walk.unreadable)


def _resolved(given: Path) -> Path:
    path = given.expanduser()
    try:
        return path.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidRequest(f"{given} does not exist.") from None
    except (OSError, RuntimeError) as error:  # a link that leads to itself is a RuntimeError
        raise InvalidRequest(f"{given} cannot be read: {_reason(error)}.") from None


class _Walk:
    """Files of folders, and what was left out on the way."""

    def __init__(self, choice: Choice, extensions: Collection[str]) -> None:
        self._choice, self._extensions = choice, extensions
        self.skipped: Counter[str] = Counter()
        self.unreadable: dict[str, str] = {}

    def files(self, folder: Path) -> Iterator[Path]:
        """Hidden files and folders are left out, links to folders not followed (they may lead in circles)."""
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            self.unreadable[printable(folder)] = _reason(error)
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                inside = entry.is_dir()
                wanted = not inside and self._is_wanted(entry)
            except (OSError, UnicodeError) as error:
                self.unreadable[printable(entry)] = _reason(error)
                continue
            if wanted:
                yield entry
            elif inside and self._choice.recursive and not entry.is_symlink():
                yield from self.files(entry)

    def _is_wanted(self, file: Path) -> bool:
        if not file.is_file() or not (self._choice.glob is None or fnmatchcase(file.name, self._choice.glob)):
            return False
        extension = file.suffix.lower().lstrip(".")
        if extension not in self._extensions:
            self.skipped[f".{extension}" if extension else "no extension"] += 1
            return False
        str(file).encode()  # a name that is not UTF-8 fits neither JSON nor a form
        if file.stat().st_size == 0:
            self.skipped["empty"] += 1
            return False
        return True


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "its name is not UTF-8"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def printable(path: Path) -> str:
    """The path as it can be shown, whatever its bytes."""
    return os.fsencode(path).decode("utf-8", "replace")


def path_attribute(path: Path) -> str:
    """The path as an attribute may hold it: whole where it fits, else its beginning and a hash."""
    text = str(path)
    if len(text) <= _MAX_ATTRIBUTE:
        return text
    digest = hashlib.sha256(os.fsencode(text)).hexdigest()
    return f"{text[: _MAX_ATTRIBUTE - len(digest) - 1]}…{digest}"
