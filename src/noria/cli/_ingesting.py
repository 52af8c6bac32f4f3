"""Ingestion as the client does it: what the store has is compared with the disk, the difference is sent and watched.

Each file of a store carries two attributes, `path` and `sha256`, by which a later run knows it. The server indexes in durable
jobs: whatever ends this process, they go on, and the next run takes up where this one was.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from noria.errors import NoriaError, NotFound

from ._api import Api
from ._command import target
from ._connection import connect
from ._file_choice import Choice, Found, LocalFile, find_files, printable
from ._show import note, print_json, progress

__all__ = ["Plan", "Result", "ingest", "run_ingest"]

_BATCH = 50
_POLL_S = 0.5
_FEW = 20
Attributes = Mapping[str, str | float | bool]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be in which store."""

    store: str
    found: Found
    attributes: Attributes = field(default_factory=dict[str, str | float | bool])
    create: bool = True
    wait: bool = True
    prune: bool = False


@dataclass(slots=True)
class Result:
    """What became of each file, by path. `waiting` are those still being indexed when the command left."""

    store_id: str
    added: list[str] = field(default_factory=list[str])
    replaced: list[str] = field(default_factory=list[str])
    unchanged: list[str] = field(default_factory=list[str])
    removed: list[str] = field(default_factory=list[str])
    waiting: list[str] = field(default_factory=list[str])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    skipped: Counter[str] = field(default_factory=Counter[str])


@dataclass(slots=True)
class _Stored:
    """A file of the store that an earlier run put there."""

    file_id: str
    key: str
    sha256: str
    status: str
    error: str
    attributes: dict[str, Any]


def run_ingest(store: str, choice: Choice, *, attributes: Attributes, create: bool, wait: bool, prune: bool) -> None:
    """The command: ingests, and says what became of it. Exit code 1 when a file failed."""
    import typer

    with connect() as api:
        found = find_files(choice, api.get("/v1/noria/status")["file_extensions"])
        result = ingest(api, Plan(store, found, attributes, create, wait, prune))
        if result.waiting and not api.lasting:
            note("Indexing goes on when the server runs next (noria up).")
    if target().json:
        print_json(as_json(result))
    else:
        report(result)
    if result.failed:
        raise typer.Exit(1)


def ingest(api: Api, plan: Plan) -> Result:
    """Sends what is new or changed, waits, and takes out what was replaced or (with `prune`) is gone."""
    store = _store(api, plan)
    result = Result(store["id"], skipped=plan.found.skipped, failed=dict(plan.found.unreadable))
    run = _Run(api, plan, f"/v1/vector_stores/{store['id']}", result)
    try:
        run.send()
        if plan.wait:
            run.watch()
    except KeyboardInterrupt:
        where = "on the server" if api.lasting else "when the server runs next (noria up)"
        note(f"Interrupted. What was sent is indexed {where}; run the same command again to see it through.")
        raise
    run.settle()
    return result


def _store(api: Api, plan: Plan) -> dict[str, Any]:
    store = api.find(f"/v1/vector_stores/{quote(plan.store, safe='')}")
    if store is not None:
        return store
    if not plan.create or plan.store.startswith("vs_"):
        raise NotFound(f"There is no vector store {plan.store!r}.", hint="`noria stores list` shows them.")
    note(f"Creating the vector store {plan.store}.")
    return api.post("/v1/vector_stores", {"name": plan.store})


