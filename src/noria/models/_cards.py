"""Model cards: what is known of a model, as it stands in the catalogue, the database and the API."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["MODEL_ID", "Feature", "ModelCard", "Price", "RouteSpec", "RouteTarget", "Usage", "tuned_card"]

MODEL_ID = r"^[A-Za-z0-9][A-Za-z0-9._:/@~+-]*$"
Feature = Literal["stream", "tools", "json_schema", "logprobs", "echo", "vision", "grammar", "seed", "dimensions"]


class Price(BaseModel):
    """US dollars per million tokens. `as_of` says when the figure was true: providers change them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: float = Field(ge=0)
    output: float = Field(default=0.0, ge=0)
    cached_input: float | None = Field(default=None, ge=0)
    as_of: str | None = None


class RouteTarget(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    weight: float = Field(default=1.0, ge=0)


class RouteSpec(BaseModel):
    """One name over several models: `weighted` draws by weight, `fallback` tries in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: Literal["weighted", "fallback"]
    targets: tuple[RouteTarget, ...] = Field(min_length=1, max_length=32)
    sticky: bool = Field(
        default=False,
        description="Keep one user (`safety_identifier`, `user`) or conversation (`metadata.conversation_id`, a response's "
        "chain) on one variant.",
    )
    salt: str = Field(default="", max_length=64, description="Another salt draws users anew, so that not always the same try.")


class ModelCard(BaseModel):
    """One model. `source` says what answers: a local engine, a remote provider, or a route over others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1, max_length=256, pattern=MODEL_ID)
    task: Literal["chat", "embedding"] = "chat"
    source: Literal["engine", "provider", "route"]
    title: str = ""
    description: str = ""

    provider: str | None = Field(default=None, description="Provider's name in the catalogue, for source = provider.")
    upstream: str | None = Field(default=None, description="The provider's own name of the model; default: the id.")
    base_url: str | None = Field(default=None, description="Overrides the provider's base URL.")

    engine: Literal["openvino", "embedding", "scripted", "command", "url"] | None = None
    command: tuple[str, ...] | None = Field(
        default=None, description="For engine = command; {socket} or {port} and {model_dir} are filled in."
    )
    script: str | None = Field(
        default=None, description="For engine = scripted: a TOML file on the server; see noria.engines.scripted."
    )
    weights: str | None = Field(default=None, description="Recipe of the weights to pull, for the built-in engines.")
    base: str | None = Field(default=None, description="For a tuned model: the model whose engine serves it, with `adapter`.")
    adapter: str | None = Field(default=None, description="Folder of the LoRA adapter (PEFT's files), below the server's home.")
    folder: str | None = Field(
        default=None, description="Folder of a prepared model below the server's home, in place of `weights`."
    )
    health_path: str = Field(default="/health", pattern=r"^/[^@\s]*$")
    memory_mb: int = Field(default=1024, ge=1)

    route: RouteSpec | None = None

    licence: str | None = None
    languages: tuple[str, ...] = ()
    parameters: int | None = None
    size_bytes: int | None = None
    context_tokens: int | None = None
    max_output_tokens: int | None = Field(default=None, description="Limit of a chat's answer, sent where the caller gives none.")
    dimensions: int | None = None
    price: Price | None = None
    supports: tuple[Feature, ...] = ()
    grounded_languages: tuple[str, ...] | None = Field(
        default=None, description="Languages in which it answers from passages well; null: not known, taken as all."
    )
    sampling: dict[str, float] = Field(
        default_factory=dict[str, float],
        description="Sampling defaults where the caller gives none, as the model's makers advise.",
    )
    query_prefix: bool = Field(default=False, description="An embedding model that takes `input_type` query or passage.")
    sample_prompt: str | None = None

    @property
    def upstream_name(self) -> str:
        return self.upstream or self.id

    @property
    def is_local(self) -> bool:
        return self.source == "engine"


def tuned_card(
    base: ModelCard, model_id: str, *, adapter: str | None = None, folder: str | None = None, title: str = ""
) -> ModelCard:
    """The card of what training made of `base`: an adapter in its engine, or a whole prepared model of its own.

    Both are folders below the home. What the base is known to do is taken over, save where it answers from passages badly:
    that may be what it was trained for.
    """
    assert (adapter is None) != (folder is None), "a tuned model is either an adapter or a folder"
    changes = {
        "id": model_id,
        "title": title,
        "description": f"Tuned from {base.id}.",
        "upstream": None,
        "weights": None,
        "base": (base.base or base.id) if adapter is not None else None,
        "adapter": adapter,
        "folder": folder,
        "grounded_languages": None,
        "sample_prompt": None,
    }
    return ModelCard.model_validate({**base.model_dump(), **changes})


class Usage(BaseModel):
    """Tokens of one call, and what they cost; `cost_usd` is None where no price is known, 0 for local models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None
