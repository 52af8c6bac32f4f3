"""W3C trace context over HTTP: a trace continues through engines, remotes and clients.

Source: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from opentelemetry.context import Context
from opentelemetry.trace import Span, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_propagator = TraceContextTextMapPropagator()


def inject(headers: MutableMapping[str, str], span: Span | None = None) -> None:
    """Add `traceparent` (and `tracestate`) of a span, or of the current one, to outgoing headers."""
    _propagator.inject(headers, set_span_in_context(span) if span is not None else None)


def extract(headers: Mapping[str, str]) -> Context | None:
    """The context to start a request's first span in (`tracer.start_span(…, context=…)`).

    `headers` must be keyed in lower case or ignore case, as ASGI's and Starlette's are; None without `traceparent`.
    A malformed one is ignored, as W3C's text asks.
    """
    traceparent = headers.get("traceparent")
    if traceparent is None:
        return None
    carrier = {"traceparent": traceparent}
    if tracestate := headers.get("tracestate"):
        carrier["tracestate"] = tracestate
    return _propagator.extract(carrier, Context())


def trace_id_of(span: Span | None = None) -> str | None:
    """The trace id of a span, or of the current one, as 32 hex digits; what a user looks a trace up by."""
    context = (span if span is not None else get_current_span()).get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None
