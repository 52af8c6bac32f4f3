"""The one door: a name goes in, something that answers comes out."""

from __future__ import annotations

import asyncio
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from noria.access import CredentialStore, check_public_url
from noria.engines import EngineSpec, Supervisor, WeightsStore
from noria.errors import InvalidRequest, NotFound, Unavailable
from noria.messages import estimate_tokens, text_of
from noria.settings import Settings, provider_key
from noria.store import DEFAULT_PROJECT

from ._adapters import AdapterLoader, adapter_path
from ._cards import ModelCard
from ._catalogue import Catalogue, ProviderSpec, builtin_providers
from ._engine import EngineModel
from ._openai_compatible import OpenAICompatible
from ._protocol import Model
from ._provider_keys import ProviderKeys
from ._routes import Retrying, Route
from ._wire import WireClient, engine_target

__all__ = ["Hub", "Resolved"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The model behind a name; `alias` is the name asked for when it was an alias of the card's id."""

    model: Model
    card: ModelCard
    alias: str | None


class Hub:
    """Models of one instance. Wires cards to engines, providers and routes."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        supervisor: Supervisor,
        weights: WeightsStore,
        credentials: CredentialStore,
    ) -> None:
        self.catalogue, self.supervisor, self.weights = catalogue, supervisor, weights
        self._settings, self._keys = settings, ProviderKeys(credentials)
        self.client = WireClient()
        self.adapters = AdapterLoader(self.client, settings.home)

    async def resolve(self, name: str, project_id: str = DEFAULT_PROJECT) -> Resolved:
        """Raises NotFound with near names."""
        card, alias = await self.catalogue.find(name, project_id)
        return Resolved(self._build(card, project_id), card, alias)

    def _build(self, card: ModelCard, project_id: str) -> Model:
        """Made for each call, for it holds nothing: any name behind a provider's is one, and names can be made up."""
        if card.source == "engine":

            async def ready(card: ModelCard) -> EngineSpec:
                return await self.engine_spec(card, project_id)

            guarded = self.guards(card)
            return EngineModel(card, self.supervisor, self.client, ready, self.adapters, public_only=guarded)
        if card.source == "provider":
            return Retrying(self._provider(card, project_id))

        async def target(name: str) -> Model:
            return (await self.resolve(name, project_id)).model

        return Route(card, target)

    def _provider(self, card: ModelCard, project_id: str) -> OpenAICompatible:
        spec = builtin_providers()[card.provider or ""]
        base_url = self.base_url(card, spec)
        return OpenAICompatible(
            card,
            spec,
            self.client,
            base_url=base_url,
            credential=self._keys.of(card, spec, base_url, project_id).require,
            public_only=self.guards(card),
        )

    async def has_key(self, card: ModelCard, project_id: str) -> bool:
        """Whether a remote model has the key that it needs."""
        spec = builtin_providers()[card.provider or ""]
        try:
            key = self._keys.of(card, spec, self.base_url(card, spec), project_id)
        except InvalidRequest:  # nor an address
            return False
        return spec.keyless or await key.find() is not None

    def guards(self, card: ModelCard) -> bool:
        """Whether the card's address came from a caller, who may not point it at private ones."""
        asked = card.source == "provider" or card.engine == "url"
        return asked and card.base_url is not None and not self._settings.allow_private_urls

    @staticmethod
    def base_url(card: ModelCard, spec: ProviderSpec) -> str:
        """The card's own URL, else the provider's from the environment, else the catalogue's."""
        if card.base_url:
            return card.base_url
        if spec.base_url_env and (url := provider_key(spec.base_url_env)):
            return url.rstrip("/") + spec.base_url_suffix
        if spec.base_url is None:
            raise InvalidRequest(
                f"{spec.title} needs the address of your resource.",
                param="model",
                code="missing_base_url",
                hint=f"Set {spec.base_url_env} in the server's environment.",
            )
        return spec.base_url

    async def engine_spec(self, card: ModelCard, project_id: str = DEFAULT_PROJECT) -> EngineSpec:
        """How to run a local model, a tuned one in its base's engine. Raises Unavailable when its weights are not on disk."""
        if card.base is not None:
            base, _ = await self.catalogue.find(card.base, project_id)
            return await self.engine_spec(base, project_id)
        if card.engine == "url":
            address: str | None = None
            if self.guards(card):  # again, not only when it was added: a name may lead elsewhere by now
                address = (await check_public_url(card.base_url or "", param="base_url"))[0]
            return EngineSpec(name=card.id, url=card.base_url, health_path=card.health_path, address=address)
        directory: Path | None = None
        if card.folder is not None or card.weights is not None:
            directory = await self.prepared_folder(card, project_id)
        if card.engine == "command":
            assert card.command is not None
            command = tuple(part.replace("{model_dir}", str(directory or "")) for part in card.command)
        elif card.engine == "scripted":
            command = (sys.executable, "-m", "noria.engines.scripted", "--name", card.upstream_name, "--uds", "{socket}")
            command += ("--script", card.script) if card.script else ()
        else:
            module = "noria.engines.openvino" if card.engine == "openvino" else "noria.engines.embedding"
            command = (sys.executable, "-m", module, "--model", str(directory), "--name", card.upstream_name, "--uds", "{socket}")
            if self._settings.engine_threads:
                command += ("--threads", str(self._settings.engine_threads))
        return EngineSpec(name=card.id, command=command, health_path=card.health_path, memory_mb=card.memory_mb)

    def home_folder(self, folder: str) -> Path:
        """A folder that a card names, below the home."""
        return adapter_path(self._settings.home, folder)

    async def prepared_folder(self, card: ModelCard, project_id: str = DEFAULT_PROJECT) -> Path:
        """Where the prepared model of a card, or of its base, lies. Raises Unavailable when it is not on disk."""
        if card.base is not None:
            card, _ = await self.catalogue.find(card.base, project_id)
        folder = self.home_folder(card.folder) if card.folder else self.weights.find(card.weights or card.id)
        if folder is None:
            raise _missing(card)
        return folder

    async def warm(self, name: str, project_id: str = DEFAULT_PROJECT) -> None:
        """Loads what answers to a name, its adapter too, so that the first request is quick. Remote models need nothing."""
        card = (await self.resolve(name, project_id)).card
        if card.route is not None:
            for target in card.route.targets:
                await self.warm(target.model, project_id)
        elif card.source == "engine":
            async with self.supervisor.lease(await self.engine_spec(card, project_id)) as endpoint:
                if card.adapter is not None:
                    await self.adapters.ensure(card, endpoint)
                    # The first step with an adapter packs the weights once more: better now than for a user.
                    body = {"model": card.upstream_name, "prompt": "Hi", "max_tokens": 1, "temperature": 0}
                    await self.client.ask(engine_target(endpoint, "/v1/completions"), body, timeout_s=60.0)

    async def remove(self, name: str, project_id: str = DEFAULT_PROJECT) -> None:
        """Removes a model that was added: from the engine that runs it, its files if it was trained here, its card.

        The card goes last: interrupted, it can be removed again. Raises NotFound, or Conflict where something depends on it.
        """
        card = await self.catalogue.removable(name, project_id)
        await self._release(card, project_id)
        tuned = await self.catalogue.tuned(name, project_id)
        if tuned is not None and not await self.catalogue.shares_folder(tuned.folder):
            await asyncio.to_thread(shutil.rmtree, adapter_path(self._settings.home, tuned.folder), ignore_errors=True)
        await self.catalogue.remove(name, project_id)

    async def _release(self, card: ModelCard, project_id: str) -> None:
        running = {status.name for status in self.supervisor.status() if status.state == "ready"}
        if card.adapter is None:
            if card.source == "engine" and card.id in running:
                await self.supervisor.stop(card.id)
            return
        base, _ = await self.catalogue.find(card.base or "", project_id)
        if base.id in running:
            async with self.supervisor.lease(await self.engine_spec(base, project_id)) as endpoint:
                await self.adapters.unload(card, endpoint)

    async def state(self, card: ModelCard, project_id: str = DEFAULT_PROJECT) -> Literal["loaded", "ready", "missing_weights"]:
        """Of a local model: whether its engine runs (and has its adapter), could run, or lacks files."""
        try:
            base = card if card.base is None else (await self.catalogue.find(card.base, project_id))[0]
            whole = base.weights is None or self.weights.find(base.weights) is not None
            if base.folder is not None:
                whole = (self.home_folder(base.folder) / "noria-model.json").is_file()
            if card.adapter is not None:
                whole = whole and (self.home_folder(card.adapter) / "adapter_model.safetensors").is_file()
        except (InvalidRequest, NotFound):  # what it was made of is gone
            whole, base = False, card
        if not whole:
            return "missing_weights"
        running = {status.name for status in self.supervisor.status() if status.state == "ready"}
        if base.id not in running:
            return "ready"
        return "loaded" if card.adapter is None or self.adapters.has(card, base.id) else "ready"

    async def ask_engine(
        self, card: ModelCard, path: str, body: dict[str, Any], project_id: str = DEFAULT_PROJECT, *, timeout_s: float = 60.0
    ) -> Any:
        """A JSON call to an engine's own route (token counting)."""
        async with self.supervisor.lease(await self.engine_spec(card, project_id)) as endpoint:
            return await self.client.ask(engine_target(endpoint, path), body, timeout_s=timeout_s)

    async def count_tokens(self, card: ModelCard, given: dict[str, Any], project_id: str = DEFAULT_PROJECT) -> tuple[int, bool]:
        """Tokens of `{"text": …}` or `{"messages": …}`, and whether that is exact: remote models' are estimated."""
        if card.source == "engine" and card.engine in {"openvino", "scripted"}:
            counted = await self.ask_engine(card, "/v1/noria/tokenize", given, project_id)
            return int(counted["num_tokens"]), True
        return _estimate(given), False

    async def aclose(self) -> None:
        await self.client.aclose()


def _missing(card: ModelCard) -> Unavailable:
    return Unavailable(
        f"The weights of {card.id} are not on this machine yet.",
        code="weights_missing",
        hint=f"Run: noria models pull {card.id}",
    )


def _estimate(given: dict[str, Any]) -> int:
    """Four tokens of frame for each message, beside its text."""
    messages = given.get("messages") or ()
    text = given.get("text") or "".join(text_of(message.get("content")) for message in messages)
    return estimate_tokens(text) + 4 * len(messages)
