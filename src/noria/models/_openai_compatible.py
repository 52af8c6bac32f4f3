"""The provider for every API that speaks OpenAI's wire format: one class, one catalogue line each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from noria.errors import InvalidRequest

from ._cards import ModelCard
from ._catalogue import ProviderSpec
from ._protocol import Call, Operation, Reply
from ._wire import Target, WireClient

__all__ = ["PATHS", "OpenAICompatible", "check_task", "upstream_body"]

PATHS: Mapping[Operation, str] = {"chat": "/chat/completions", "completion": "/completions", "embedding": "/embeddings"}
_LIMITS = {"max_tokens", "max_completion_tokens"}
_TASKS: Mapping[Operation, str] = {"chat": "chat", "completion": "chat", "embedding": "embedding"}


class OpenAICompatible:
    """A remote model. `credential` gives the key to send, None where none is needed, or raises; `public_only` guards against
    SSRF."""

    def __init__(
        self,
        card: ModelCard,
        provider: ProviderSpec,
        client: WireClient,
        *,
        base_url: str,
        credential: Callable[[], Awaitable[str | None]],
        public_only: bool,
    ) -> None:
        self._card, self._provider, self._client = card, provider, client
        self._base_url, self._credential, self._public_only = base_url.rstrip("/"), credential, public_only

    @property
    def card(self) -> ModelCard:
        return self._card

    async def open(self, call: Call) -> Reply:
        check_task(self._card, call.operation)
        answer = await self._client.post(
            await self._target(call),
            orjson.dumps(self._body(call)),
            timeout_s=call.timeout_s,
            stream=call.stream,
        )
        return Reply(self._card, answer.pieces, answer.close, answer.headers)

    def _body(self, call: Call) -> dict[str, Any]:
        body = upstream_body(self._card, call)
        body |= {name: value for name, value in call.hints.items() if name in self._provider.takes}
        limit = self._provider.token_limit_field
        if call.operation == "chat" and limit == "max_tokens" and "max_completion_tokens" in body:
            body["max_tokens"] = body.pop("max_completion_tokens")
        return body

    async def _target(self, call: Call) -> Target:
        headers = dict(call.headers)
        key = await self._credential()
        if key is not None:
            header = self._provider.key_header
            headers[header] = f"Bearer {key}" if header == "authorization" else key
        return Target(
            url=self._base_url + PATHS[call.operation],
            label=f"{self._provider.title} ({self._card.upstream_name})",
            headers=headers,
            public_only=self._public_only,
        )


def upstream_body(card: ModelCard, call: Call) -> dict[str, Any]:
    """The request as the model gets it: its own name, and the card's defaults where the caller gives none."""
    body: dict[str, Any] = dict(card.sampling) if call.operation != "embedding" else {}
    body.update(call.body)
    if call.operation == "chat" and card.max_output_tokens is not None and not _LIMITS & body.keys():
        body["max_completion_tokens"] = card.max_output_tokens  # a small model may never find its end
    body["model"] = card.upstream_name
    if call.stream:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return body


def check_task(card: ModelCard, operation: Operation) -> None:
    """Raises InvalidRequest when an embedding model is asked to chat, or the other way round."""
    if _TASKS[operation] != card.task:
        raise InvalidRequest(
            f"{card.id} is a model for {card.task}, not for {operation}.",
            param="model",
            hint="`noria models list` shows each one's task.",
        )
