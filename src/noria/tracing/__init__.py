"""Spans in and out.

Make spans anywhere with OpenTelemetry's own API (`opentelemetry.trace.get_tracer("noria.…")`) and the names in
`semconv`; `configure` decides where they go. `Tracing.store` reads them back, `Tracing.ingest_otlp` takes those of
other programs, `Metrics` counts for Prometheus.
"""

from noria.tracing import _semconv as semconv
from noria.tracing._deletion import RetentionPolicy
from noria.tracing._metrics import CONTENT_TYPE as METRICS_CONTENT_TYPE
from noria.tracing._metrics import Metrics, RequestOutcome
from noria.tracing._otlp import IngestReply
from noria.tracing._payload import attach_payload
from noria.tracing._propagation import extract, inject, trace_id_of
from noria.tracing._provider import Tracing, TracingOptions, configure
from noria.tracing._query import Order, TraceFilter
from noria.tracing._sse import assemble
from noria.tracing._stats import GroupBy, StatsRow
from noria.tracing._store import TracePage, TraceStore, TraceSummary, TraceTree
from noria.tracing._tree import SpanNode
from noria.tracing._writer import TracingHealth, WriterOptions

__all__ = [
    "METRICS_CONTENT_TYPE",
    "GroupBy",
    "IngestReply",
    "Metrics",
    "Order",
    "RequestOutcome",
    "RetentionPolicy",
    "SpanNode",
    "StatsRow",
    "TraceFilter",
    "TracePage",
    "TraceStore",
    "TraceSummary",
    "TraceTree",
    "Tracing",
    "TracingHealth",
    "TracingOptions",
    "WriterOptions",
    "assemble",
    "attach_payload",
    "configure",
    "extract",
    "inject",
    "semconv",
    "trace_id_of",
]
