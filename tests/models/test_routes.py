"""Retries and routes by themselves: whom is asked how often, and for how long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from noria.errors import (
    ConfigurationError,
    ContextTooLong,
    InvalidRequest,
    NoriaError,
    NotFound,
    RateLimited,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from noria.models import Call, Model, ModelCard, Reply, Retry, Retrying, Route, RouteSpec, RouteTarget


class Failing:
    """Fails as it is told to, or answers; `asked` are the times it was given."""

    def __init__(self, fail: Callable[[], NoriaError] | None = None, *, hangs: bool = False) -> None:
        self.card = ModelCard(id="it", source="provider", provider="custom")
        self.asked: list[float] = []
        self._fail, self._hangs = fail, hangs

    async def open(self, call: Call) -> Reply:
        self.asked.append(call.timeout_s)
        if self._hangs:
            await asyncio.sleep(call.timeout_s)
        if self._fail is not None:
            raise self._fail()

        async def pieces() -> AsyncIterator[bytes]:
            yield b"{}"

        async def close() -> None:
            return

        return Reply(self.card, pieces(), close)


def call(timeout_s: float = 600.0) -> Call:
    return Call("chat", {}, timeout_s=timeout_s)


async def test_an_answer_that_takes_too_long_is_asked_for_once() -> None:
    model = Failing(lambda: UpstreamTimeout("slow"), hangs=True)
    begun = time.monotonic()
    with pytest.raises(UpstreamTimeout):
        await Retrying(model, Retry(base_s=0.01, cap_s=0.01)).open(call(0.2))
    assert len(model.asked) == 1
    assert time.monotonic() - begun < 1


async def test_all_attempts_share_the_time_of_the_call() -> None:
    model = Failing(lambda: RateLimited("busy", retry_after_s=0.1))
    with pytest.raises(RateLimited):
        await Retrying(model, Retry(attempts=3, base_s=0.01)).open(call(10))
    first, second, third = model.asked
    assert first == 10
    assert third < second - 0.09 < first - 0.18


async def test_no_wait_outlasts_the_call() -> None:
    model = Failing(lambda: Unavailable("starting", retry_after_s=5))
    begun = time.monotonic()
    with pytest.raises(Unavailable):
        await Retrying(model).open(call(1))
    assert len(model.asked) == 1
    assert time.monotonic() - begun < 1


def route(**models: Model) -> Route:
    targets = tuple(RouteTarget(model=name) for name in models)
    card = ModelCard(id="route", source="route", route=RouteSpec(strategy="fallback", targets=targets))

    async def resolve(name: str) -> Model:
        return models[name]

    return Route(card, resolve)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("no key", code="missing_credential"),
        InvalidRequest("no address", code="missing_base_url"),
        InvalidRequest("moved inside", code="private_address"),
        UpstreamError("wrong key", code="upstream_authentication"),
        UpstreamTimeout("slow"),
        ConfigurationError("the key cannot be decrypted"),
        NotFound("retired", code="model_not_found"),
    ],
    ids=lambda error: error.code or type(error).__name__,
)
async def test_a_fallback_goes_on_past_a_target_that_cannot_answer(error: NoriaError) -> None:
    last = Failing()
    reply = await route(first=Failing(lambda: error), last=last).open(call(7))
    assert reply.variant == "last"
    assert last.asked == [7], "each target has the whole time"


@pytest.mark.parametrize("error", [InvalidRequest("bad temperature"), ContextTooLong("too long")])
async def test_a_wrong_request_is_wrong_for_all_targets(error: NoriaError) -> None:
    last = Failing()
    with pytest.raises(type(error)):
        await route(first=Failing(lambda: error), last=last).open(call())
    assert not last.asked


async def test_a_failure_that_may_pass_is_told_before_a_missing_key() -> None:
    busy = Failing(lambda: RateLimited("busy"))
    keyless = Failing(lambda: InvalidRequest("no key", code="missing_credential"))
    for targets in ({"a": busy, "b": keyless}, {"a": keyless, "b": busy}):
        with pytest.raises(RateLimited) as error:
            await route(**targets).open(call())
        assert error.value.variant == next(name for name, model in targets.items() if model is busy)
