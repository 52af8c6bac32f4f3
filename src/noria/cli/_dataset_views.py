"""Datasets on the terminal: lists, one with its versions, rows, differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ._command import target
from ._connection import connect
from ._show import Column, ago, clock, count, facts, out, print_json, table
from ._values import parse_pairs

__all__ = ["dataset_path", "print_dataset", "print_datasets", "print_diff", "print_rows", "shown_text"]

_MOST_VERSIONS = 20


def dataset_path(dataset: str) -> str:
    return f"/v1/noria/datasets/{quote(dataset, safe='')}"


def print_datasets(limit: int) -> None:
    with connect() as api:
        rows = list(api.pages("/v1/noria/datasets", limit=limit))
    if target().json:
        print_json(rows)
        return
    columns = (
        Column("NAME", shrink=True), Column("VERSION", "right"), Column("CREATED"), Column("WHAT", shrink=True),
        Column("ID", style="dim"),
    )  # fmt: skip
    shown = ((row["name"], str(row["head"] or "empty"), ago(row["created_at"]), row["description"], row["id"]) for row in rows)
    table(columns, shown, empty="There are no datasets. Make one: noria datasets import NAME FILE --create")


def print_dataset(dataset: str) -> None:
    with connect() as api:
        row = api.get(dataset_path(dataset))
        versions = list(api.pages(f"{dataset_path(dataset)}/versions", limit=_MOST_VERSIONS))
    if target().json:
        print_json({**row, "versions": versions})
        return
    open_findings = sum(decisions.get("open", 0) for decisions in row["findings"].values())
    facts(
        (
            ("name", row["name"]),
            ("id", row["id"]),
            ("description", row["description"]),
            ("split", f"{row['validation_share']:.0%} validation, {row['test_share']:.0%} test"),
            ("findings", f"{open_findings} open" if open_findings else None),
            ("created", clock(row["created_at"])),
        )
    )
    out().print()
    columns = (
        Column("VERSION", "right"), Column("ROWS", "right"), Column("TRAIN", "right"), Column("VALIDATION", "right"),
        Column("TEST", "right"), Column("MADE"), Column("FROM", shrink=True), Column("NOTE", shrink=True),
    )  # fmt: skip
    table(columns, (_version(version) for version in versions), empty="It is empty.")


def _version(version: Mapping[str, Any]) -> tuple[str, ...]:
    counts, origin = version["counts"], version["origin"]
    numbers = (count(counts[name]) for name in ("total", "train", "validation", "test"))
    source = origin.get("filename") or origin["kind"]
    return str(version["version"]), *numbers, clock(version["created_at"]), source, version["note"]


def shown_text(message: Mapping[str, Any] | None) -> str:
    """A message in one line."""
    if message is None:
        return ""
    said = message.get("content")
    if isinstance(said, list):
        said = " ".join(str(part.get("text") or f"[{part.get('type')}]") for part in said)
    calls = ", ".join(f"{call['function']['name']}(…)" for call in message.get("tool_calls") or ())
    return " ".join(part for part in (said, calls) if part)


def _asked(row: Mapping[str, Any]) -> str:
    users = [message for message in row["messages"] if message["role"] == "user"]
    return shown_text((users or row["messages"])[-1])


def _answer(row: Mapping[str, Any]) -> str:
    if row.get("chosen"):
        return f"{shown_text(row['chosen'])} ≻ {shown_text(row.get('rejected'))}"
    return shown_text(row.get("expected"))


def print_rows(dataset: str, filters: Mapping[str, Any], metadata: Sequence[str], limit: int) -> None:
    labels = {f"metadata[{key}]": value for key, value in parse_pairs(metadata).items()}
    with connect() as api:
        rows = list(api.pages(f"{dataset_path(dataset)}/rows", limit=limit, order="asc", **filters, **labels))
    if target().json:
        print_json(rows)
        return
    columns = (Column("SPLIT"), Column("INPUT", shrink=True), Column("ANSWER", shrink=True), Column("ID", style="dim"))
    table(columns, ((row["split"], _asked(row), _answer(row), row["id"]) for row in rows), empty="There are no such rows.")


def print_diff(dataset: str, before: int, after: int, limit: int) -> None:
    with connect() as api:
        path, given = f"{dataset_path(dataset)}/diff", {"from": before, "to": after}
        counts = api.get(path, limit=1, **given)["counts"]
        rows = list(api.pages(path, limit=limit, **given))
    if target().json:
        print_json({"counts": counts, "data": rows})
        return
    print(f"{counts['added']:,} added, {counts['removed']:,} removed, {counts['changed']:,} changed.")
    signs = {"added": "+", "removed": "-", "changed": "~"}
    columns = (Column(""), Column("INPUT", shrink=True), Column("BEFORE", shrink=True), Column("AFTER", shrink=True))
    shown = (
        (
            signs[row["change"]],
            _asked(row["after"] or row["before"]),
            *(_answer(row[at]) if row[at] else "" for at in ("before", "after")),
        )
        for row in rows
        if row["before"] or row["after"]
    )
    if rows:
        table(columns, shown, empty="")
