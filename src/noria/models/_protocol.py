"""What a model is: something that takes an OpenAI request body and gives back OpenAI's bytes.

The wire format itself is the interface, so a request whose dialect is the upstream's passes through as bytes, and whatever
answers (remote API, local engine, route, app) is interchangeable. A provider with another dialect translates inside
its own file. Knows nothing about HTTP servers, traces or storage.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ._cards import ModelCard

__all__ = ["Call", "Model", "Operation", "Reply"]

Operation = Literal["chat", "completion", "embedding"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model.

    `body` is OpenAI's request body (its `model` may be any name; the model writes its own). `hints` are fields beside it that
    only some providers take (`service_tier`); the others are not sent them. `headers` are sent along (`traceparent`).
    `sticky` keeps a user or conversation on one variant of a route.
    """

    operation: Operation
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    hints: Mapping[str, Any] = field(default_factory=dict[str, Any])
    timeout_s: float = 600.0
    sticky: str | None = None
    project_id: str = "proj_default"

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))


@dataclass(slots=True)
class Reply:
    """An answer under way: either one JSON object, or server-sent events when the call asked for a stream.

    Close it (or exhaust `pieces`) so that the upstream connection and the engine's slot are freed. `card` is the model that
    truly answered; `variant` the name of the route's choice, if a route chose.
    """

    card: ModelCard
    pieces: AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]]
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    variant: str | None = None
    attempts: int = 1

    async def read(self) -> bytes:
        """The whole body; closes the reply."""
        try:
            return b"".join([piece async for piece in self.pieces])
        finally:
            await self.close()


class Model(Protocol):
    """Anything that answers. `open` raises a NoriaError before the first byte, never after."""

    @property
    def card(self) -> ModelCard: ...

    async def open(self, call: Call) -> Reply: ...
