"""The catalogue: built-in providers and cards, plus what users added; filters; aliases."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from sqlalchemy import select

from noria.errors import Conflict, InvalidRequest, NotFound
from noria.store import DEFAULT_PROJECT, Database, ModelEntry, TunedModel

from ._cards import ModelCard

__all__ = ["Catalogue", "CatalogueFilter", "ProviderSpec", "builtin_providers"]


_LOCAL = ("engine", "command", "script", "weights", "base", "adapter", "folder")
_FOREIGN = {
    "engine": ("provider", "route"),
    "provider": (*_LOCAL, "route"),
    "route": (*_LOCAL, "provider", "upstream", "base_url", "sampling", "max_output_tokens"),
}
"""Fields that mean nothing to a card of that source. `engine` on a provider's card is more than that: see `Hub.guards`."""

_LONGEST_NAME = 256


class ProviderSpec(BaseModel):
    """A remote API that speaks OpenAI's wire format. Facts only; credentials live elsewhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    base_url: str | None = None
    base_url_env: str | None = None
    base_url_suffix: str = ""
    key_env: str | None = None
    key_header: str = "authorization"
    keyless: bool = False
    token_limit_field: str = "max_completion_tokens"  # noqa: S105
    takes: frozenset[str] = frozenset()
    """Fields of OpenAI's that this API honours and others refuse."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    providers: dict[str, ProviderSpec]
    aliases: dict[str, str]
    models: tuple[ModelCard, ...]


@cache
def _builtin() -> _File:
    text = resources.files("noria.models").joinpath("catalogue.toml").read_text(encoding="utf-8")
    return TypeAdapter(_File).validate_python(tomllib.loads(text))


def builtin_providers() -> Mapping[str, ProviderSpec]:
    return _builtin().providers


@dataclass(frozen=True, slots=True)
class CatalogueFilter:
    """Each None matches all. `query` is looked for in id, title and description."""

    query: str | None = None
    task: str | None = None
    licence: str | None = None
    language: str | None = None
    source: str | None = None
    max_size_bytes: int | None = None

    def matches(self, card: ModelCard) -> bool:
        text = f"{card.id} {card.title} {card.description}".lower()
        return (
            (self.query is None or all(word in text for word in self.query.lower().split()))
            and self.task in {None, card.task}
            and (self.licence is None or self.licence.lower() in (card.licence or "").lower())
            and (self.language is None or self.language in card.languages or "multilingual" in card.languages)
            and self.source in {None, card.source}
            and (self.max_size_bytes is None or (card.size_bytes is not None and card.size_bytes <= self.max_size_bytes))
        )


