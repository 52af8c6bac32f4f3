"""The root span of a request, in plain ASGI: a child of the caller's trace if it sent one, named after the route.

Reading (GET) makes no span: someone who looks at traces would fill the list with their own looking.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from noria.models import Observed
from noria.tracing import RequestOutcome, extract, semconv

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ._wiring import Noria

__all__ = ["RootSpan", "is_counted"]

_tracer = trace.get_tracer("noria.server")
_QUIET = (
    "/v1/traces",
    "/v1/noria/keys",
    "/v1/noria/providers",
    "/v1/noria/tokens",
    "/v1/noria/feedback",
    "/v1/noria/datasets",
)


def is_counted(scope: Scope) -> bool:
    """Whether a request has a span and is among the counters' requests."""
    return scope["method"] not in {"GET", "HEAD", "OPTIONS"} and not scope["path"].startswith(_QUIET)


class RootSpan:
    def __init__(self, app: ASGIApp, noria: Noria) -> None:
        self._app, self._metrics = app, noria.tracing.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_counted(scope):
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"] if name.startswith(b"trace")
        }
        span = _tracer.start_span(f"{scope['method']} {scope['path']}", context=extract(headers), kind=SpanKind.SERVER)
        identity = f"{span.get_span_context().trace_id:032x}".encode()
        token = otel_context.attach(trace.set_span_in_context(span))
        begun, status = time.perf_counter(), 500

        async def with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", b"req_" + identity), (b"x-noria-trace-id", identity)]
            await send(message)

        try:
            await self._app(scope, receive, with_ids)
        finally:
            otel_context.detach(token)
            route = getattr(scope.get("route"), "path", None) or "unknown"
            span.set_attribute("http.response.status_code", status)
            span.set_attribute("http.route", route)
            span.update_name(f"{scope['method']} {route}" if route != "unknown" else f"{scope['method']} {scope['path']}")
            if status >= 400 or "noria.error" in scope:  # a stream that failed began with 200
                span.set_status(Status(StatusCode.ERROR, f"HTTP {status}" if status >= 400 else str(scope["noria.error"])))
                span.set_attribute(semconv.ERROR_TYPE, scope.get("noria.error") or str(status))
            span.end()
            counted: int = scope.get("noria.failed_status", status)
            self._metrics.observe(_outcome(scope, route, counted, time.perf_counter() - begun))


def _outcome(scope: Scope, route: str, status: int, latency_s: float) -> RequestOutcome:
    """What the counters are told; a route that called a model has left its name and usage in the scope."""
    observed: Observed | None = scope.get("noria.observed")
    model = str(scope.get("noria.model") or "")
    if observed is None:
        return RequestOutcome(route, model, status, latency_s)
    usage = observed.usage
    return RequestOutcome(
        route,
        model,
        status,
        latency_s,
        ttft_s=observed.ttft_s,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost_usd=usage.cost_usd or 0.0,
    )
