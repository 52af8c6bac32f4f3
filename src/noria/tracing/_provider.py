"""Where Noria's spans go: `configure` puts the writer behind OpenTelemetry's own API.

The rest of Noria knows only `opentelemetry.trace.get_tracer("noria.…")`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from noria.errors import Unavailable
from noria.tracing import _semconv as sc
from noria.tracing._metrics import Metrics
from noria.tracing._otlp import IngestReply, OtlpReader
from noria.tracing._payload import take
from noria.tracing._records import DEFAULT_PROJECT
from noria.tracing._schema import migrate, open_engine
from noria.tracing._store import TraceStore
from noria.tracing._writer import SpanWriter, TracingHealth, WriterOptions

# Spans of long agent runs have many attributes; dropping any silently would make replays wrong.
_LIMITS = SpanLimits(
    max_span_attributes=1000, max_events=1000, max_links=1000, max_event_attributes=200, max_span_attribute_length=None
)


@dataclass(frozen=True, slots=True)
class TracingOptions:
    """`url` is `sqlite:////absolute/path/traces.db` or `postgresql://…`; `service` names this process in its spans."""

    url: str
    service: str = "noria"
    writer: WriterOptions = field(default_factory=WriterOptions)
    readers: int = 4
    # What an OTLP request may unpack to, and how long it waits for its spans to be stored: exporters give up after 10 s.
    otlp_max_bytes: int = 16 * 2**20
    otlp_wait_s: float = 8.0


class _ToWriter(SpanProcessor):
    """Hands finished spans over; runs on the event loop, so it appends to a queue and nothing else."""

    def __init__(self, writer: SpanWriter) -> None:
        self._writer = writer

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        # A span belongs to its parent's project and keeps its silence; the request's or job's first span is told which.
        attributes = getattr(trace.get_current_span(parent_context), "attributes", None)
        if attributes:
            for name in (sc.PROJECT, sc.CAPTURE):
                if (value := attributes.get(name)) is not None:
                    span.set_attribute(name, value)

    def on_end(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        payload = take(context.span_id) if context is not None else None
        if context is not None and context.trace_flags.sampled:
            self._writer.put(span, payload)

    def shutdown(self) -> None:
        self._writer.close()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._writer.flush(timeout_millis / 1000)


class Tracing:
    """The running trace system of one process: spans in, `store` for reading, `metrics`, and its state."""

    def __init__(self, options: TracingOptions, metrics: Metrics) -> None:
        self.metrics = metrics
        self._write_engine = open_engine(options.url, writer=True, pool_size=1)
        migrate(self._write_engine)
        self._writer = SpanWriter(self._write_engine, options.writer, metrics)
        self.store = TraceStore(options.url, self._writer, metrics, readers=options.readers)
        self._otlp = OtlpReader(self._writer, metrics, max_bytes=options.otlp_max_bytes, wait_s=options.otlp_wait_s)
        # The global ALWAYS_ON sampler: asking a parent's opinion costs more, and a caller's "not sampled" must not
        # hide what this server did.
        self.provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource({"service.name": options.service}),
            span_limits=_LIMITS,
            shutdown_on_exit=False,
        )
        self.provider.add_span_processor(_ToWriter(self._writer))
        # OpenTelemetry looks its context up among all installed packages the first time: here, not in a request.
        trace.get_current_span()

    def pressure(self) -> float:
        """How full the queue of spans is, from 0.0; from 1.0 on, admit nothing new."""
        return self._writer.pressure()

    def admit(self) -> None:
        """Raise Unavailable if the queue of spans is full; called where requests are admitted."""
        if self._writer.pressure() >= 1.0:
            raise Unavailable("Noria cannot record more requests at the moment.", code="tracing_overloaded", retry_after_s=1.0)

    async def ingest_otlp(
        self, body: bytes, content_type: str, content_encoding: str | None, project: str = DEFAULT_PROJECT
    ) -> IngestReply:
        """Take an OTLP/HTTP export request; returns when its spans are stored.

        Raises InvalidRequest (400) on garbage, PayloadTooLarge (413), Unavailable (503, the exporter tries again).
        """
        return await self._otlp.ingest(body, content_type, content_encoding, project)

    def health(self) -> TracingHealth:
        """Depth, lag, written, lost, and why nothing can be written if so."""
        return self._writer.health()

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until every span ended before this call is stored; blocks."""
        return self._writer.flush(timeout_s)

    def close(self) -> None:
        """Store what is queued and close every connection; blocks."""
        self._otlp.close()
        self._writer.close()
        self.store.close()
        self._write_engine.dispose()

    def __enter__(self) -> Tracing:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def configure(options: TracingOptions, *, metrics: Metrics | None = None, set_global: bool = True) -> Tracing:
    """Open the store and make every tracer of this process write to it.

    OpenTelemetry takes a global provider once in a process: later calls with `set_global` re-point tracers obtained
    from the `Tracing` returned here only (`tracing.provider.get_tracer`).
    """
    tracing = Tracing(options, metrics or Metrics())
    if set_global:
        _set_global(tracing.provider)
    return tracing


def _set_global(provider: TracerProvider) -> None:
    current: Any = trace.get_tracer_provider()
    if not isinstance(current, TracerProvider):
        trace.set_tracer_provider(provider)
