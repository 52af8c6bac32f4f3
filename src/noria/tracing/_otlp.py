"""OTLP/HTTP in: export requests as protobuf or JSON become span records.

Knows nothing about web frameworks. Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import zlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from noria.errors import InvalidRequest, PayloadTooLarge, Unavailable
from noria.tracing import _semconv as sc
from noria.tracing._metrics import Metrics
from noria.tracing._otlp_size import parts_of
from noria.tracing._records import SpanRecord

if TYPE_CHECKING:
    from noria.tracing._writer import SpanWriter

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_MAX_TIME_NS = 2**62
_MAX_DEPTH = 32
_MAX_WITH_ANSWER = 64  # spans
_MAX_SPANS = 20_000  # of a request: two bytes can be a span, and each takes a kilobyte here
_MAX_PARTS = 1_000_000  # fields and messages of a request, which take half a kilobyte each at most
_LARGE_BYTES = 2**20  # what is larger is measured first, and read one at a time
_READING, _WAITING = 2, 64  # requests being read, and those with the ones that wait for it


@dataclass(frozen=True, slots=True)
class IngestReply:
    """What to answer with status 200."""

    body: bytes
    content_type: str
    accepted: int
    rejected: int


class OtlpReader:
    """Reads export requests, and answers when their spans are stored."""

    def __init__(self, writer: SpanWriter, metrics: Metrics, *, max_bytes: int, wait_s: float) -> None:
        self._writer, self._metrics = writer, metrics
        self._max_bytes, self._wait_s = max_bytes, wait_s
        # Its own threads: however many send at once, few are unpacked, and other work has its threads.
        self._threads = ThreadPoolExecutor(_READING, "noria-otlp")
        self._large = threading.Lock()
        self._under_way = 0

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    async def ingest(self, body: bytes, content_type: str, content_encoding: str | None, project: str) -> IngestReply:
        """Store the spans of one request, all or none of those that are well formed."""
        # In a thread only what computes: many requests that wait must not take all threads.
        kind, accepted, problems, stored = await self._read(body, content_type, content_encoding, project)
        if stored is not None:
            try:
                async with asyncio.timeout(self._wait_s):
                    refused = await asyncio.wrap_future(stored)
            except TimeoutError:
                raise Unavailable(
                    f"The spans could not be stored within {self._wait_s:g} s.", code="tracing_overloaded", retry_after_s=2.0
                ) from None
            accepted -= refused
            problems += ["it cannot be stored"] * refused
        if problems:
            self._metrics.spans_rejected.inc(len(problems))
        return _reply(kind, accepted, problems)

    async def _read(
        self, body: bytes, content_type: str, content_encoding: str | None, project: str
    ) -> tuple[str, int, list[str], Future[int] | None]:
        if self._under_way >= _WAITING:
            raise Unavailable("Too many requests with spans at once.", code="tracing_overloaded", retry_after_s=2.0)
        self._under_way += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._take, body, content_type, content_encoding, project)
        finally:
            self._under_way -= 1

    def _take(
        self, body: bytes, content_type: str, content_encoding: str | None, project: str
    ) -> tuple[str, int, list[str], Future[int] | None]:
        """Read and queue: the encoding, how many spans are well formed, what is wrong with the others, and what to wait for."""
        kind = content_type.partition(";")[0].strip().lower()
        if kind not in (PROTOBUF, JSON):
            raise InvalidRequest(
                f"OTLP cannot be read from content type {content_type!r}.",
                param="Content-Type", code="unsupported_media_type", hint=f"Send {PROTOBUF} or {JSON}.",
            )  # fmt: skip
        data = _decompressed(body, content_encoding, self._max_bytes)
        large = len(data) > _LARGE_BYTES
        if large:
            _check_parts(data, kind)
        with self._large if large else contextlib.nullcontext():
            records, problems = from_protobuf(data, project) if kind == PROTOBUF else from_json(data, project)
        return kind, len(records), problems, self._writer.put_all(records, len(data)) if records else None


def from_protobuf(data: bytes, project: str) -> tuple[list[SpanRecord], list[str]]:
    """The spans of a binary request, and what is wrong with those left out."""
    try:
        request = ExportTraceServiceRequest.FromString(data)
    except DecodeError as error:
        raise InvalidRequest("The body is not an OTLP trace export request.", code="invalid_otlp") from error
    _limit(sum(len(scope.spans) for group in request.resource_spans for scope in group.scope_spans))
    records: list[SpanRecord] = []
    problems: list[str] = []
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                ids = (span.trace_id, span.span_id, span.parent_span_id)
                if problem := _problem(ids, span.start_time_unix_nano, span.end_time_unix_nano):
                    problems.append(problem)
                else:
                    records.append(_record(span, project, resource, scope.scope.name))
    return _foreign(records), problems


def _record(span: Any, project: str, resource: dict[str, Any], scope: str) -> SpanRecord:
    return SpanRecord(
        project=project,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        parent_remote=_remote(span.flags),
        name=span.name,
        start_ns=span.start_time_unix_nano,
        end_ns=max(span.end_time_unix_nano, span.start_time_unix_nano),
        kind=span.kind,
        status=span.status.code,
        status_message=span.status.message or None,
        attributes=_attributes(span.attributes),
        events=[
            {"name": event.name, "time_ns": event.time_unix_nano, "attributes": _attributes(event.attributes)}
            for event in span.events
        ],
        links=[{"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()} for link in span.links],
        resource=resource,
        scope=scope,
    )


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        value = pair.value
        kind = value.WhichOneof("value")
        # Text is nearly everything, so it goes first and directly.
        found[pair.key] = value.string_value if kind == "string_value" else _value(value, kind)
    return found


def _value(value: Any, kind: str | None) -> Any:
    if kind == "array_value":
        return [_value(item, item.WhichOneof("value")) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind) if kind else None


def from_json(data: bytes, project: str) -> tuple[list[SpanRecord], list[str]]:
    """The spans of a JSON request: camelCase or snake_case names, ids in hex, 64-bit integers as text or numbers."""
    try:
        request = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}", code="invalid_otlp") from error
    if not isinstance(request, dict):
        raise InvalidRequest("The body is not an OTLP trace export request.", code="invalid_otlp")
    records: list[SpanRecord] = []
    problems: list[str] = []
    try:
        for group in _get(request, "resourceSpans", []):
            resource = _json_attributes(_get(group.get("resource") or {}, "attributes", []))
            for scope in _get(group, "scopeSpans", []):
                name = str((scope.get("scope") or {}).get("name") or "")
                spans = _get(scope, "spans", [])
                _limit(len(records) + len(problems) + len(spans))
                for span in spans:
                    record = _json_record(span, project, problems)
                    if record is not None:
                        record.resource, record.scope = resource, name
                        records.append(record)
    except (AttributeError, TypeError, KeyError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"The body is not an OTLP trace export request: {error}", code="invalid_otlp") from error
    return _foreign(records), problems


def with_answer(spans: bytes, caller: SpanRecord) -> list[SpanRecord]:
    """The spans that came with an engine's answer: those of the caller's trace, in the caller's project. Garbage is none."""
    try:
        records, _ = from_json(spans, caller.project)
    except InvalidRequest:
        return []
    if caller.attributes.get(sc.CAPTURE) is False:
        for record in records:
            record.attributes[sc.CAPTURE] = False
    return [record for record in records if record.trace_id == caller.trace_id][:_MAX_WITH_ANSWER]


