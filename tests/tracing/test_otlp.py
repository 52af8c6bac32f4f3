"""OTLP/HTTP in: both encodings, partial success, garbage, bombs, repeats, back-pressure."""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from sqlalchemy import text

from noria.errors import InvalidRequest, PayloadTooLarge, Unavailable
from noria.tracing import TraceFilter, Tracing, _batch, _otlp
from noria.tracing._otlp import from_json, from_protobuf
from noria.tracing._otlp_size import parts_of
from noria.tracing._records import SpanRecord

Open = Callable[..., Tracing]

T0 = 1_790_000_000_000_000_000
PROTOBUF, JSON = "application/x-protobuf", "application/json"


def request(count: int = 1, **fields: Any) -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "their-app"
    scope = group.scope_spans.add()
    scope.scope.name = "their.library"
    for i in range(count):
        values: dict[str, Any] = {"trace_id": os.urandom(16), "span_id": os.urandom(8), "start_time_unix_nano": T0 + i}
        span = scope.spans.add(**(values | {"name": "work", "end_time_unix_nano": T0 + 5_000_000} | fields))
        attribute = span.attributes.add(key="list").value
        attribute.array_value.values.add().int_value = 1
        attribute.array_value.values.add().string_value = "two"
        span.attributes.add(key="map").value.kvlist_value.values.add(key="k").value.double_value = 0.5
        span.attributes.add(key="bytes").value.bytes_value = b"\xff"
        span.attributes.add(key="empty")
        span.events.add(name="exception", time_unix_nano=T0).attributes.add(key="exception.type").value.string_value = "E"
        span.links.add(trace_id=os.urandom(16), span_id=os.urandom(8))
    return message


def as_json(message: ExportTraceServiceRequest) -> bytes:
    """The JSON encoding as OTLP wants it: hex ids, 64-bit integers as text."""
    spans = [
        {
            "traceId": span.trace_id.hex(),
            "spanId": span.span_id.hex().upper(),
            "name": span.name,
            "kind": "SPAN_KIND_SERVER",
            "startTimeUnixNano": str(span.start_time_unix_nano),
            "endTimeUnixNano": span.end_time_unix_nano,
            "status": {"code": 2, "message": "no"},
            "attributes": [
                {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "two"}]}}},
                {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"doubleValue": 0.5}}]}}},
            ],
        }
        for span in message.resource_spans[0].scope_spans[0].spans
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "their-app"}}]}
    group = {"resource": resource, "scopeSpans": [{"scope": {"name": "their.library"}, "spans": spans}]}
    return orjson.dumps({"resourceSpans": [group]})


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON + "; charset=utf-8"])
async def test_both_encodings_are_stored(tracing: Tracing, kind: str, encoding: str | None) -> None:
    message = request(3)
    body = message.SerializeToString() if kind == PROTOBUF else as_json(message)
    packed = {None: lambda b: b, "gzip": gzip.compress, "deflate": zlib.compress}[encoding](body)
    reply = await tracing.ingest_otlp(packed, kind, encoding, "p")
    assert (reply.accepted, reply.rejected) == (3, 0)
    assert reply.body == (b"" if kind == PROTOBUF else b"{}")
    tracing.flush()
    page = await tracing.store.list(TraceFilter(project="p", service="their-app"))
    assert len(page.traces) == 3
    tree = await tracing.store.get(page.traces[0].trace_id.upper(), project="p")
    node = tree.roots[0]
    assert node.attributes["list"] == [1, "two"]
    assert node.attributes["map"] == {"k": 0.5}
    assert node.scope == "their.library"
    if kind == PROTOBUF:
        assert node.attributes["bytes"] == "ff"
        assert node.error_type == "E"
    else:
        assert (node.kind, node.status, node.status_message) == ("server", "error", "no")


async def test_partial_success_names_what_was_refused(tracing: Tracing) -> None:
    message = request(2)
    message.resource_spans[0].scope_spans[0].spans[0].trace_id = b"short"
    reply = await tracing.ingest_otlp(message.SerializeToString(), PROTOBUF, None)
    answer = ExportTraceServiceResponse.FromString(reply.body)
    assert (reply.accepted, answer.partial_success.rejected_spans) == (1, 1)
    assert "trace_id" in answer.partial_success.error_message
    reply = await tracing.ingest_otlp(as_json(message), JSON, None)
    assert orjson.loads(reply.body)["partialSuccess"]["rejectedSpans"] == "1"


async def test_a_batch_sent_twice_counts_once(tracing: Tracing) -> None:
    body = request(5).SerializeToString()
    for _ in range(3):
        await tracing.ingest_otlp(body, PROTOBUF, None)
        tracing.flush()
    page = await tracing.store.list(TraceFilter())
    assert [trace.span_count for trace in page.traces] == [1] * 5
    assert tracing.health().written == 5