class Catalogue:
    """Cards by id. Users' entries win over built-in ones; a change is seen by the next look-up in this process."""

    def __init__(self, database: Database, *, aliases: Mapping[str, str] | None, defaults: Mapping[str, str]) -> None:
        self._database = database
        self._defaults = dict(defaults)
        table = _builtin().aliases if aliases is None else aliases
        self.aliases = {name: self._defaults.get(target, target) for name, target in table.items()}
        self._added: dict[str, dict[str, ModelCard]] = {}

    async def added(self, project_id: str = DEFAULT_PROJECT) -> Mapping[str, ModelCard]:
        if (cards := self._added.get(project_id)) is None:
            async with self._database.read() as session:
                rows = await session.scalars(
                    select(ModelEntry).where(ModelEntry.project_id == project_id).order_by(ModelEntry.created_at, ModelEntry.id)
                )
                cards = {row.id: ModelCard.model_validate(row.spec) for row in rows}
            self._added[project_id] = cards
        return cards

    async def all(self, project_id: str = DEFAULT_PROJECT, where: CatalogueFilter | None = None) -> list[ModelCard]:
        """Every card, users' first."""
        added = await self.added(project_id)
        cards = [*added.values(), *(card for card in _builtin().models if card.id not in added)]
        return [card for card in cards if where is None or where.matches(card)]

    async def find(self, name: str, project_id: str = DEFAULT_PROJECT) -> tuple[ModelCard, str | None]:
        """The card that answers to `name`, and the alias that led there, if one did. Raises NotFound with near names.

        Order: users' entries, built-in cards, aliases, then `provider/anything` for a known provider.
        """
        added = await self.added(project_id)
        if (card := added.get(name) or _builtin_card(name)) is not None:
            return card, None
        if (target := self.aliases.get(name)) is not None and target != name:
            card, _ = await self.find(target, project_id)
            return card, name
        provider, slash, upstream = name.partition("/")
        if slash and upstream and provider in _builtin().providers and provider != "custom":
            try:
                return ModelCard(id=name, source="provider", provider=provider, upstream=upstream), None
            except ValidationError:
                raise _impossible(name, provider) from None
        raise await self._unknown(name, project_id)

    async def _unknown(self, name: str, project_id: str) -> NotFound:
        if len(name) > _LONGEST_NAME:
            return _not_found(name, f"A name has at most {_LONGEST_NAME} characters.")
        names = [card.id for card in await self.all(project_id)] + list(self.aliases)
        near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else "`noria models list` shows what there is."
        return _not_found(name, hint)

    async def add(self, card: ModelCard, project_id: str = DEFAULT_PROJECT) -> None:
        """Adds or replaces a user's entry. Raises InvalidRequest where the card contradicts itself."""
        await self._check(card, project_id)
        spec = card.model_dump(mode="json", exclude_defaults=True)
        async with self._database.write() as session:
            row = ModelEntry(project_id=project_id, id=card.id, kind="route" if card.route else "model", spec=spec)
            await session.merge(row)
        self._added.pop(project_id, None)

    async def _check(self, card: ModelCard, project_id: str) -> None:
        for param, folder in (("adapter", card.adapter), ("folder", card.folder)):
            if folder is not None and (not folder or folder.startswith("/") or {"..", "."} & set(folder.split("/"))):
                raise InvalidRequest(f"{folder!r} does not lie below the server's home.", param=param)
        for field in _FOREIGN[card.source]:
            if getattr(card, field):
                raise InvalidRequest(f"A card of source {card.source} has no {field!r}.", param=field, hint="Leave it out.")
        if card.source == "provider":
            if card.provider not in _builtin().providers:
                known = ", ".join(_builtin().providers)
                raise InvalidRequest(f"{card.provider!r} is not a known provider.", param="provider", hint=f"Known: {known}.")
            if card.provider == "custom" and not card.base_url:
                raise InvalidRequest("A custom provider needs its base_url.", param="base_url")
        elif card.source == "route":
            if card.route is None:
                raise InvalidRequest("A route needs its `route` with targets.", param="route")
            await self._check_route(card, project_id)
        elif card.engine == "command" and not card.command:
            raise InvalidRequest("An engine of kind command needs its `command`.", param="command")
        elif card.engine == "url" and not card.base_url:
            raise InvalidRequest("An engine of kind url needs its base_url.", param="base_url")
        elif card.base is not None or card.adapter is not None:
            await self._check_tuned(card, project_id)
        elif card.engine in {"openvino", "embedding"} and not card.weights and not (card.folder and card.engine == "openvino"):
            raise InvalidRequest(f"An engine of kind {card.engine} needs its `weights`.", param="weights")
        elif card.engine is None:
            raise InvalidRequest("A local model needs its `engine`.", param="engine")

    async def _check_tuned(self, card: ModelCard, project_id: str) -> None:
        if card.base is None or card.adapter is None:
            raise InvalidRequest("A tuned model needs both its `base` and its `adapter`.", param="adapter")
        if card.weights is not None or card.folder is not None:
            raise InvalidRequest("A tuned model has its weights from its base.", param="weights")
        base, _ = await self.find(card.base, project_id)
        if card.engine != "openvino" or base.engine != "openvino" or base.task != "chat":
            raise InvalidRequest(
                f"The engine of {base.id} ({base.engine or base.source}) takes no adapters.",
                param="base",
                hint="Noria's own engine (engine = openvino, task = chat) does.",
            )
        if base.base is not None:
            raise InvalidRequest(f"{base.id} is itself a tuned model.", param="base", hint=f"Give its base, {base.base}.")

    async def _check_route(self, card: ModelCard, project_id: str) -> None:
        assert card.route is not None
        if card.route.strategy == "weighted" and sum(target.weight for target in card.route.targets) <= 0:
            raise InvalidRequest("The weights of a weighted route must not all be 0.", param="route.targets")
        for target in card.route.targets:
            if target.model == card.id:
                raise InvalidRequest(f"The route {card.id!r} leads to itself.", param="route.targets")
            found, _ = await self.find(target.model, project_id)
            if found.route is not None:
                raise InvalidRequest(f"The target {target.model!r} is a route; routes do not nest.", param="route.targets")
            if found.task != card.task:
                raise InvalidRequest(
                    f"The target {target.model!r} is for {found.task}, the route for {card.task}.", param="route.targets"
                )

    async def removable(self, name: str, project_id: str = DEFAULT_PROJECT) -> ModelCard:
        """The card of a user's entry that nothing depends on. Raises NotFound or Conflict."""
        added = await self.added(project_id)
        if name not in added:
            if _builtin_card(name) is not None:
                raise Conflict(
                    f"{name!r} is part of the built-in catalogue and stays.", hint="Its weights can be removed: --weights."
                )
            raise NotFound(f"No model {name!r} was added.", param="model")
        users = [c.id for c in added.values() if c.route and name in {t.model for t in c.route.targets}]
        if users:
            raise Conflict(f"The route {users[0]!r} leads to {name!r}.", hint="Change or remove the route first.")
        if tuned := [c.id for c in added.values() if c.base == name]:
            raise Conflict(f"The model {tuned[0]!r} is an adapter of {name!r}.", hint="Remove the tuned models first.")
        return added[name]

    async def remove(self, name: str, project_id: str = DEFAULT_PROJECT) -> None:
        """Removes a user's entry, and what is known of its training if it was trained here."""
        await self.removable(name, project_id)
        async with self._database.write() as session:
            row = await session.get(ModelEntry, (project_id, name))
            if row is not None:
                await session.delete(row)
            tuned = await session.get(TunedModel, (project_id, name))
            if tuned is not None:
                await session.delete(tuned)
        self._added.pop(project_id, None)

    async def tuned(self, name: str, project_id: str = DEFAULT_PROJECT) -> TunedModel | None:
        """What is known of a model that was trained here."""
        async with self._database.read() as session:
            return await session.get(TunedModel, (project_id, name))

    async def shares_folder(self, folder: str) -> bool:
        """Whether several trained models, of any project, lie in this folder."""
        async with self._database.read() as session:
            rows = await session.scalars(select(TunedModel.id).where(TunedModel.folder == folder).limit(2))
            return len(list(rows)) > 1


def _not_found(name: str, hint: str) -> NotFound:
    shown = name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "…"
    return NotFound(f"The model {shown!r} does not exist.", param="model", code="model_not_found", hint=hint)


def _impossible(name: str, provider: str) -> NotFound:
    hint = (
        f"A name asked for directly has letters, digits and ._:/@~+- only, at most {_LONGEST_NAME}. "
        f"Another one answers to a name of your own: noria models add NAME --provider {provider} --upstream …"
    )
    return _not_found(name, hint)


def _builtin_card(name: str) -> ModelCard | None:
    return next((card for card in _builtin().models if card.id == name), None)
