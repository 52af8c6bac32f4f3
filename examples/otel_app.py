"""A program that sends its own OpenTelemetry spans to Noria, with Noria's spans as their children.

Run: pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http; python examples/otel_app.py
Needs NORIA_URL (http://127.0.0.1:8420), NORIA_API_KEY, OPENAI_BASE_URL and OPENAI_API_KEY.
"""

import os

from openai import OpenAI
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator


def main() -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "otel-example"}))
    exporter = OTLPSpanExporter(
        endpoint=f"{os.environ['NORIA_URL']}/v1/traces",
        headers={"authorization": f"Bearer {os.environ.get('NORIA_API_KEY', 'none')}"},
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    with provider.get_tracer("example").start_as_current_span("answer a customer") as span:
        span.set_attribute("session.id", "session-1")
        headers: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(headers)  # so that Noria's spans hang below ours
        answer = OpenAI().chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "Where is my parcel?"}],
            extra_headers=headers,
        )
        print(answer.choices[0].message.content)
        print("trace", f"{span.get_span_context().trace_id:032x}")
    provider.shutdown()


if __name__ == "__main__":
    main()
