"""Curation from the command line: look, list, accept, reject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from noria.errors import InvalidRequest

from ._command import target
from ._connection import connect
from ._dataset_views import dataset_path
from ._show import Column, print_json, table
from ._watching import watch_job

__all__ = ["decide", "print_findings", "run_curation"]


def run_curation(dataset: str, body: Mapping[str, Any]) -> None:
    with connect() as api:
        reply = api.post(f"{dataset_path(dataset)}/curate", dict(body))
        found = reply if reply["job"] is None else {**reply, **watch_job(api, reply["job"], f"Looking at {dataset}")["detail"]}
    if target().json:
        print_json(found)
        return
    what = ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in found["findings"].items())
    print(f"{found['rows']:,} rows of version {found['looked_at']}: {what or 'nothing found'}.")
    if found["removed"]:
        print(f"{found['removed']:,} rows removed. {dataset} is at version {found['version']}.")


def print_findings(dataset: str, filters: Mapping[str, Any], limit: int) -> None:
    with connect() as api:
        rows = list(api.pages(f"{dataset_path(dataset)}/findings", limit=limit, order="asc", **filters))
    if target().json:
        print_json(rows)
        return
    columns = (
        Column("KIND"), Column("ROWS", "right"), Column("REMOVES", "right"), Column("DECISION"), Column("ABOUT", shrink=True),
        Column("ID", style="dim"),
    )  # fmt: skip
    shown = (
        (row["kind"], str(len(row["row_ids"])), str(len(row["remove_ids"])), row["decision"], _about(row["detail"]), row["id"])
        for row in rows
    )
    table(columns, shown, empty="There are no such findings. Look for some: noria datasets curate DATASET")


def _about(detail: Mapping[str, Any]) -> str:
    return "  ".join(f"{key}: {_short(value)}" for key, value in detail.items())


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key!r} × {number}" for key, number in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def decide(dataset: str, ids: Sequence[str], kind: str | None, decision: str, *, every: bool, apply: bool) -> None:
    """Decides the findings named, or all open ones that match; then the version without their rows, if wanted."""
    if bool(ids) == (every or kind is not None):
        raise InvalidRequest("Say which findings.", hint="Name their ids, or choose with --kind KIND or --all.")
    path = f"{dataset_path(dataset)}/findings"
    with connect() as api:
        if ids:
            for finding in ids:
                api.post(f"{path}/{quote(finding, safe='')}", {"decision": decision})
            count = len(ids)
        else:
            body = {"decision": decision} | ({"kind": kind} if kind else {})
            count = api.post(path, body)["decided"]
        done = api.post(f"{path}/apply") if apply else None
    if target().json:
        print_json({"decision": decision, "decided": count, "applied": done})
        return
    print(f"{count} findings {decision}.")
    if done is not None:
        print(f"{done['removed']} rows removed. {dataset} is at version {done['version']}.")