class _Run:
    """One run over one store. `pending` are the files being indexed, by id."""

    def __init__(self, api: Api, plan: Plan, base: str, result: Result) -> None:
        self._api, self._plan, self._base, self._result = api, plan, base, result
        self._pending: dict[str, str] = {}
        self._files = f"{base}/files"
        self._busy = bool(self._jobs())  # else what is in progress belongs to a job that was cancelled: it starts over
        self._current_sha256: dict[str, str] = {}
        self._by_key: dict[str, list[_Stored]] = defaultdict(list)
        for stored in self._stored():
            self._by_key[stored.key].append(stored)

    def _stored(self) -> Iterator[_Stored]:
        for row in self._api.pages(self._files):
            attributes = row["attributes"] or {}
            key, sha256 = attributes.get("path"), attributes.get("sha256")
            if isinstance(key, str) and isinstance(sha256, str):
                error = (row["last_error"] or {}).get("message", "")
                yield _Stored(row["id"], key, sha256, row["status"], error, attributes)

    def send(self) -> None:
        """Uploads and attaches, a batch at a time, so that indexing begins while the rest is still being read."""
        files = self._plan.found.files
        batch: list[dict[str, Any]] = []
        with progress() as bar:
            task = bar.add_task("Sending", total=len(files), detail="")
            for file in files:
                bar.update(task, detail=printable(file.path).rpartition("/")[2])
                if entry := self._entry(file):
                    batch.append(entry)
                if len(batch) >= _BATCH:
                    self._attach(batch)
                    batch = []
                bar.advance(task)
            self._attach(batch)

    def _entry(self, file: LocalFile) -> dict[str, Any] | None:
        """What to attach for a file; None where the store has it, or it cannot be read or sent."""
        name = printable(file.path)
        try:
            sha256 = self._current_sha256[file.key] = file.sha256()
            known = self._by_key[file.key]
            same = next((stored for stored in known if stored.sha256 == sha256), None)
            attributes = {**self._plan.attributes, "path": file.key, "sha256": sha256}
            if same is not None and (same.status == "completed" or (same.status == "in_progress" and self._busy)):
                self._keep(same, attributes, name)
                return None
            file_id = same.file_id if same is not None else self._api.upload(file.path)["id"]
        except OSError as error:
            self._result.failed[name] = error.strerror or str(error)
            return None
        except UnicodeError:
            self._result.failed[name] = "its name is not UTF-8"
            return None
        except NoriaError as error:
            if error.status in {401, 403} or error.status >= 500:
                raise  # the next file would fare no better
            self._result.failed[name] = str(error)
            return None
        (self._result.replaced if any(stored.status == "completed" for stored in known) else self._result.added).append(name)
        if same is None:
            known.append(_Stored(file_id, file.key, sha256, "in_progress", "", attributes))
        else:
            same.status = "in_progress"
        self._pending[file_id] = name
        return {"file_id": file_id, "attributes": attributes}

    def _keep(self, stored: _Stored, attributes: dict[str, Any], name: str) -> None:
        if stored.attributes != {**stored.attributes, **attributes}:
            self._api.post(f"{self._files}/{stored.file_id}", {"attributes": {**stored.attributes, **attributes}})
        if stored.status == "in_progress":
            self._pending[stored.file_id] = name
            self._result.added.append(name)
        else:
            self._result.unchanged.append(name)

    def _attach(self, batch: Sequence[Mapping[str, Any]]) -> None:
        if batch:
            self._api.post(f"{self._base}/file_batches", {"files": list(batch)})

    def watch(self) -> None:
        """Waits until every pending file is indexed or has failed."""
        if not self._pending:
            return
        total, waiting = len(self._pending), list(self._pending)
        with progress() as bar:
            task = bar.add_task("Indexing", total=total, detail="")
            while True:
                begun = time.monotonic()
                jobs = self._jobs()
                # Of the whole store, which is cheap to ask; who adds to it beside us is not waited for.
                left = self._api.get(self._base)["file_counts"]["in_progress"]
                bar.update(task, completed=max(total - left, 0), detail=_current_file(jobs))
                if not left or self._are_done(waiting) or not jobs:  # without a job, what is left will stay so: `settle` says it
                    return
                time.sleep(max(_POLL_S, 3 * (time.monotonic() - begun)))

    def _are_done(self, waiting: list[str]) -> bool:
        """Whether none of these files is in progress any more; those that are not leave the list. The last attached is indexed
        last, as a rule: while it waits, one look is enough."""
        if self._in_progress(waiting[-1]):
            return False
        if len(waiting) <= _FEW:
            waiting[:] = [file_id for file_id in waiting[:-1] if self._in_progress(file_id)]
        else:
            states = {stored.file_id: stored.status for stored in self._stored()}
            waiting[:] = [file_id for file_id in waiting if states.get(file_id) == "in_progress"]
        return not waiting

    def _in_progress(self, file_id: str) -> bool:
        row = self._api.find(f"{self._files}/{file_id}")
        return row is not None and row["status"] == "in_progress"

    def _jobs(self) -> list[dict[str, Any]]:
        """The jobs that index files of this store, running ones first."""
        found: list[dict[str, Any]] = []
        for status in ("queued", "running"):  # asked for in a job's own order: one that starts meanwhile is not missed
            rows = self._api.pages("/v1/noria/jobs", kind="ingest", status=status)
            found = [job for job in rows if job["subject"] == self._result.store_id] + found
        return found

    def settle(self) -> None:
        """Books what the server made of the files, then takes out predecessors and, with `prune`, what is gone."""
        states = {row.file_id: row for row in self._stored()}
        for file_id, name in self._pending.items():
            state = states.get(file_id)
            if state is not None and state.status == "completed":
                continue
            for names in (self._result.added, self._result.replaced):
                if name in names:
                    names.remove(name)
            if state is not None and state.status == "in_progress":
                self._result.waiting.append(name)
            else:
                self._result.failed[name] = (state.error if state else "") or (state.status if state else "it was taken out")
        self._drop_predecessors(states)
        if self._plan.prune:
            self._prune(states)

    def _drop_predecessors(self, states: Mapping[str, _Stored]) -> None:
        by_key: dict[str, list[_Stored]] = defaultdict(list)
        for stored in states.values():
            by_key[stored.key].append(stored)
        for key, sha256 in self._current_sha256.items():
            current = next((each for each in by_key[key] if each.sha256 == sha256 and each.status == "completed"), None)
            for stored in by_key[key] if current else ():
                if stored is not current:
                    self._take_out(stored)

    def _prune(self, states: Mapping[str, _Stored]) -> None:
        present = {file.key for file in self._plan.found.files}
        for stored in states.values():
            if stored.key not in present and self._plan.found.is_gone(stored.key):
                self._take_out(stored)
                self._result.removed.append(stored.key)

    def _take_out(self, stored: _Stored) -> None:
        """Out of this store; the upload itself goes too, unless another store has it."""
        self._api.delete(f"{self._files}/{stored.file_id}", delete_upload=True)


