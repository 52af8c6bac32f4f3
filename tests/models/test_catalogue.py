"""The catalogue and the hub by themselves: which names there are, which cards are refused, whose address is guarded."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from noria.access import CredentialStore
from noria.engines import Supervisor, WeightsStore
from noria.errors import ConfigurationError, InvalidRequest, NotFound
from noria.models import Catalogue, Hub, ModelCard, Retrying
from noria.settings import load
from noria.store import Database


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    settings = load({"home": tmp_path, "cache": tmp_path}, environ={}).settings
    database = await Database.open(settings.database)
    supervisor = Supervisor(settings.run_dir, memory_budget_mb=1024)
    catalogue = Catalogue(database, aliases=None, defaults={"chat": "a", "embedding": "b"})
    credentials = CredentialStore(database, settings.home, None)
    opened = Hub(settings, catalogue, supervisor, WeightsStore(settings.models_dir), credentials)
    yield opened
    await opened.aclose()
    await supervisor.aclose()
    await database.aclose()


@pytest.mark.parametrize(
    "name",
    [
        "openrouter/@preset/mail",
        "lmstudio/qwen3-8b@q4_k_m",
        "openrouter/~a/b",
        "ollama/llama3.2:1b",
        "together/a/b+c",
        "openai/x" * 32,
    ],
)
async def test_names_that_providers_truly_use(hub: Hub, name: str) -> None:
    card, alias = await hub.catalogue.find(name)
    assert (card.id, card.upstream_name, alias) == (name, name.partition("/")[2], None)


@pytest.mark.parametrize("name", ["openai/gpt 4", "ollama/名字", "openai/" + "x" * 250, "openai/x\n", "openai/", "x" * 10**6])
async def test_names_that_cannot_be(hub: Hub, name: str) -> None:
    with pytest.raises(NotFound) as error:
        await hub.catalogue.find(name)
    assert error.value.code == "model_not_found"
    assert len(str(error.value)) < 700


async def test_a_name_that_cannot_be_says_how_to_ask_for_it(hub: Hub) -> None:
    with pytest.raises(NotFound, match="noria models add NAME --provider ollama --upstream"):
        await hub.catalogue.find("ollama/名字")


async def test_made_up_names_are_not_kept(hub: Hub) -> None:
    for number in range(200):
        await hub.resolve(f"ollama/made-up-{number}")
    gc.collect()
    assert sum(isinstance(found, Retrying) for found in gc.get_objects()) < 20


@pytest.mark.parametrize(
    ("fields", "guarded"),
    [
        ({"source": "provider", "provider": "custom", "base_url": "https://llm.example.com"}, True),
        ({"source": "engine", "engine": "url", "base_url": "https://llm.example.com"}, True),
        ({"source": "provider", "provider": "openai"}, False),
        ({"source": "engine", "engine": "command", "command": ("x",)}, False),
        *(
            ({"source": "provider", "provider": "custom", "base_url": "https://llm.example.com", "engine": engine}, True)
            for engine in ("openvino", "embedding", "scripted", "command", "url")
        ),
    ],
)
def test_an_address_from_a_card_is_guarded_whatever_else_the_card_says(hub: Hub, fields: dict[str, Any], guarded: bool) -> None:
    assert hub.guards(ModelCard(id="x", **fields)) is guarded


TARGETS = {"strategy": "fallback", "targets": [{"model": "ollama/x"}]}


@pytest.mark.parametrize(
    ("source", "field", "value"),
    [
        ("provider", "engine", "openvino"),
        ("provider", "weights", "x"),
        ("provider", "route", TARGETS),
        ("engine", "provider", "openai"),
        ("route", "base_url", "https://llm.example.com"),
        ("route", "sampling", {"temperature": 0.0}),
    ],
)
async def test_a_field_that_means_nothing_there_is_refused(hub: Hub, source: str, field: str, value: Any) -> None:
    whole: dict[str, dict[str, Any]] = {
        "provider": {"provider": "custom", "base_url": "https://llm.example.com"},
        "engine": {"engine": "scripted"},
        "route": {"route": TARGETS},
    }
    card = {"id": "x", "source": source, **whole[source]}
    await hub.catalogue.add(ModelCard.model_validate(card))
    with pytest.raises(InvalidRequest) as error:
        await hub.catalogue.add(ModelCard.model_validate({**card, field: value}))
    assert error.value.param == field


@pytest.mark.parametrize(
    ("aliases", "circle"),
    [
        ('{"a": "b", "b": "a"}', "a → b → a"),
        ('{"x": "a", "a": "b", "b": "c", "c": "a"}', "a → b → c → a"),
        ('{"mine": "other", "other": "chat"}', "mine → other → mine"),
    ],
)
def test_aliases_that_go_in_a_circle_are_refused(tmp_path: Path, aliases: str, circle: str) -> None:
    environ = {"NORIA_HOME": str(tmp_path), "NORIA_CHAT_MODEL": "mine", "NORIA_ALIASES": aliases}
    with pytest.raises(ConfigurationError, match=circle) as error:
        load(environ=environ)
    assert error.value.param == "aliases"
    assert "NORIA_ALIASES" in error.value.message


async def test_aliases_of_aliases_lead_on(tmp_path: Path, hub: Hub) -> None:
    environ = {"NORIA_HOME": str(tmp_path), "NORIA_ALIASES": '{"a": "b", "b": "ollama/x", "c": "c", "d": "chat"}'}
    aliases = load(environ=environ).settings.aliases
    catalogue = Catalogue(hub.catalogue._database, aliases=aliases, defaults={"chat": "ollama/y"})  # pyright: ignore[reportPrivateUsage]
    assert (await catalogue.find("a"))[0].id == "ollama/x"
    assert (await catalogue.find("d"))[0].id == "ollama/y"
    with pytest.raises(NotFound):
        await catalogue.find("c")
