"""Traces on the terminal: filters, lists, sums, and one trace as a tree with its waterfall."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from noria.errors import InvalidRequest, NotFound

from ._api import Api
from ._command import confirm, target
from ._connection import connect
from ._show import Column, clock, count, duration, money, note, out, paragraph, print_json, size, table
from ._values import parse_pairs

__all__ = ["bar", "delete_traces", "moment", "print_list", "print_stats", "print_trace", "wanted"]

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d|w)")
_RECENT = 1000
_SHORT_ID = 8
_BAR_WIDTH = 16
_NAMES = {"since": "from", "until": "to", "key": "key_id", "session": "session_id", "user": "user_id"}
_FILTERS = (
    "since", "until", "model", "status", "name", "service", "key", "session", "user", "min_latency_s", "max_latency_s",
    "min_cost_usd", "max_cost_usd", "min_tokens", "max_tokens", "text", "prompt", "prompt_version",
)  # fmt: skip


def wanted(options: Mapping[str, Any]) -> dict[str, Any]:
    """The API's filter parameters from a command's options of the same names."""
    found = {_NAMES.get(name, name): options[name] for name in _FILTERS if options.get(name) is not None}
    for name in ("from", "to"):
        if name in found:
            found[name] = moment(found[name])
    return found | {f"metadata[{key}]": value for key, value in parse_pairs(options.get("metadata") or ()).items()}


def moment(text: str, *, now: float | None = None) -> float:
    """Unix seconds of `2h` (ago), a date or a date and time in ISO 8601 (local unless it says otherwise), or Unix seconds."""
    if found := _AGO.fullmatch(text.strip()):
        return (time.time() if now is None else now) - float(found[1]) * _UNITS[found[2]]
    if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
        return float(text)
    try:
        return datetime.fromisoformat(text.strip()).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequest(f"{text!r} is not a time.", hint="Write 2h, 3d, 2026-01-31 or 2026-01-31T08:00.") from None


def print_list(filters: Mapping[str, Any], order: str, limit: int) -> None:
    with connect() as api:
        rows = list(api.pages("/v1/noria/traces", limit=limit, order=order, **filters))
    if target().json:
        print_json(rows)
        return
    columns = (
        Column("TIME"), Column("NAME", shrink=True), Column("MODEL", shrink=True), Column("TOOK", "right"),
        Column("TOKENS", "right"), Column("COST", "right"), Column("", style="red"), Column("ID", style="dim"),
    )  # fmt: skip
    table(columns, (_row(row) for row in rows), empty="There are no traces here.")


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    tokens = count(row["total_tokens"]) if row["total_tokens"] else ""
    failed = "error" if row["status"] == "error" else ""
    took, when = duration(row["duration_ns"] / 1e9), clock(row["start_ns"] / 1e9)
    return when, row["name"], row["model"] or "", took, tokens, _cost(row["cost_usd"]), failed, row["id"][:_SHORT_ID]


def _cost(usd: float | None) -> str:
    return money(usd) if usd else ""


def print_stats(filters: Mapping[str, Any], group_by: str) -> None:
    with connect() as api:
        rows = api.get("/v1/noria/traces/stats", group_by=group_by, **filters)["data"]
    if target().json:
        print_json(rows)
        return
    columns = (
        Column(group_by.upper() if group_by != "none" else "ALL", shrink=True), Column("CALLS", "right"),
        Column("ERRORS", "right"), Column("IN", "right"), Column("OUT", "right"), Column("COST", "right"),
        Column("P50", "right"), Column("P95", "right"),
        Column("P99", "right"),
    )  # fmt: skip
    shown = (
        (
            row["group"] or "-", count(row["requests"]), count(row["errors"]), count(row["input_tokens"]),
            count(row["output_tokens"]), money(row["cost_usd"]),
            *(duration(row[f"latency_p{percent}_s"]) for percent in (50, 95, 99)),
        )
        for row in rows
    )  # fmt: skip
    table(columns, shown, empty="There are no traces here.")


def print_trace(trace_id: str | None, *, full: bool) -> None:
    with connect() as api:
        trace = api.get(f"/v1/noria/traces/{quote(_whole_id(api, trace_id))}")
    if target().json:
        print_json(trace)
        return
    from rich.text import Text

    head = Text(trace["name"], style="bold")
    head.append("  error" if trace["status"] == "error" else "  ok", style="red" if trace["status"] == "error" else "green")
    out().print(head)
    parts = [
        trace["id"],
        clock(trace["start_ns"] / 1e9),
        duration(trace["duration_ns"] / 1e9),
        f"{count(trace['input_tokens'])} tokens in, {count(trace['output_tokens'])} out" if trace["total_tokens"] else "",
        _cost(trace["cost_usd"]),
    ]
    out().print(" · ".join(part for part in parts if part), style="dim")
    out().print()
    lines = list(_lines(trace["spans"]))
    _print_waterfall(lines)
    for line in lines:
        _print_content(line.span, full=full)


def _whole_id(api: Api, given: str | None) -> str:
    """The id that begins so, among the recent traces; the newest for None."""
    if given is not None and len(given) >= 32:
        return given
    if given is None:
        newest = api.get("/v1/noria/traces", limit=1)["data"]
        if not newest:
            raise NotFound("There are no traces yet.")
        return newest[0]["id"]
    found = [row["id"] for row in api.pages("/v1/noria/traces", limit=_RECENT) if row["id"].startswith(given.lower())]
    if len(found) != 1:
        several = f"{len(found)} of the newest {_RECENT} traces begin" if found else f"None of the newest {_RECENT} traces begins"
        raise NotFound(f"{several} with {given!r}.", hint="`noria traces list --json` shows whole ids.")
    return found[0]


@dataclass(frozen=True, slots=True)
class _Line:
    """A span with the branch drawn before its name."""

    span: Mapping[str, Any]
    branch: str


def _lines(spans: Sequence[Mapping[str, Any]], before: str = "", *, top: bool = True) -> Iterator[_Line]:
    for number, span in enumerate(spans):
        last = number == len(spans) - 1
        yield _Line(span, "" if top else before + ("└ " if last else "├ "))
        yield from _lines(span["children"], before if top else before + ("  " if last else "│ "), top=False)


def _print_waterfall(lines: Sequence[_Line]) -> None:
    begin = min(line.span["start_ns"] for line in lines)
    extent = max(line.span["start_ns"] + line.span["duration_ns"] for line in lines) - begin
    columns = (
        Column("SPAN", shrink=True, raw=True), Column("", style="cyan", raw=True), Column("TOOK", "right"),
        Column("TOKENS", "right"), Column("COST", "right"), Column("", style="red"),
    )  # fmt: skip
    rows = (
        (
            line.branch + _one_line(line.span["name"]),
            bar(line.span["start_ns"] - begin, line.span["duration_ns"], extent, _BAR_WIDTH),
            duration(line.span["duration_ns"] / 1e9),
            _tokens(line.span),
            _cost(line.span["cost_usd"]),
            "error" if line.span["status"] == "error" else "",
        )
        for line in lines
    )
    table(columns, rows, empty="It has no spans.")


def _tokens(span: Mapping[str, Any]) -> str:
    if span["input_tokens"] is None and span["output_tokens"] is None:
        return ""
    return f"{count(span['input_tokens'] or 0)}→{count(span['output_tokens'] or 0)}"


def bar(start: int, length: int, extent: int, width: int) -> str:
    """A span's place in its trace: at least one cell long, never outside the `width` cells."""
    if extent <= 0:
        return "█" * width
    begin = min(int(start * width / extent), width - 1)
    end = max(begin + 1, min(width, round((start + length) * width / extent)))
    return " " * begin + "█" * (end - begin) + " " * (width - end)


