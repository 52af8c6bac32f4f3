"""The row of a trace: its spans added up as they arrive, in any order.

A trace has no end: spans come late, parents come after children or never. So every field is a sum, a minimum, a maximum
or "the best so far" by a rank that does not depend on the order, and the row is right after each batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from noria.tracing._normalise import Facts
from noria.tracing._records import STATUS_ERROR, SpanRecord, clean_text

OK, ERROR = 1, 2
_SERVER_KINDS = (2, 5)  # OTLP: server, consumer: the first span of a process
_INSIDE, _LOCAL_ROOT, _ROOT = 0, 1, 2


@dataclass(slots=True)
class TraceRow:
    """A row of `traces`. `root_rank` says how surely the named span is the trace's root."""

    id: int
    project: str
    trace_id: str
    start_ns: int
    end_ns: int
    duration_ns: int = 0
    root_rank: int = -1
    root_start_ns: int = 0
    name: str = ""
    status: int = OK
    error_type: str | None = None
    model: str | None = None
    service: str | None = None
    key_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_usd: float = 0.0
    ttft_s: float | None = None
    span_count: int = 0
    error_count: int = 0
    input_preview: str | None = None
    output_preview: str | None = None

    def add(self, span: SpanRecord, found: Facts, previews: tuple[str, str]) -> None:
        """Count one more span in."""
        self.start_ns = min(self.start_ns, span.start_ns)
        self.end_ns = max(self.end_ns, span.end_ns)
        self.span_count += 1
        failed = span.status == STATUS_ERROR
        self.error_count += failed
        if found.counted:
            self.input_tokens += found.input_tokens or 0
            self.output_tokens += found.output_tokens or 0
            self.total_tokens = self.input_tokens + self.output_tokens
            self.cost_usd += found.cost_usd or 0.0
        rank = _rank(span)
        # The earliest span of the highest rank names the trace.
        names = (-rank, span.start_ns) < (-self.root_rank, self.root_start_ns)
        if names:
            self.root_rank, self.root_start_ns, self.name = rank, span.start_ns, span.name
            if rank > _INSIDE:
                self.status = ERROR if failed else OK
                self.duration_ns = span.end_ns - span.start_ns
                self.error_type = found.error_type
        if self.root_rank == _INSIDE:  # no root yet: the extent of what is known
            self.duration_ns = self.end_ns - self.start_ns
            if failed:
                self.status, self.error_type = ERROR, self.error_type or found.error_type
        self._describe(span, found, previews, better=names and rank > _INSIDE)

    def _describe(self, span: SpanRecord, found: Facts, previews: tuple[str, str], *, better: bool) -> None:
        service = clean_text(str(span.resource.get("service.name") or "")[:200]) or None
        for name, value in (
            ("model", found.model),
            ("service", service),
            ("key_id", found.key_id),
            ("session_id", found.session_id),
            ("user_id", found.user_id),
            ("ttft_s", found.ttft_s),
            ("input_preview", previews[0] or None),
            ("output_preview", previews[1] or None),
        ):
            if value is not None and (better or getattr(self, name) is None):
                setattr(self, name, value)

    def values(self) -> tuple[Any, ...]:
        return _values(self)


# In the order of the table's columns, which a test holds equal.
COLUMNS = tuple(field.name for field in fields(TraceRow))
_values = attrgetter(*COLUMNS)


def new_row(row_id: int, span: SpanRecord) -> TraceRow:
    """The row of a trace of which nothing is known but this span, not yet counted in."""
    return TraceRow(row_id, span.project, span.trace_id, span.start_ns, span.end_ns)


def _rank(span: SpanRecord) -> int:
    if span.parent_id is None:
        return _ROOT
    if span.parent_remote or (span.parent_remote is None and span.kind in _SERVER_KINDS):
        return _LOCAL_ROOT
    return _INSIDE