@pytest.mark.parametrize(
    ("body", "kind", "encoding", "error"),
    [
        (b"\xff\xff\xff garbage", PROTOBUF, None, InvalidRequest),
        (b"{", JSON, None, InvalidRequest),
        (b"[]", JSON, None, InvalidRequest),
        (b'{"resourceSpans": 5}', JSON, None, InvalidRequest),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "x"}]}]}]}', JSON, None, InvalidRequest),
        (b"", "text/plain", None, InvalidRequest),
        (b"not gzip", PROTOBUF, "gzip", InvalidRequest),
        (gzip.compress(b"x" * 100)[:-12], PROTOBUF, "gzip", InvalidRequest),
        (b"", PROTOBUF, "br", InvalidRequest),
        (gzip.compress(b"\0" * 200_000_000), PROTOBUF, "gzip", PayloadTooLarge),
        (b"\0" * 40_000_000, PROTOBUF, None, PayloadTooLarge),
    ],
    ids=["protobuf", "json", "json list", "json number", "json time", "kind", "gzip", "cut", "br", "bomb", "large"],
)
async def test_garbage_is_refused(tracing: Tracing, body: bytes, kind: str, encoding: str | None, error: type) -> None:
    with pytest.raises(error):
        await tracing.ingest_otlp(body, kind, encoding)


def test_senders_cannot_choose_their_project() -> None:
    message = request()
    span = message.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="noria.project").value.string_value = "another"
    records, _ = from_protobuf(message.SerializeToString(), "mine")
    assert records[0].project == "mine"
    assert "noria.project" not in records[0].attributes


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_spans_or_a_400(data: bytes) -> None:
    for read in (from_protobuf, from_json):
        try:
            read(data, "p")
        except InvalidRequest:
            continue


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["resourceSpans", "scopeSpans", "spans", "attributes", "key", "value", "traceId", "events",
                         "intValue", "arrayValue", "values", "resource", "status", "kind"]), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(_json)
def test_any_json_is_spans_or_a_400(value: Any) -> None:
    import json

    try:
        from_json(json.dumps(value).encode(), "p")
    except InvalidRequest:
        return


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (ExportTraceServiceRequest(resource_spans=[{"scope_spans": [{"spans": [{}] * 20_001}]}]).SerializeToString(), PROTOBUF),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b"{}," * 20_000 + b"{}]}]}]}", JSON),
        (b'{"resourceSpans":[' + b'{"scopeSpans":[{"spans":[{},{}]}]},' * 10_000 + b'{"scopeSpans":[{"spans":[{}]}]}]}', JSON),
    ],
    ids=["protobuf", "json", "json groups"],
)
async def test_a_small_body_is_not_made_very_many_spans(tracing: Tracing, body: bytes, kind: str) -> None:
    packed = gzip.compress(body)
    assert len(packed) < 20_000
    with pytest.raises(PayloadTooLarge):
        await tracing.ingest_otlp(packed, kind, "gzip")


async def test_spans_that_share_a_long_prompt_are_taken_however_well_they_pack(tracing: Tracing) -> None:
    body = request(40)
    prompt = "You are a careful assistant. " * 3000
    for span in body.resource_spans[0].scope_spans[0].spans:
        attribute = span.attributes.add()
        attribute.key, attribute.value.string_value = "gen_ai.system_instructions", prompt
    packed = gzip.compress(body.SerializeToString())
    assert len(body.SerializeToString()) > 150 * len(packed)
    assert (await tracing.ingest_otlp(packed, PROTOBUF, "gzip")).accepted == 40


def test_parts_are_counted_without_making_them() -> None:
    def walk(message: Any) -> int:
        fields = 0
        for field, value in message.ListFields():
            each = value if field.is_repeated else [value]
            fields += len(each) + sum(walk(one) for one in each if field.message_type is not None)
        return fields

    message = request(3)
    assert parts_of(message.SerializeToString(), 10**6) == walk(message) > 40
    assert parts_of(message.SerializeToString(), 20) == 21
    events = ExportTraceServiceRequest(resource_spans=[{"scope_spans": [{"spans": [{"events": [{}] * 1000}]}]}])
    assert parts_of(events.SerializeToString(), 100) == 101


@given(st.binary(max_size=300))
def test_parts_of_any_bytes_are_a_number_or_an_error(data: bytes) -> None:
    try:
        message = ExportTraceServiceRequest.FromString(data)
    except DecodeError:
        message = None
    try:
        assert parts_of(data, 50) <= 51
    except ValueError:
        assert message is None or b"\x0b" in data or any(byte & 7 in (3, 4) for byte in data)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (
            ExportTraceServiceRequest(
                resource_spans=[{"scope_spans": [{"spans": [{"events": [{}] * 600_000}]}]}]
            ).SerializeToString(),
            PROTOBUF,
        ),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"events":[' + b"{}," * 400_000 + b"{}]}]}]}]}", JSON),
    ],
    ids=["protobuf", "json"],
)
async def test_a_large_body_of_tiny_parts_is_refused(
    tracing: Tracing, body: bytes, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_otlp, "_MAX_PARTS", 100_000)
    with pytest.raises(PayloadTooLarge, match="fields and values"):
        await tracing.ingest_otlp(body, kind, None)


