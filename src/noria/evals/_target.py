"""Asking a model on behalf of an eval: through the one door, traced, with patience for rate limits.

A run asks many rows at once; when one is told to wait, all wait. Knows nothing about rows or graders.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from opentelemetry import trace

from noria.errors import NoriaError, RateLimited, Unavailable, UpstreamError, UpstreamTimeout
from noria.models import Call, Hub, Usage, call_model, is_stream_error, stream_error

__all__ = ["Answer", "Ask", "Patient", "ask_hub"]

_RETRYABLE = (RateLimited, Unavailable, UpstreamTimeout)
_ATTEMPTS = 8
_ATTEMPTS_TIMED_OUT = 2
_BASE_S, _CAP_S = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer. `model` is the one that truly answered, a route's choice resolved."""

    message: Mapping[str, Any]
    finish_reason: str
    model: str
    usage: Usage

    @property
    def text(self) -> str:
        content = self.message.get("content")
        if isinstance(content, list):
            return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
        return content or ""


class Ask(Protocol):
    """Asks a model by name with OpenAI's chat body. Raises a NoriaError."""

    async def __call__(self, model: str, body: Mapping[str, Any], project_id: str) -> Answer: ...


def ask_hub(hub: Hub, *, timeout_s: float, enter: Callable[[], Any]) -> Ask:
    """Asks models of this instance. `enter` takes one of the server's slots for a call; it has a method `leave`."""

    async def ask(model: str, body: Mapping[str, Any], project_id: str) -> Answer:
        resolved = await hub.resolve(model, project_id)
        slot = enter()
        try:
            call = Call("chat", {**body, "model": resolved.card.id}, timeout_s=timeout_s, project_id=project_id)
            reply, observed = await call_model(resolved, call)
            raw = await reply.read()
        finally:
            slot.leave()
        return _read(raw, reply.card.id, observed.usage)

    return ask


def _read(raw: bytes, model: str, usage: Usage) -> Answer:
    try:
        body: Any = orjson.loads(raw)
        if is_stream_error(body):
            raise stream_error(body["error"])
        choice = body["choices"][0]
        return Answer(choice["message"], str(choice.get("finish_reason") or "stop"), model, usage)
    except (ValueError, KeyError, IndexError, TypeError):
        raise UpstreamError(f"{model} answered with something that is not a chat completion.") from None


class Patient:
    """Asks again after 429 and 503 with growing waits, and holds all other rows of the run back meanwhile."""

    def __init__(self, ask: Ask, project_id: str) -> None:
        self._ask, self._project_id = ask, project_id
        self._resume_at = 0.0

    async def __call__(self, model: str, body: Mapping[str, Any]) -> Answer:
        for attempt in range(1, _ATTEMPTS + 1):
            await self._hold()
            try:
                return await self._ask(model, body, self._project_id)
            except _RETRYABLE as error:
                most = _ATTEMPTS_TIMED_OUT if isinstance(error, UpstreamTimeout) else _ATTEMPTS
                if attempt >= most or error.code == "weights_missing":
                    raise
                drawn = random.uniform(0, min(_CAP_S, _BASE_S * 2**attempt))  # noqa: S311
                wait_s = min(_CAP_S, max(drawn, error.retry_after_s or 0.0))
                if isinstance(error, RateLimited):
                    self._resume_at = max(self._resume_at, time.monotonic() + wait_s)
                else:
                    await asyncio.sleep(wait_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _hold(self) -> None:
        while (left := self._resume_at - time.monotonic()) > 0:  # noqa: ASYNC110  (a time, not an event)
            # A little apart, so that not all come back in the same moment.
            await asyncio.sleep(left + random.uniform(0, 0.2))  # noqa: S311


def current_trace_id() -> str | None:
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


AskModel = Callable[[str, Mapping[str, Any]], Awaitable[Answer]]
"""Asks within one project; what graders get."""


def error_of(error: BaseException) -> dict[str, str]:
    """A failure as OpenAI's `EvalApiError`."""
    if isinstance(error, NoriaError):
        return {"code": error.code or error.type, "message": str(error)}
    return {"code": "internal_error", "message": f"{type(error).__name__}: {error}"[:2000]}
