"""Model cards on the terminal, cards built from the command line, and a first try of a model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from noria.errors import InvalidRequest

from ._api import Api
from ._command import target
from ._connection import connect
from ._show import Column, count, duration, facts, money, note, print_json, size, table

__all__ = ["Addition", "add_gguf", "build_card", "print_card", "print_models", "run_try"]

_STATES: Mapping[str, str] = {
    "loaded": "loaded",
    "ready": "ready",
    "missing_weights": "not pulled",
    "missing_key": "no key",
}
_FALLBACK_PROMPT = "Say in one sentence what you can do."


def print_models(wanted: Mapping[str, Any], *, usable: bool) -> None:
    with connect() as api:
        rows = api.get("/v1/noria/models", **wanted)["data"]
    if usable:
        rows = [row for row in rows if row["state"] in {"ready", "loaded"}]
    if target().json:
        print_json(rows)
        return
    columns = (
        Column("MODEL"), Column("TASK"), Column("WHERE"), Column("STATE"), Column("SIZE", "right"), Column("CONTEXT", "right"),
    )  # fmt: skip
    shown = (
        (
            row["id"], row["task"], _where(row), _state(row), size(row["size_bytes"]),
            _thousands(row["context_tokens"]),
        )
        for row in rows
    )  # fmt: skip
    table(columns, shown, empty="No model matches.")


def _thousands(num_tokens: int | None) -> str:
    if num_tokens is None or num_tokens < 1000:
        return count(num_tokens)
    return f"{num_tokens / 1e6:.1f}M" if num_tokens >= 1e6 else f"{num_tokens // 1000}k"


def _state(card: Mapping[str, Any]) -> str:
    return _STATES.get(card["state"]) or str(card["state"])


def _where(card: Mapping[str, Any]) -> str:
    local: dict[str, str] = {"engine": "local", "route": "route"}
    return local.get(card["source"]) or str(card["provider"])


def print_card(card: Mapping[str, Any]) -> None:
    facts(_card_facts(card))


def _card_facts(card: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    price = card.get("price")
    yield "model", card["id"]
    yield "title", card["title"]
    yield "about", card["description"]
    yield "task", card["task"]
    yield "where", _where(card) + (f" ({card['engine']})" if card.get("engine") else "")
    yield "upstream", card.get("upstream")
    yield "base URL", card.get("base_url")
    yield "state", _state(card) + (" (added by you)" if card["added"] else "")
    yield "route", _route_line(card["route"]) if card.get("route") else None
    yield "licence", card["licence"]
    yield "languages", ", ".join(card["languages"])
    yield "parameters", count(card["parameters"])
    yield "weights", size(card["size_bytes"])
    yield "memory", f"{card['memory_mb']} MB" if card["source"] == "engine" else None
    yield "context", f"{count(card['context_tokens'])} tokens" if card["context_tokens"] else None
    yield "output", f"at most {count(card['max_output_tokens'])} tokens" if card["max_output_tokens"] else None
    yield "dimensions", count(card["dimensions"])
    yield "price", _price_line(price) if price else None
    yield "supports", ", ".join(card["supports"])
    grounded = card["grounded_languages"]
    yield "answers from passages", None if grounded is None else ", ".join(grounded) or "no: passages are quoted"
    yield "aliases", ", ".join(card["aliases"])


def _route_line(route: Mapping[str, Any]) -> str:
    if route["strategy"] == "fallback":
        return " then ".join(each["model"] for each in route["targets"])
    total = sum(each["weight"] for each in route["targets"])
    return ", ".join(f"{each['model']} {each['weight'] / total:.0%}" for each in route["targets"])


def _price_line(price: Mapping[str, Any]) -> str:
    line = f"{money(price['input'])} in, {money(price['output'])} out"
    if price.get("cached_input") is not None:
        line += f", {money(price['cached_input'])} cached"
    return f"{line} per million tokens" + (f" (as of {price['as_of']})" if price.get("as_of") else "")


@dataclass(frozen=True, slots=True)
class Addition:
    """What `noria models add` was given, apart from plain facts and prices."""

    name: str
    targets: tuple[str, ...]
    provider: str | None
    route: str | None
    task: str
    sticky: bool
    card_file: str | None


def build_card(given: Addition, plain: Mapping[str, Any], prices: Mapping[str, float | None]) -> dict[str, Any]:
    """The card to send. Raises InvalidRequest where the options contradict each other."""
    card: dict[str, Any] = {"id": given.name, "task": given.task} | {
        key: value for key, value in plain.items() if value is not None
    }
    known_prices = {key: value for key, value in prices.items() if value is not None}
    if known_prices:
        if "input" not in known_prices:
            raise InvalidRequest("A price needs --price-input.")
        card["price"] = known_prices
    if given.card_file is not None:
        return {**_read_card(given.card_file), **card}
    if given.route is not None:
        if given.provider is not None or not given.targets:
            raise InvalidRequest(
                "A route needs targets and no provider.", hint="noria models add NAME --route weighted A=0.9 B=0.1"
            )
        targets = [_route_target(text) for text in given.targets]
        return {**card, "source": "route", "route": {"strategy": given.route, "targets": targets, "sticky": given.sticky}}
    if given.targets:
        raise InvalidRequest(f"Targets ({', '.join(given.targets)}) need --route weighted or --route fallback.")
    if given.provider is None:
        if "base_url" not in card:
            raise InvalidRequest(
                "Say which --provider (or --base-url), or make a --route.", hint="Providers: noria config credential"
            )
        return {**card, "source": "provider", "provider": "custom"}
    return {**card, "source": "provider", "provider": given.provider}


def add_gguf(
    api: Api, given: Addition, source: str, plain: Mapping[str, Any], prices: Mapping[str, float | None]
) -> dict[str, Any]:
    """The new model's card. The file says what it is: other facts are refused, not ignored."""
    from ._prepare import import_gguf

    said = {"--route": given.route, "--provider": given.provider, "--card": given.card_file, "TARGETS": given.targets}
    said |= {f"--{key.replace('_', '-')}": value for key, value in plain.items() if key != "title"}
    said |= {f"--price-{key.replace('_', '-')}": value for key, value in prices.items()}
    said["--task"] = given.task if given.task != "chat" else None
    said["--sticky"] = given.sticky
    if other := [name for name, value in said.items() if value]:
        raise InvalidRequest(f"--gguf does not go with {other[0]}.", hint="A GGUF file says itself what it is.")
    return import_gguf(api, given.name, source, plain.get("title") or "")