def _current_file(jobs: Sequence[Mapping[str, Any]]) -> str:
    return next((str(job["detail"]["file"]) for job in jobs if job["detail"].get("file")), "")


def as_json(result: Result) -> dict[str, Any]:
    return {
        "store": result.store_id,
        "added": result.added,
        "replaced": result.replaced,
        "unchanged": result.unchanged,
        "removed": result.removed,
        "waiting": result.waiting,
        "failed": [{"path": path, "error": error} for path, error in result.failed.items()],
        "skipped": dict(result.skipped),
    }


def report(result: Result) -> None:
    """A line of counts, then each failure with its reason."""
    counts = [
        (len(result.added), "added"),
        (len(result.replaced), "replaced"),
        (len(result.unchanged), "unchanged"),
        (len(result.removed), "removed"),
        (len(result.waiting), "still being indexed"),
        (len(result.failed), "failed"),
    ]
    print(", ".join(f"{number} {word}" for number, word in counts if number) or "No files of a supported type were found.")
    if result.skipped:
        kinds = ", ".join(f"{number} {kind}" for kind, number in result.skipped.most_common())
        note(f"Skipped, not supported or empty: {kinds}")
    for path, error in result.failed.items():
        note(f"  {_near(path)}: {error.removeprefix(f'{Path(path).name}: ')}")


def _near(path: str) -> str:
    """As one would write it here."""
    with contextlib.suppress(ValueError):
        return str(Path(path).relative_to(Path.cwd()))
    return path
