"""One finished span on its way to the store, whatever made it.

The SDK's spans and the spans of an OTLP request become the same `SpanRecord`. Knows nothing about what attributes mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from noria.tracing import _semconv as sc

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from noria.tracing._payload import Payload

STATUS_ERROR = 2
DEFAULT_PROJECT = "proj_default"
MAX_INT64 = 2**63 - 1


@dataclass(slots=True)
class SpanRecord:
    """A finished span. Ids are lower-case hex; `kind` and `status` are OTLP's numbers; times are Unix nanoseconds.

    `parent_remote` is True when the parent is known to live in another process, None when nobody said.
    """

    project: str
    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int
    parent_remote: bool | None = None
    kind: int = 1
    status: int = 0
    status_message: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    links: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    resource: Mapping[str, Any] = field(default_factory=dict[str, Any])
    scope: str = ""
    payload: Payload | None = None


def from_sdk(span: ReadableSpan, payload: Payload | None) -> SpanRecord:
    """The record of a span that this process made with OpenTelemetry's API."""
    context = span.get_span_context()
    assert context is not None
    attributes = dict(span.attributes or {})
    parent = span.parent
    project = attributes.pop(sc.PROJECT, None)
    start_ns = span.start_time or 0
    return SpanRecord(
        project=str(project) if project else DEFAULT_PROJECT,
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        parent_id=f"{parent.span_id:016x}" if parent else None,
        parent_remote=parent.is_remote if parent else None,
        name=span.name,
        kind=span.kind.value + 1,  # the SDK counts from 0 (internal), OTLP from 1
        start_ns=start_ns,
        end_ns=span.end_time or start_ns,
        status=span.status.status_code.value,
        status_message=span.status.description,
        attributes=attributes,
        events=[
            {"name": event.name, "time_ns": event.timestamp, "attributes": dict(event.attributes or {})} for event in span.events
        ],
        links=[{"trace_id": f"{link.context.trace_id:032x}", "span_id": f"{link.context.span_id:016x}"} for link in span.links],
        resource=span.resource.attributes,
        scope=span.instrumentation_scope.name if span.instrumentation_scope else "",
        payload=payload,
    )


def plain(value: Any) -> Any:
    """The value with tuples as lists and nothing that JSON lacks (bytes as hex, integers beyond 64 bits as text)."""
    if value is None or isinstance(value, str | bool | float):
        return value
    if isinstance(value, int):
        return value if -MAX_INT64 <= value <= MAX_INT64 else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return str(value)


def clean_text(value: str) -> str:
    """Text without what databases refuse: NUL characters and lone surrogates."""
    if value.isascii() and "\x00" not in value:
        return value
    return value.replace("\x00", "").encode("utf-8", "replace").decode()
