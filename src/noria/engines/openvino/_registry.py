"""Which adapters the worker knows and which of them are in memory.

Knows nothing about HTTP. A name leads to a folder; its weights are read when first wanted, checked whole, and only then
stacked beside the others in one assignment, so that no step sees half an adapter. Beyond `limit` the one unused for longest
leaves memory, not the list: it is read again when asked for. Methods that read block: call them from a thread.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noria.engines.openvino._adapter import CONFIG_NAME, WEIGHTS_NAME, Adapter, read_adapter
from noria.engines.openvino._runner import PagedModel
from noria.errors import Conflict, NotFound

__all__ = ["AdapterRegistry"]


@dataclass
class _Known:
    folder: Path
    stamp: tuple[int, ...]
    adapter: Adapter | None = None  # None: not in memory
    used_s: float = 0.0


class AdapterRegistry:
    """`base` is the name of the model itself, which no adapter may take."""

    def __init__(self, model: PagedModel, base: str, limit: int) -> None:
        self._model = model
        self._base = base
        self._limit = max(1, limit)
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> Adapter | None:
        """An adapter that is in memory. Never blocks."""
        known = self._known.get(name)
        if known is None or known.adapter is None:
            return None
        known.used_s = time.monotonic()
        return known.adapter

    def ensure(self, name: str) -> Adapter:
        """A known adapter, read again if it had to leave. Raises NotFound."""
        with self._lock:
            known = self._known.get(name)
            if known is None:
                raise NotFound(f"{name!r} is not served here, {self._base!r} is.", param="model", code="model_not_found")
            return self._in_memory(name, known)

    def load(self, name: str, folder: Path) -> Adapter:
        """Makes `name` mean the adapter in `folder`; at once if it does already. Raises InvalidRequest, Conflict."""
        if name == self._base:
            raise Conflict(f"{name!r} is the base model's own name.", param="name")
        with self._lock:
            stamp = _stamp(folder)
            known = self._known.get(name)
            if known is None or (known.folder, known.stamp) != (folder, stamp):
                fresh = _Known(folder, stamp, read_adapter(name, folder, self._model.modules))
                self._model.adapt()
                self._known[name] = known = fresh  # the old one has answered until here
                self._enter(known)
            return self._in_memory(name, known)

    def unload(self, name: str) -> bool:
        """Forgets an adapter; answers under way are finished with it. False if it was not known."""
        with self._lock:
            known = self._known.pop(name, None)
            if known is not None and known.adapter is not None:
                self._publish()
            return known is not None

    def listing(self) -> list[dict[str, Any]]:
        """What /v1/noria/adapters shows."""
        return [_shown(name, known) for name, known in sorted(self._known.items())]

    def _in_memory(self, name: str, known: _Known) -> Adapter:
        known.used_s = time.monotonic()
        if known.adapter is None:
            known.adapter = read_adapter(name, known.folder, self._model.modules)
            self._model.adapt()
            self._enter(known)
        return known.adapter

    def _enter(self, newcomer: _Known) -> None:
        """Stacks it beside the others; those unused for longest leave when they are too many."""
        loaded = [known for known in self._known.values() if known.adapter is not None and known is not newcomer]
        loaded.sort(key=lambda known: known.used_s)
        for known in loaded[: max(0, len(loaded) + 1 - self._limit)]:
            known.adapter = None
        newcomer.used_s = time.monotonic()
        self._publish()

    def _publish(self) -> None:
        adapters = [known.adapter for known in self._known.values() if known.adapter is not None]
        self._model.stack = self._model.stack_of(adapters) if adapters else None


def _stamp(folder: Path) -> tuple[int, ...]:
    """Changes when the adapter's files do."""
    facts: list[int] = []
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        path = folder / name
        if path.is_file():
            stat = path.stat()
            facts += [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    return tuple(facts)


def _shown(name: str, known: _Known) -> dict[str, Any]:
    adapter = known.adapter
    return {
        "object": "noria.adapter",
        "name": name,
        "folder": str(known.folder),
        "loaded": adapter is not None,
        "rank": adapter.rank if adapter else None,
        "num_parameters": adapter.num_parameters if adapter else None,
        "sha256": adapter.digest.hex() if adapter else None,
    }
