"""LoRA adapters of tuned models: brought into the running engine of their base, and out of it again.

An engine forgets its adapters when it restarts (its `generation` goes up); they are brought back when next asked for. The
engine itself may put one aside for another: it knows the folder and reads it again.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from noria.engines import Endpoint
from noria.errors import InvalidRequest, NotFound, Unavailable

from ._cards import ModelCard
from ._wire import WireClient, engine_target

__all__ = ["AdapterLoader", "adapter_path"]

LOAD_TIMEOUT_S = 180.0
"""The first adapter has the engine compile its graph once more; on a busy machine that takes a while."""


def adapter_path(home: Path, folder: str) -> Path:
    """A tuned model's folder, which must lie below the home. Raises InvalidRequest."""
    path = (home / folder).resolve()
    if Path(folder).is_absolute() or not path.is_relative_to(home.resolve()) or path == home.resolve():
        raise InvalidRequest(f"{folder!r} does not lie below the server's home.", param="adapter")
    return path


class AdapterLoader:
    """Remembers which engine, in which of its lives, has which adapter."""

    def __init__(self, client: WireClient, home: Path) -> None:
        self._client, self._home = client, home
        self._loaded: dict[tuple[str, int], set[tuple[str, str]]] = {}

    async def ensure(self, card: ModelCard, endpoint: Endpoint) -> None:
        """The adapter is in that engine when this returns. Raises Unavailable where its files cannot be served."""
        assert card.adapter is not None
        life, adapter = (endpoint.name, endpoint.generation), (card.id, card.adapter)
        if adapter in self._loaded.get(life, ()):
            return
        body = {"name": card.id, "folder": str(adapter_path(self._home, card.adapter))}
        try:
            await self._client.ask(engine_target(endpoint, "/v1/noria/adapters"), body, timeout_s=LOAD_TIMEOUT_S)
        except (InvalidRequest, NotFound) as error:
            raise Unavailable(
                f"The adapter of {card.id} cannot be served: {error.message}",
                code="adapter_unusable",
                hint="Its files are damaged or gone, or were made for another base model.",
            ) from error
        for old in [known for known in self._loaded if known[0] == endpoint.name and known != life]:
            del self._loaded[old]
        self._loaded.setdefault(life, set()).add(adapter)

    def forget(self, card: ModelCard, endpoint: Endpoint) -> None:
        """The engine said that it does not know this adapter."""
        self._loaded.get((endpoint.name, endpoint.generation), set()).discard((card.id, card.adapter or ""))

    async def unload(self, card: ModelCard, endpoint: Endpoint) -> None:
        """Takes it out of that engine, where it is in it."""
        self.forget(card, endpoint)
        try:
            await self._client.ask(engine_target(endpoint, f"/v1/noria/adapters/{quote(card.id)}"), method="DELETE")
        except NotFound:
            return

    def has(self, card: ModelCard, engine: str) -> bool:
        """Whether a life of this engine was given the adapter."""
        adapter = (card.id, card.adapter or "")
        return any(adapter in known for (name, _), known in self._loaded.items() if name == engine)