def _json_record(span: dict[str, Any], project: str, problems: list[str]) -> SpanRecord | None:
    start_ns, end_ns = int(_get(span, "startTimeUnixNano", 0)), int(_get(span, "endTimeUnixNano", 0))
    try:
        trace_id, span_id, parent_id = (bytes.fromhex(_get(span, name, "")) for name in ("traceId", "spanId", "parentSpanId"))
    except ValueError:
        problems.append("an id is not hexadecimal")
        return None
    if problem := _problem((trace_id, span_id, parent_id), start_ns, end_ns):
        problems.append(problem)
        return None
    status = span.get("status") or {}
    flags = span.get("flags")
    return SpanRecord(
        project=project,
        trace_id=trace_id.hex(),
        span_id=span_id.hex(),
        parent_id=parent_id.hex() or None,
        parent_remote=_remote(int(flags)) if flags is not None else None,
        name=str(span.get("name") or ""),
        start_ns=start_ns,
        end_ns=max(start_ns, end_ns),
        kind=_enum(span.get("kind"), _KINDS),
        status=_enum(status.get("code"), _STATUSES),
        status_message=status.get("message") or None,
        attributes=_json_attributes(_get(span, "attributes", [])),
        events=[
            {
                "name": str(event.get("name") or ""),
                "time_ns": int(_get(event, "timeUnixNano", 0)),
                "attributes": _json_attributes(_get(event, "attributes", [])),
            }
            for event in _get(span, "events", [])
        ],
        links=[
            {"trace_id": str(_get(link, "traceId", "")), "span_id": str(_get(link, "spanId", ""))}
            for link in _get(span, "links", [])
        ],
    )


_KINDS = ("SPAN_KIND_UNSPECIFIED", "SPAN_KIND_INTERNAL", "SPAN_KIND_SERVER", "SPAN_KIND_CLIENT", "SPAN_KIND_PRODUCER",
          "SPAN_KIND_CONSUMER")  # fmt: skip