def _print_content(span: Mapping[str, Any], *, full: bool) -> None:
    """What went in and came out; of spans that only frame others (the request, a job) only with `full`."""
    said = [(name, span[name]) for name in ("input", "output") if span[name] is not None and (full or span["operation"])]
    if span["status_message"]:
        said.append(("error", span["status_message"]))
    if not said:
        return
    model = span["model"] if span["model"] and span["model"] not in span["name"] else ""
    out().print()
    out().print(f"{span['name']}  {model}".rstrip(), style="bold")
    for name, value in said:
        out().print(name, style="dim")
        text = "\n".join(outline(value))
        paragraph(text if full else _cut(text), indent=2)


def outline(value: Any, indent: str = "") -> Iterator[str]:
    """Any JSON as indented lines for people: messages as `role: text`, mappings as `key: value`, lists with dashes."""
    if isinstance(value, dict) and set(value) == {"role", "content"} and isinstance(value["content"], str):
        value = {value["role"]: value["content"]}
    if isinstance(value, dict):
        for key, each in value.items():
            inner = list(outline(each, indent + "  "))
            short = len(inner) == 1 and not isinstance(each, dict | list)
            yield f"{indent}{key}: {inner[0].strip()}" if short else f"{indent}{key}:"
            yield from () if short else inner
    elif isinstance(value, list):
        for each in value:
            inner = list(outline(each, indent + "  "))
            yield f"{indent}- {inner[0].strip()}" if inner else f"{indent}-"
            yield from inner[1:]
    else:
        text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        yield from (f"{indent}{line}" for line in text.splitlines() or [""])


def _cut(text: str, lines: int = 8, characters: int = 600) -> str:
    kept = "\n".join(text.splitlines()[:lines])[:characters].rstrip()
    return kept if len(kept) >= len(text.rstrip()) else f"{kept} … ({size(len(text.encode()))}; --full shows it)"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def delete_traces(trace_ids: Sequence[str], filters: Mapping[str, Any], *, every: bool, yes: bool) -> None:

    if bool(trace_ids) == every:
        raise InvalidRequest("Give ids of traces, or --all (with filters, or for all of them).")
    if filters and not every:
        raise InvalidRequest("Filters go with --all.")
    with connect() as api:
        if every:
            try:
                api.delete("/v1/noria/traces", **filters)  # without `confirm` it only says how many
            except InvalidRequest as told:
                if told.param != "confirm":
                    raise
                confirm(f"{told.message.partition(' Send confirm')[0]} Go on?", yes=yes)
            deleted = api.delete("/v1/noria/traces", **filters, confirm=True)["deleted"]
        else:
            ids = [_whole_id(api, trace_id) for trace_id in trace_ids]
            confirm(f"Delete {len(ids)} traces?", yes=yes)
            for trace_id in ids:
                api.delete(f"/v1/noria/traces/{quote(trace_id)}")
            deleted = len(ids)
    if target().json:
        print_json({"deleted": deleted})
    else:
        note(f"Deleted {deleted} traces.")