def _route_target(text: str) -> dict[str, Any]:
    model, equals, weight = text.rpartition("=")
    if not equals:
        return {"model": text}
    try:
        return {"model": model, "weight": float(weight)}
    except ValueError:
        raise InvalidRequest(f"The weight in {text!r} is not a number.") from None


def _read_card(name: str) -> dict[str, Any]:
    try:
        card = json.loads(Path(name).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{name} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise InvalidRequest(f"{name} is not valid JSON: {error}.") from None
    if not isinstance(card, dict):
        raise InvalidRequest(f"{name} is not a JSON object.")
    return card


def run_try(model: str) -> None:
    """One call with the card's sample prompt."""
    with connect() as api:
        card = api.get(f"/v1/noria/models/{quote(model)}")
        prompt = card["sample_prompt"] or _FALLBACK_PROMPT
        begun = time.perf_counter()
        if card["task"] == "embedding":
            reply = api.post("/v1/embeddings", {"model": card["id"], "input": prompt})
            shown = f"{len(reply['data'][0]['embedding'])} numbers, beginning {_numbers(reply['data'][0]['embedding'][:4])}"
        elif target().json:
            reply = api.post("/v1/chat/completions", _chat_body(card["id"], prompt))
            shown = ""
        else:
            note(f"> {prompt}")
            reply, shown = _stream(api, card["id"], prompt), ""
        took = time.perf_counter() - begun
    if target().json:
        print_json(reply)
        return
    if shown:
        note(f"> {prompt}")
        print(shown)
    usage = reply.get("usage") or {}
    num_tokens = usage.get("completion_tokens") or 0
    speed = f", {num_tokens} tokens, {num_tokens / took:.0f} a second with loading" if num_tokens else ""
    note(f"({card['id']}: {duration(took)}{speed})")


def _chat_body(model: str, prompt: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], "max_completion_tokens": 200}


def _stream(api: Api, model: str, prompt: str) -> dict[str, Any]:
    """Prints the answer as it comes; returns what the last chunk says of usage."""
    usage: dict[str, Any] = {}
    body = {**_chat_body(model, prompt), "stream": True, "stream_options": {"include_usage": True}}
    with api.stream("/v1/chat/completions", body) as reply:
        for chunk in reply.events:
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                print(choice["delta"].get("content") or "", end="", flush=True)
    print()
    return {"usage": usage}


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values) + " …"
