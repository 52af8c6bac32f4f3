"""Spans that an engine makes of its own work: whom they belong to, and that any name fits a header."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from noria.engines._spans import EngineSpans, Stage, spans_wanted
from noria.tracing._otlp import from_json

PARENT = EngineSpans("noria-test", "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


@given(st.binary(max_size=80) | st.just(b"00-" + b"0" * 32 + b"-" + b"A" * 16 + b"-01"))
def test_a_malformed_traceparent_is_ignored(value: bytes) -> None:
    assert spans_wanted([(b"host", b"x"), (b"traceparent", value)], "s") is None


VALUES = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.text(), st.dictionaries(st.text(), VALUES))
def test_whatever_a_model_is_called_fits_a_header(name: str, attributes: dict[str, Any]) -> None:
    now = time.monotonic()
    encoded = PARENT.encoded(Stage(name, now - 1, now, attributes), [Stage("part", now, now - 5)])
    assert encoded.isascii()
    assert b"\n" not in encoded
    records, problems = from_json(encoded, "proj_default")
    assert not problems
    assert {record.trace_id for record in records} == {PARENT.trace_id}
    assert records[0].parent_id == PARENT.parent_id
    assert records[1].parent_id == records[0].span_id
    assert records[1].end_ns == records[1].start_ns
    assert abs(records[0].end_ns - time.time_ns()) < 1e9
