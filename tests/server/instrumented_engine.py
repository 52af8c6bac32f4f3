"""A third party's engine: speaks OpenAI's chat route, and makes spans by OpenTelemetry's SDK with no setting of its own.

It knows nothing of Noria: where spans go stands in the variables that OpenTelemetry itself reads.
"""

import argparse
import http.server
import json

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

PROVIDER = TracerProvider(resource=Resource.create({"service.name": "third-party"}))
PROVIDER.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=100))
TRACER = PROVIDER.get_tracer("third.party")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"status": "ready"})

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        context = TraceContextTextMapPropagator().extract({"traceparent": self.headers.get("traceparent", "")})
        with TRACER.start_as_current_span("llm_request", context=context, kind=SpanKind.SERVER) as span:
            span.set_attributes({"gen_ai.response.model": "theirs", "gen_ai.usage.prompt_tokens": 3})
            span.set_attribute("gen_ai.usage.completion_tokens", 1)
        message = {"role": "assistant", "content": "hi"}
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self.answer({"id": "x", "object": "chat.completion", "model": "theirs", "choices": [choice], "usage": usage})

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
http.server.ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler).serve_forever()