async def test_few_requests_are_unpacked_at_once_and_only_so_many_wait(tracing: Tracing, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, seen, most = threading.Event(), [0], [0]
    lock = threading.Lock()
    read = _otlp.from_protobuf

    def slow(data: bytes, project: str) -> Any:
        with lock:
            seen[0] += 1
            most[0] = max(most[0], seen[0])
        go_on.wait(20)
        with lock:
            seen[0] -= 1
        return read(data, project)

    monkeypatch.setattr(_otlp, "from_protobuf", slow)
    body = request(1).SerializeToString()
    sending = [asyncio.create_task(tracing.ingest_otlp(body, PROTOBUF, None)) for _ in range(64)]
    await asyncio.sleep(0.2)
    with pytest.raises(Unavailable) as caught:
        await asyncio.wait_for(tracing.ingest_otlp(body, PROTOBUF, None), 2)
    assert caught.value.retry_after_s
    go_on.set()
    await asyncio.gather(*sending)
    assert most[0] <= 2
    await tracing.ingest_otlp(body, PROTOBUF, None)


async def test_a_full_queue_is_a_503_and_nothing_is_lost(open_tracing: Open) -> None:
    tracing = open_tracing(queue_spans=10, commit_interval_s=60.0, commit_spans=10_000)
    tracer = tracing.provider.get_tracer("noria.test")
    for _ in range(12):
        tracer.start_span("s").end()
    assert tracing.pressure() >= 1.0
    with pytest.raises(Unavailable):
        tracing.admit()
    with pytest.raises(Unavailable) as caught:
        await tracing.ingest_otlp(request(1).SerializeToString(), PROTOBUF, None)
    assert caught.value.retry_after_s
    assert tracing.flush()
    tracing.admit()
    await tracing.ingest_otlp(request(1).SerializeToString(), PROTOBUF, None)
    assert (tracing.health().written, tracing.health().lost) == (13, 0)


def count(tracing: Tracing) -> int:
    with tracing.store._engine.connect() as connection:
        return connection.execute(text("SELECT count(*) FROM trace_spans")).scalar_one()


def wait_for_spans(tracing: Tracing, count: int) -> None:
    while tracing.health().queued < count:
        time.sleep(0.01)


def busy(tracing: Tracing) -> threading.Event:
    """Keeps the writer at something else until the event is set."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(_: object) -> None:
        begun.set()
        go_on.wait(20)

    tracing._writer.submit(wait)
    begun.wait(20)
    return go_on


async def test_what_is_acknowledged_is_stored(tracing: Tracing) -> None:
    for size in (1, 1200):
        before = count(tracing)
        reply = await tracing.ingest_otlp(request(size).SerializeToString(), PROTOBUF, None)
        assert (reply.accepted, count(tracing) - before) == (size, size)


async def test_senders_that_wait_together_share_a_transaction(open_tracing: Open) -> None:
    tracing = open_tracing(commit_interval_s=60.0)
    go_on = busy(tracing)
    sending = [asyncio.create_task(tracing.ingest_otlp(request(2).SerializeToString(), PROTOBUF, None)) for _ in range(20)]
    await asyncio.to_thread(wait_for_spans, tracing, 40)
    assert not any(task.done() for task in sending)
    go_on.set()
    await asyncio.gather(*sending)
    assert b"noria_span_commit_seconds_count 1.0" in tracing.metrics.render()


async def test_a_span_that_cannot_be_stored_is_refused_by_number(tracing: Tracing, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = _batch._prepare

    def strict(record: SpanRecord, *args: Any, **options: Any) -> Any:
        if record.start_ns == T0 + 1:
            raise ValueError("strange")
        return prepare(record, *args, **options)

    monkeypatch.setattr(_batch, "_prepare", strict)
    reply = await tracing.ingest_otlp(request(3).SerializeToString(), PROTOBUF, None)
    assert (reply.accepted, reply.rejected, count(tracing)) == (2, 1, 2)
    assert ExportTraceServiceResponse.FromString(reply.body).partial_success.rejected_spans == 1


async def test_a_store_that_is_too_slow_is_a_503(open_tracing: Open) -> None:
    tracing = open_tracing()
    tracing._otlp._wait_s = 0.1
    body = request(3).SerializeToString()
    go_on = busy(tracing)
    with pytest.raises(Unavailable) as caught:
        await tracing.ingest_otlp(body, PROTOBUF, None)
    assert caught.value.retry_after_s
    go_on.set()
    tracing._otlp._wait_s = 5
    await tracing.ingest_otlp(body, PROTOBUF, None)  # what was stored all the same is not stored twice
    assert count(tracing) == 3


def test_what_cannot_be_queued_is_counted(open_tracing: Open) -> None:
    tracing = open_tracing(queue_spans=10, commit_interval_s=60.0, commit_spans=10_000)
    tracer = tracing.provider.get_tracer("noria.test")
    for _ in range(25):
        tracer.start_span("s").end()
    assert tracing.health().lost == 5
    assert b'noria_spans_lost_total{reason="queue_full"} 5.0' in tracing.metrics.render()
    assert tracing.flush()
    assert tracing.health().written == 20
