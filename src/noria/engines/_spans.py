"""Spans of an engine's own work, sent back with the answer that they belong to.

A request with a `traceparent` gets, in OTLP's JSON, the header `x-noria-spans` on a whole answer, or the comment
`: noria-spans …` behind the `[DONE]` of a streamed one. So an engine needs no exporter, no address and no key, and its
spans arrive with the answer. They are made once an answer is finished, from times that were noted anyway. Knows nothing
about who stores them. Sources: https://www.w3.org/TR/trace-context/, https://opentelemetry.io/docs/specs/otlp/
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

__all__ = ["SPANS_COMMENT", "SPANS_HEADER", "EngineSpans", "Stage", "spans_wanted"]

SPANS_HEADER = "x-noria-spans"
SPANS_COMMENT = b": noria-spans "

_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_INTERNAL, _SERVER = 1, 2
_PARENT_IS_REMOTE = 0x300


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the work, from `begun_s` to `ended_s` of `time.monotonic()`."""

    name: str
    begun_s: float
    ended_s: float
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class EngineSpans:
    """The caller's span, under which those of `service` (the engine's kind) are to stand."""

    service: str
    trace_id: str
    parent_id: str

    def header(self, whole: Stage, parts: Iterable[Stage]) -> tuple[bytes, bytes]:
        """The header of a whole answer."""
        return SPANS_HEADER.encode(), self.encoded(whole, parts)

    def comment(self, whole: Stage, parts: Iterable[Stage]) -> bytes:
        """What follows a streamed answer's `[DONE]`: clients ignore comments."""
        return SPANS_COMMENT + self.encoded(whole, parts) + b"\n\n"

    def encoded(self, whole: Stage, parts: Iterable[Stage]) -> bytes:
        """One OTLP export request in JSON (ASCII, without line ends): the whole and, as its children, the parts."""
        epoch_ns = time.time_ns() - time.monotonic_ns()
        outer = self._span(whole, self.parent_id, epoch_ns)
        outer |= {"kind": _SERVER, "flags": _PARENT_IS_REMOTE}
        inner = [self._span(part, outer["spanId"], epoch_ns) for part in parts]
        resource = {"attributes": _pairs({"service.name": self.service})}
        scope = {"scope": {"name": self.service}, "spans": [outer, *inner]}
        # Names of models may hold any character, and a header may not.
        return (
            orjson.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}).decode().encode("ascii", "replace")
        )

    def _span(self, stage: Stage, parent_id: str, epoch_ns: int) -> dict[str, Any]:
        begun_ns = int(stage.begun_s * 1e9)
        return {
            "traceId": self.trace_id,
            "spanId": secrets.token_hex(8),
            "parentSpanId": parent_id,
            "name": stage.name,
            "kind": _INTERNAL,
            "startTimeUnixNano": epoch_ns + begun_ns,
            "endTimeUnixNano": epoch_ns + max(begun_ns, int(stage.ended_s * 1e9)),
            "attributes": _pairs(stage.attributes),
        }


def spans_wanted(headers: Iterable[tuple[bytes, bytes]], service: str) -> EngineSpans | None:
    """Where spans belong, if a request's ASGI headers say so. A malformed `traceparent` is ignored, as W3C's text asks."""
    for name, value in headers:
        if name == b"traceparent":
            found = _TRACEPARENT.fullmatch(value)
            return EngineSpans(service, found[1].decode(), found[2].decode()) if found else None
    return None


def _pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": value}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": str(value)}
