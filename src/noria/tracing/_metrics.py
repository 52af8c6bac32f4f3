"""Prometheus metrics of a Noria server: one registry, passed to whoever counts.

Knows nothing about spans; `tracing` counts its own queue here, the server its requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_TTFT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

CONTENT_TYPE = CONTENT_TYPE_LATEST


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """One answered request, for the counters. `route` is a template (`/v1/chat/completions`), never a raw path."""

    route: str
    model: str
    status: int
    latency_s: float
    ttft_s: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0


class Metrics:
    """Counters of one server. Safe from any thread; one call costs some microseconds."""

    def __init__(self, *, process: bool = True) -> None:
        self.registry = CollectorRegistry()
        if process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
        registry = self.registry
        self.requests = Counter("noria_requests", "Requests answered.", ("route", "model", "status"), registry=registry)
        self.latency = Histogram(
            "noria_request_seconds", "Time to the last byte.", ("route", "model"), buckets=_LATENCY_S, registry=registry
        )
        self.ttft = Histogram("noria_ttft_seconds", "Time to the first token.", ("model",), buckets=_TTFT_S, registry=registry)
        self.tokens = Counter("noria_tokens", "Tokens in and out.", ("model", "direction"), registry=registry)
        self.cost = Counter("noria_cost_usd", "Price of the answers by the price table.", ("model",), registry=registry)
        self.spans_written = Counter("noria_spans_written", "Spans stored durably.", registry=registry)
        self.spans_repeated = Counter("noria_spans_repeated", "Spans that had been stored before.", registry=registry)
        self.spans_lost = Counter("noria_spans_lost", "Spans that could not be stored.", ("reason",), registry=registry)
        self.spans_rejected = Counter("noria_spans_rejected", "Spans refused at the OTLP door.", registry=registry)
        self.traces_deleted = Counter("noria_traces_deleted", "Traces removed.", ("reason",), registry=registry)
        self.commits = Histogram(
            "noria_span_commit_seconds", "Time to store one group of spans.", buckets=_LATENCY_S[:11], registry=registry
        )
        self._queue = Gauge("noria_span_queue_depth", "Spans waiting to be stored.", registry=registry)
        self._lag = Gauge("noria_span_lag_seconds", "Age of the oldest span waiting to be stored.", registry=registry)
        for reason in ("queue_full", "storage", "malformed"):  # so that they show as 0 from the start
            self.spans_lost.labels(reason)

    def observe(self, outcome: RequestOutcome) -> None:
        """Count one answered request."""
        model = outcome.model
        self.requests.labels(outcome.route, model, str(outcome.status)).inc()
        self.latency.labels(outcome.route, model).observe(outcome.latency_s)
        if outcome.ttft_s is not None:
            self.ttft.labels(model).observe(outcome.ttft_s)
        if outcome.input_tokens:
            self.tokens.labels(model, "input").inc(outcome.input_tokens)
        if outcome.output_tokens:
            self.tokens.labels(model, "output").inc(outcome.output_tokens)
        if outcome.cost_usd:
            self.cost.labels(model).inc(outcome.cost_usd)

    def watch_queue(self, depth: Callable[[], float], lag_s: Callable[[], float]) -> None:
        """Read the span queue's depth and lag from these when the metrics are asked for."""
        self._queue.set_function(depth)
        self._lag.set_function(lag_s)

    def render(self) -> bytes:
        """All metrics as text; serve it with `CONTENT_TYPE`."""
        return generate_latest(self.registry)
