"""The one door: a name goes in, something that answers comes out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from noria.access import CredentialStore, check_public_url
from noria.engines import EngineSpec, Supervisor, WeightsStore
from noria.errors import InvalidRequest, Unavailable
from noria.messages import estimate_tokens, text_of
from noria.settings import Settings, provider_key
from noria.store import DEFAULT_PROJECT

from ._cards import ModelCard
from ._catalogue import Catalogue, ProviderSpec, builtin_providers
from ._engine import EngineModel
from ._openai_compatible import OpenAICompatible
from ._protocol import Model
from ._provider_keys import ProviderKeys
from ._routes import Retrying, Route
from ._wire import Target, WireClient

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
        self._built: dict[tuple[str, str], Model] = {}

    async def resolve(self, name: str, project_id: str = DEFAULT_PROJECT) -> Resolved:
        """Raises NotFound with near names."""
        card, alias = await self.catalogue.find(name, project_id)
        model = self._built.get((project_id, card.id))
        if model is None or model.card is not card:  # cards are replaced, never changed
            model = self._built[project_id, card.id] = self._build(card, project_id)
        return Resolved(model, card, alias)

    def _build(self, card: ModelCard, project_id: str) -> Model:
        if card.source == "engine":
            return EngineModel(card, self.supervisor, self.client, self.engine_spec, public_only=self.guards(card))
        if card.source == "provider":
            return Retrying(self._provider(card, project_id))

        async def target(name: str) -> Model:
            return (await self.resolve(name, project_id)).model

        return Route(card, target)

    def _provider(self, card: ModelCard, project_id: str) -> OpenAICompatible:
        spec = builtin_providers()[card.provider or ""]
        base_url = self.base_url(card, spec)

        async def credential() -> str | None:
            return await self._keys.require(card, spec, base_url, project_id)

        return OpenAICompatible(
            card,
            spec,
            self.client,
            base_url=base_url,
            credential=credential,
            public_only=self.guards(card),
        )

    async def has_key(self, card: ModelCard, project_id: str) -> bool:
        """Whether a remote model has the key that it needs."""
        spec = builtin_providers()[card.provider or ""]
        try:
            base_url = self.base_url(card, spec)
        except InvalidRequest:  # nor an address
            return False
        return spec.keyless or await self._keys.find(card, spec, base_url, project_id) is not None

    def guards(self, card: ModelCard) -> bool:
        """Whether the card's address came from a caller, who may not point it at private ones."""
        return card.base_url is not None and card.engine in {None, "url"} and not self._settings.allow_private_urls

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
                hint=f"Set {spec.base_url_env} in the server's environment.",
            )
        return spec.base_url

    async def engine_spec(self, card: ModelCard) -> EngineSpec:
        """How to run a local model. Raises Unavailable when its weights are not on disk."""
        if card.engine == "url":
            if self.guards(card):  # again, not only when it was added: a name may lead elsewhere by now
                await check_public_url(card.base_url or "", param="base_url")
            return EngineSpec(name=card.id, url=card.base_url, health_path=card.health_path)
        directory: Path | None = None
        if card.weights is not None:
            directory = self.weights.find(card.weights)
            if directory is None:
                raise Unavailable(
                    f"The weights of {card.id} are not on this machine yet.",
                    code="weights_missing",
                    hint=f"Run: noria models pull {card.id}",
                )
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

    async def ask_engine(self, card: ModelCard, path: str, body: dict[str, Any], *, timeout_s: float = 60.0) -> Any:
        """A JSON call to an engine's own route (token counting)."""
        async with self.supervisor.lease(await self.engine_spec(card)) as endpoint:
            socket = str(endpoint.socket_path) if endpoint.socket_path else None
            target = Target(
                f"{endpoint.base_url}{path}", card.id, {}, socket_path=socket, generation=endpoint.generation, local=True
            )
            answer = await self.client.post(target, orjson.dumps(body), timeout_s=timeout_s, stream=False)
            return orjson.loads(b"".join([piece async for piece in answer.pieces]))

    async def count_tokens(self, card: ModelCard, given: dict[str, Any]) -> tuple[int, bool]:
        """Tokens of `{"text": …}` or `{"messages": …}`, and whether that is exact: remote models' are estimated."""
        if card.source == "engine" and card.engine in {"openvino", "scripted"}:
            counted = await self.ask_engine(card, "/v1/noria/tokenize", given)
            return int(counted["num_tokens"]), True
        return _estimate(given), False

    async def aclose(self) -> None:
        await self.client.aclose()


def _estimate(given: dict[str, Any]) -> int:
    """Four tokens of frame for each message, beside its text."""
    messages = given.get("messages") or ()
    text = given.get("text") or "".join(text_of(message.get("content")) for message in messages)
    return estimate_tokens(text) + 4 * len(messages)
