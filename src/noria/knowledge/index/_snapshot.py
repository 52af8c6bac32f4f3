"""An index's folder on disk: appended rows, a graph, and a manifest that makes them true in one step.

The manifest (size and CRC-32 of each file) is replaced by rename after all else is on the disk, so that after a crash
either the old or the new state is there. Vectors and ids are only ever appended to, hence a save costs what changed.
Whatever does not match the manifest is RebuildNeeded: the database can build the index again.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from noria.errors import Conflict
from noria.knowledge.index._contract import Bools, Floats, Ints, RebuildNeeded

__all__ = ["Snapshot", "SnapshotFolder", "load_faiss"]

_FORMAT = 1
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Snapshot:
    vectors: Floats
    ids: Ints
    files: Ints
    alive: Bools
    graph: Any  # faiss index over the first `num_graph` vectors, or None
    num_graph: int


class SnapshotFolder:
    """One folder, held by one process."""

    def __init__(self, folder: Path, dimensions: int) -> None:
        self._folder = folder
        self._dimensions = dimensions
        self._manifest: dict[str, Any] | None = None
        self._saved_graph: Any = None
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder / "lock")

    def close(self) -> None:
        self._lock.close()

    def read(self) -> Snapshot | None:
        """The last snapshot, or None in a new folder."""
        path = self._folder / _MANIFEST
        if not path.exists():
            if any(self._folder.glob("vectors-*")):
                raise self._damaged("its manifest is missing")
            return None
        try:
            manifest = orjson.loads(path.read_bytes())
            if manifest["format"] != _FORMAT or manifest["dimensions"] != self._dimensions:
                raise self._damaged(f"it has format {manifest['format']}, {manifest['dimensions']} dimensions")
            contents = {name: self._checked(entry) for name, entry in manifest["files"].items()}
            vectors = np.frombuffer(contents["vectors"], np.float32).reshape(-1, self._dimensions).copy()
            snapshot = Snapshot(
                vectors=vectors,
                ids=np.frombuffer(contents["ids"], np.int64).copy(),
                files=np.frombuffer(contents["files"], np.int64).copy(),
                alive=np.frombuffer(contents["alive"], np.bool_).copy(),
                graph=_graph_from(contents.get("graph"), vectors[: manifest["num_graph"]]),
                num_graph=manifest["num_graph"],
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise self._damaged(str(error)) from error
        self._manifest, self._saved_graph = manifest, snapshot.graph
        return snapshot

    def write(self, snapshot: Snapshot) -> None:
        previous = self._manifest["files"] if self._manifest else {}
        generation = (self._manifest["generation"] if self._manifest else 0) + 1
        files = {
            "vectors": self._append("vectors", previous.get("vectors"), generation, _bytes(snapshot.vectors)),
            "ids": self._append("ids", previous.get("ids"), generation, _bytes(snapshot.ids)),
            "files": self._append("files", previous.get("files"), generation, _bytes(snapshot.files)),
            "alive": self._write_new("alive", generation, _bytes(snapshot.alive)),
        }
        if snapshot.graph is not None:
            unchanged = snapshot.graph is self._saved_graph and "graph" in previous
            files["graph"] = (
                previous["graph"] if unchanged else self._write_new("graph", generation, _graph_bytes(snapshot.graph))
            )
        manifest = {
            "format": _FORMAT,
            "dimensions": self._dimensions,
            "generation": generation,
            "num_graph": snapshot.num_graph,
            "files": files,
        }
        temporary = self._folder / (_MANIFEST + ".new")
        _write_through(temporary, [orjson.dumps(manifest)])
        temporary.replace(self._folder / _MANIFEST)
        _sync_folder(self._folder)
        self._manifest, self._saved_graph = manifest, snapshot.graph
        self._drop_all_but({entry["name"] for entry in files.values()})

    def _append(self, kind: str, previous: dict[str, Any] | None, generation: int, content: memoryview) -> dict[str, Any]:
        """Only what is new, if the old bytes are a prefix of the content (they are, until rows are compacted)."""
        if previous is not None and previous["bytes"] <= len(content):
            old = previous["bytes"]
            if zlib.crc32(content[:old]) == previous["crc"]:
                with (self._folder / previous["name"]).open("r+b") as file:
                    file.truncate(old)  # a crash may have left more than the manifest knows
                    file.seek(old)
                    file.write(content[old:])
                    file.flush()
                    os.fsync(file.fileno())
                return {"name": previous["name"], "bytes": len(content), "crc": zlib.crc32(content[old:], previous["crc"])}
        return self._write_new(kind, generation, content)

    def _write_new(self, kind: str, generation: int, content: memoryview) -> dict[str, Any]:
        name = f"{kind}-{generation}"
        _write_through(self._folder / name, [content])
        return {"name": name, "bytes": len(content), "crc": zlib.crc32(content)}

    def _checked(self, entry: dict[str, Any]) -> bytes:
        with (self._folder / entry["name"]).open("rb") as file:
            content = file.read(entry["bytes"])
        if len(content) != entry["bytes"] or zlib.crc32(content) != entry["crc"]:
            raise self._damaged(f"{entry['name']} is torn")
        return content

    def _drop_all_but(self, names: set[str]) -> None:
        for path in self._folder.iterdir():
            if path.name.split("-")[0] in ("vectors", "ids", "files", "alive", "graph") and path.name not in names:
                path.unlink(missing_ok=True)

    def _damaged(self, why: str) -> RebuildNeeded:
        return RebuildNeeded(
            f"The vector index in {self._folder} cannot be used: {why}.", hint="It is rebuilt from the database."
        )


def load_faiss() -> Any:
    """The module, imported on first use (it takes a fifth of a second) and untyped: its stubs miss what is used here."""
    import faiss

    return faiss


def _locked(path: Path) -> IO[bytes]:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise Conflict(
            f"The index in {path.parent} is open in another process.", hint="Only one server may use a home at a time."
        ) from error
    return file


def _bytes(array: Any) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _graph_bytes(graph: Any) -> memoryview:
    """The links only: the vectors are in a file of their own."""
    faiss = load_faiss()
    writer = faiss.VectorIOWriter()
    faiss.write_index(graph, writer, faiss.IO_FLAG_SKIP_STORAGE)
    return _bytes(faiss.vector_to_array(writer.data))


def _graph_from(content: bytes | None, vectors: Floats) -> Any:
    if content is None:
        return None
    faiss = load_faiss()
    reader = faiss.VectorIOReader()
    faiss.copy_array_to_vector(np.frombuffer(content, np.uint8), reader.data)
    graph = faiss.read_index(reader, faiss.IO_FLAG_SKIP_STORAGE)
    storage = faiss.IndexFlat(graph.d, faiss.METRIC_INNER_PRODUCT)
    storage.add(vectors)
    if int(graph.ntotal) != len(vectors):
        raise ValueError("the graph and the vectors do not belong together")
    storage.this.disown()
    graph.storage = storage
    graph.own_fields = True
    return graph


def _write_through(path: Path, parts: list[Any]) -> None:
    with path.open("wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