_STATUSES = ("STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR")


def _enum(value: Any, names: tuple[str, ...]) -> int:
    if value is None:
        return 0
    number = names.index(value) if isinstance(value, str) and not value.isdecimal() else int(value)
    if not 0 <= number < len(names):
        raise ValueError(f"{value!r} is none of {', '.join(names)}")
    return number


def _get(source: dict[str, Any], name: str, default: Any) -> Any:
    """A field by its JSON name, or by its name in the protocol's definition, which parsers must take too."""
    value = source.get(name)
    if value is None:
        value = source.get("".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name))
    return default if value is None else value


def _json_attributes(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {str(pair["key"]): _json_value(pair.get("value") or {}, 0) for pair in pairs}


def _json_value(value: dict[str, Any], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("attributes are nested too deeply")
    for kind, item in value.items():
        match kind.replace("_", "").lower():
            case "stringvalue" | "boolvalue" | "bytesvalue":
                return item
            case "intvalue":
                return int(item)
            case "doublevalue":
                return float(item)
            case "arrayvalue":
                return [_json_value(entry, depth + 1) for entry in item.get("values") or []]
            case "kvlistvalue":
                return {str(pair["key"]): _json_value(pair.get("value") or {}, depth + 1) for pair in item.get("values") or []}
            case _:
                continue
    return None


def _problem(ids: tuple[bytes, bytes, bytes], start_ns: int, end_ns: int) -> str | None:
    trace_id, span_id, parent_id = ids
    if len(trace_id) != 16 or not any(trace_id):
        return "trace_id must be 16 bytes and not all zero"
    if len(span_id) != 8 or not any(span_id):
        return "span_id must be 8 bytes and not all zero"
    if len(parent_id) not in (0, 8):
        return "parent_span_id must be 8 bytes or empty"
    if not 0 < start_ns < _MAX_TIME_NS or end_ns >= _MAX_TIME_NS:
        return "start_time_unix_nano is missing or out of range"
    return None


def _remote(flags: int) -> bool | None:
    """Bits 8 and 9 of a span's flags: whether its parent's place is known, and whether it is remote."""
    return bool(flags & 0x200) if flags & 0x100 else None


def _foreign(records: list[SpanRecord]) -> list[SpanRecord]:
    """Senders cannot choose a project or a key other than their own."""
    for record in records:
        record.attributes.pop(sc.PROJECT, None)
        record.attributes.pop(sc.KEY_ID, None)
    return records


def _decompressed(body: bytes, encoding: str | None, limit: int) -> bytes:
    name = (encoding or "identity").strip().lower()
    if name == "identity" or not name:
        if len(body) > limit:
            raise _too_large(limit)
        return body
    if name not in ("gzip", "deflate"):
        raise InvalidRequest(
            f"Content encoding {encoding!r} is not understood.", param="Content-Encoding",
            code="unsupported_encoding", hint="Send gzip or no encoding.",
        )  # fmt: skip
    # At most one byte over the limit is ever unpacked, however much a small body promises.
    unpacker = zlib.decompressobj(wbits=47)
    try:
        data = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"The body is not {name}.", code="invalid_encoding") from error
    if len(data) > limit or unpacker.unconsumed_tail:
        raise _too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidRequest(f"The {name} body is cut off or followed by something.", code="invalid_encoding")
    return data


def _limit(spans: int) -> None:
    if spans > _MAX_SPANS:
        raise PayloadTooLarge(f"The export request has more than {_MAX_SPANS:,} spans.", hint="Lower the exporter's batch size.")


def _check_parts(data: bytes, kind: str) -> None:
    try:
        parts = parts_of(data, _MAX_PARTS) if kind == PROTOBUF else data.count(b"{") + data.count(b"[")
    except ValueError as error:
        raise InvalidRequest(f"The body is not an OTLP trace export request: {error}.", code="invalid_otlp") from None
    if parts > _MAX_PARTS:
        raise PayloadTooLarge(
            f"The export request has more than {_MAX_PARTS:,} fields and values.", hint="Lower the exporter's batch size."
        )


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The export request is larger than {limit} bytes.", hint="Lower the exporter's batch size.")


def _reply(kind: str, accepted: int, problems: list[str]) -> IngestReply:
    rejected = len(problems)
    message = f"{rejected} spans refused, the first because {problems[0]}." if problems else ""
    if kind == JSON:
        partial = {"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": message}} if rejected else {}
        return IngestReply(orjson.dumps(partial), JSON, accepted, rejected)
    response = ExportTraceServiceResponse()
    if rejected:
        response.partial_success.rejected_spans = rejected
        response.partial_success.error_message = message
    return IngestReply(response.SerializeToString(), PROTOBUF, accepted, rejected)
