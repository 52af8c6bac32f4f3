"""Routes: one name over several models, and retries with jittered back-off. Nothing is retried once a piece has come."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from noria.errors import ConfigurationError, NoriaError, NotFound, RateLimited, Unavailable, UpstreamError, UpstreamTimeout

from ._cards import ModelCard, RouteTarget
from ._protocol import Call, Model, Reply

__all__ = ["HOPELESS", "Retry", "Retrying", "Route", "choose", "sticky_key"]

_RETRYABLE = (RateLimited, UpstreamError, UpstreamTimeout, Unavailable)
HOPELESS = frozenset({"upstream_authentication", "upstream_refused"})
"""Codes of failures that asking the same model again does not mend; the next target of a route may do."""

_OF_THE_TARGET = frozenset({"missing_credential", "missing_base_url", "private_address", "unresolvable_host"})
"""Codes of a 400 that says nothing against the request: this model cannot be asked."""


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` in all; waits are drawn from 0 to `base_s`·2ⁿ, at most `cap_s`, or what the upstream asked for
    (full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)."""

    attempts: int = 3
    base_s: float = 0.5
    cap_s: float = 8.0

    def wait_s(self, failures: int, asked_s: float | None) -> float:
        drawn = random.uniform(0, min(self.cap_s, self.base_s * 2**failures))  # noqa: S311
        return min(self.cap_s, max(drawn, asked_s or 0.0))


class Retrying:
    """A remote model asked again after 429, 5xx and broken connections. A request that is wrong fails at once.

    All attempts and the waits between them share the call's `timeout_s`: an answer that takes longer is not asked for, and
    paid for, again.
    """

    def __init__(self, model: Model, retry: Retry | None = None) -> None:
        self._model, self._retry = model, retry or Retry()

    @property
    def card(self) -> ModelCard:
        return self._model.card

    async def open(self, call: Call) -> Reply:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + call.timeout_s
        for attempt in range(1, self._retry.attempts + 1):
            try:
                reply = await self._model.open(call)
            except _RETRYABLE as error:
                hopeless = error.code in HOPELESS
                too_long = (error.retry_after_s or 0) > self._retry.cap_s
                wait_s = self._retry.wait_s(attempt - 1, error.retry_after_s)
                left_s = deadline - loop.time() - wait_s
                if hopeless or too_long or left_s <= 0 or attempt == self._retry.attempts:
                    raise
                await asyncio.sleep(wait_s)
                call = replace(call, timeout_s=left_s)
            else:
                reply.attempts = attempt
                return reply
        raise AssertionError("unreachable: the last attempt returns or raises")


_CONVERSATION = ("conversation_id", "session_id", "thread_id", "conversation")


def sticky_key(safety_identifier: str | None, user: str | None, metadata: Mapping[str, str] | None) -> str | None:
    """What a request says of who asks or of its conversation, the surest first; None when it says nothing."""
    named = (metadata[key] for key in _CONVERSATION if metadata and metadata.get(key))
    return safety_identifier or user or next(named, None)


def choose(targets: Sequence[RouteTarget], draw: float) -> RouteTarget:
    """The target at `draw` (0 ≤ draw < 1) of the weights laid end to end."""
    total = sum(target.weight for target in targets)
    point = draw * total
    for target in targets:
        point -= target.weight
        if point < 0:
            return target
    return next(target for target in reversed(targets) if target.weight > 0)


class Route:
    """A weighted or fallback route. `resolve` gives the model behind a target's name.

    A fallback goes on where a target cannot answer: it is busy, broken, gone (404), without a key, or wrongly set up. Each
    target has the whole `timeout_s`. A request that is wrong fails at once.
    """

    def __init__(self, card: ModelCard, resolve: Callable[[str], Awaitable[Model]]) -> None:
        assert card.route is not None
        self._card, self._spec, self._resolve = card, card.route, resolve

    @property
    def card(self) -> ModelCard:
        return self._card

    async def open(self, call: Call) -> Reply:
        if self._spec.strategy == "weighted":
            target = choose(self._spec.targets, self._draw(call))
            return await self._ask(target, call)
        failure: NoriaError | None = None
        for target in self._spec.targets:
            try:
                return await self._ask(target, call)
            except NoriaError as error:
                if not _is_of_the_target(error):
                    raise
                if failure is None or isinstance(error, _RETRYABLE) or not isinstance(failure, _RETRYABLE):
                    failure = error  # what may pass by itself tells the caller more than a key that is absent
        assert failure is not None
        raise failure

    async def _ask(self, target: RouteTarget, call: Call) -> Reply:
        try:
            model = await self._resolve(target.model)
            reply = await model.open(call)
        except NoriaError as error:
            error.variant = target.model
            raise
        reply.variant = target.model
        return reply

    def _draw(self, call: Call) -> float:
        """The same number for the same user or conversation of this route, while its salt stays; else a fresh one."""
        if self._spec.sticky and call.sticky is not None:
            name = f"{self._card.id}\0{self._spec.salt}" if self._spec.salt else self._card.id
            digest = hashlib.sha256(f"{name}\0{call.sticky}".encode()).digest()
            return int.from_bytes(digest[:8], "big") / 2**64
        return random.random()  # noqa: S311


def _is_of_the_target(error: NoriaError) -> bool:
    return isinstance(error, (*_RETRYABLE, ConfigurationError, NotFound)) or error.code in _OF_THE_TARGET
