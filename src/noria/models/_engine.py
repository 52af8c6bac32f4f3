"""A local model: an engine process leased from the supervisor for the time of one call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import orjson

from noria.engines import Endpoint, EngineSpec, Supervisor
from noria.errors import NotFound

from ._adapters import AdapterLoader
from ._cards import ModelCard
from ._openai_compatible import PATHS, check_task, upstream_body
from ._protocol import Call, Reply
from ._wire import Answer, WireClient, engine_target

__all__ = ["EngineModel"]


class EngineModel:
    """`ready` makes sure that the weights are on disk (or says how to get them) and gives the engine's spec.

    A card with an `adapter` is answered by its base's engine, which gets the adapter before the request.
    """

    def __init__(
        self,
        card: ModelCard,
        supervisor: Supervisor,
        client: WireClient,
        ready: Callable[[ModelCard], Awaitable[EngineSpec]],
        adapters: AdapterLoader,
        *,
        public_only: bool = False,
    ) -> None:
        self._card, self._supervisor, self._client, self._ready = card, supervisor, client, ready
        self._adapters = adapters
        self._public_only = public_only

    @property
    def card(self) -> ModelCard:
        return self._card

    async def open(self, call: Call) -> Reply:
        check_task(self._card, call.operation)
        spec = await self._ready(self._card)
        lease = self._supervisor.lease(spec)
        endpoint = await lease.__aenter__()
        released = False

        async def release() -> None:
            nonlocal released
            if not released:
                released = True
                await lease.__aexit__(None, None, None)

        try:
            answer = await self._ask(call, endpoint)
        except BaseException:
            await asyncio.shield(release())
            raise

        async def close() -> None:
            await answer.close()
            await release()

        return Reply(self._card, answer.pieces, close, answer.headers)

    async def _ask(self, call: Call, endpoint: Endpoint) -> Answer:
        target = engine_target(endpoint, f"/v1{PATHS[call.operation]}", call.headers, public_only=self._public_only)
        body = orjson.dumps(upstream_body(self._card, call))
        if self._card.adapter is None:
            return await self._client.post(target, body, timeout_s=call.timeout_s, stream=call.stream)
        await self._adapters.ensure(self._card, endpoint)
        try:
            return await self._client.post(target, body, timeout_s=call.timeout_s, stream=call.stream)
        except NotFound:  # somebody took it out since
            self._adapters.forget(self._card, endpoint)
            await self._adapters.ensure(self._card, endpoint)
            return await self._client.post(target, body, timeout_s=call.timeout_s, stream=call.stream)
