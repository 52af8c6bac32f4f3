"""Sums and percentiles of traces, by group."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Integer, case, cast, func, select

from noria.tracing._records import STATUS_ERROR
from noria.tracing._schema import spans, traces
from noria.tracing._summary import ERROR

GroupBy = Literal["none", "model", "provider", "key", "day", "name", "service", "status"]

_DAY_NS = 86_400 * 10**9
_t, _s = traces.c, spans.c


@dataclass(frozen=True, slots=True)
class StatsRow:
    """One group. `group` is the model, key, day (`2026-11-22`, UTC) …, None for those without one."""

    group: str | None
    requests: int
    errors: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    latency_mean_s: float
    latency_p50_s: float
    latency_p95_s: float
    latency_p99_s: float


def grouped(connection: Connection, where: ColumnElement[bool], group_by: GroupBy) -> list[StatsRow]:
    """The groups of the traces that match, most requests first (days in order)."""
    if group_by in ("model", "provider"):
        column = _s.model if group_by == "model" else _s.provider
        source = select(
            column.label("group_key"),
            _s.duration_ns,
            case((_s.status == STATUS_ERROR, 1), else_=0).label("failed"),
            func.coalesce(_s.input_tokens, 0).label("input_tokens"),
            func.coalesce(_s.output_tokens, 0).label("output_tokens"),
            func.coalesce(_s.cost_usd, 0.0).label("cost_usd"),
        ).join(traces, _t.id == _s.trace)
        source = source.where(where, _s.counted == 1)
    else:
        source = select(
            _group(group_by).label("group_key"),
            _t.duration_ns,
            case((_t.status == ERROR, 1), else_=0).label("failed"),
            _t.input_tokens,
            _t.output_tokens,
            _t.cost_usd,
        ).where(where)
    rows = connection.execute(_percentiles(source)).all()
    found = [_row(row, group_by) for row in rows]
    if group_by == "day":
        return sorted(found, key=lambda row: row.group or "")
    return sorted(found, key=lambda row: (-row.requests, row.group or ""))


def _group(group_by: GroupBy) -> Any:
    columns = {"key": _t.key_id, "name": _t.name, "service": _t.service, "status": _t.status}
    if group_by == "day":
        return cast(_t.start_ns // _DAY_NS, Integer)
    return columns[group_by] if group_by in columns else cast(None, Integer)


def _percentiles(source: Any) -> Any:
    """Nearest-rank percentiles by numbering each group's rows: SQLite has no function for it."""
    rows = source.subquery()
    numbered = select(
        rows,
        func.row_number().over(partition_by=rows.c.group_key, order_by=rows.c.duration_ns).label("place"),
        func.count().over(partition_by=rows.c.group_key).label("total"),
    ).subquery()
    n = numbered.c

    def at(percent: int) -> Any:
        rank = (n.total * percent + 99) // 100
        return func.max(case((n.place == rank, n.duration_ns))).label(f"p{percent}")

    return select(
        n.group_key,
        func.count().label("requests"),
        func.sum(n.failed).label("errors"),
        func.sum(n.input_tokens).label("input_tokens"),
        func.sum(n.output_tokens).label("output_tokens"),
        func.sum(n.cost_usd).label("cost_usd"),
        func.avg(n.duration_ns).label("mean"),
        at(50),
        at(95),
        at(99),
    ).group_by(n.group_key)


def _row(row: Any, group_by: GroupBy) -> StatsRow:
    key = row.group_key
    if group_by == "day":
        key = _date(int(key))
    elif group_by == "status":
        key = "error" if key == ERROR else "ok"
    return StatsRow(
        group=None if key is None else str(key),
        requests=row.requests,
        errors=int(row.errors),
        input_tokens=int(row.input_tokens),
        output_tokens=int(row.output_tokens),
        cost_usd=float(row.cost_usd),
        latency_mean_s=float(row.mean) / 1e9,
        latency_p50_s=row.p50 / 1e9,
        latency_p95_s=row.p95 / 1e9,
        latency_p99_s=row.p99 / 1e9,
    )


def _date(day: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date().isoformat()
