"""A call that both its ends report is counted once, at the caller's: an engine or a remote that sends spans of its own
says the same usage again.

The two ends may come in any order and in different batches. Knows nothing about how spans are kept beside their columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, select, update

from noria.tracing._normalise import Facts
from noria.tracing._records import SpanRecord
from noria.tracing._schema import spans
from noria.tracing._summary import TraceRow

__all__ = ["count_once"]

_SERVER, _CLIENT = 2, 3
_CHUNK = 200  # bound values of one statement
_Key = tuple[str, str, str]  # project, trace, span


def count_once(
    connection: Connection, items: Iterable[tuple[SpanRecord, Facts]], rows: Mapping[tuple[str, str], TraceRow]
) -> None:
    """Makes counted spans uncounted where the caller's end is counted, in this batch or in the store.

    `rows` are the traces that were known before; their sums lose what a stored callee's end had added.
    """
    counted = [(record, facts) for record, facts in items if facts.counted]
    callees = {(r.project, r.trace_id, r.parent_id): facts for r, facts in counted if r.kind == _SERVER and r.parent_id}
    callers = {(r.project, r.trace_id, r.span_id) for r, _ in counted if r.kind == _CLIENT}
    if callees:
        for key in callers | _stored_callers(connection, callees, rows):
            if (callee := callees.get(key)) is not None:
                callee.counted = False
    if callers and rows:
        _forget_stored_callees(connection, callers, rows)


def _stored_callers(connection: Connection, callees: Mapping[_Key, Facts], rows: Mapping[tuple[str, str], TraceRow]) -> set[_Key]:
    found: set[_Key] = set()
    for row, span_ids in _by_row(callees, rows):
        query = select(spans.c.span_id).where(spans.c.trace == row.id, spans.c.span_id.in_(span_ids), spans.c.counted == 1)
        found |= {(row.project, row.trace_id, span_id) for span_id in connection.scalars(query)}
    return found


def _forget_stored_callees(connection: Connection, callers: set[_Key], rows: Mapping[tuple[str, str], TraceRow]) -> None:
    for row, span_ids in _by_row(callers, rows):
        query = select(spans.c.id, spans.c.input_tokens, spans.c.output_tokens, spans.c.cost_usd).where(
            spans.c.trace == row.id, spans.c.parent_id.in_(span_ids), spans.c.kind == _SERVER, spans.c.counted == 1
        )
        for callee in connection.execute(query).all():
            connection.execute(update(spans).where(spans.c.id == callee.id).values(counted=0))
            row.input_tokens -= callee.input_tokens or 0
            row.output_tokens -= callee.output_tokens or 0
            row.total_tokens = row.input_tokens + row.output_tokens
            row.cost_usd -= callee.cost_usd or 0.0


def _by_row(keys: Iterable[_Key], rows: Mapping[tuple[str, str], TraceRow]) -> Iterable[tuple[TraceRow, list[str]]]:
    """The known traces among the keys, each with its span ids."""
    found: dict[tuple[str, str], list[str]] = {}
    for project, trace_id, span_id in keys:
        if (project, trace_id) in rows:
            found.setdefault((project, trace_id), []).append(span_id)
    for key, span_ids in found.items():
        for start in range(0, len(span_ids), _CHUNK):
            yield rows[key], span_ids[start : start + _CHUNK]
