"""`noria jobs` and `noria engines`: durable work, and the processes that run models."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from ._command import command, group, target
from ._completion import complete_job

__all__ = ["engines_app", "jobs_app"]

jobs_app = group("Durable work: list, show, cancel.")
engines_app = group("Engine processes: list and stop.")

JobId = Annotated[str, typer.Argument(help="Id of the job (job_…).", show_default=False, autocompletion=complete_job)]


@command(jobs_app, "list")
def list_jobs(
    kind: Annotated[str | None, typer.Option(help="Only this kind, e.g. ingest or pull.")] = None,
    status: Annotated[
        Literal["queued", "running", "completed", "failed", "cancelled"] | None, typer.Option(help="Only jobs in this state.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most rows.")] = 20,
) -> None:
    """List jobs, newest first."""
    from ._connection import connect
    from ._show import Column, ago, print_json, table

    with connect() as api:
        rows = list(api.pages("/v1/noria/jobs", limit=limit, kind=kind, status=status))
    if target().json:
        print_json(rows)
        return
    columns = (
        Column("KIND", shrink=True), Column("STATUS"), Column("UPDATED"), Column("ABOUT", shrink=True), Column("ID", style="dim"),
    )  # fmt: skip
    shown = ((row["kind"], _status(row), ago(row["updated_at"]), row["subject"], row["id"]) for row in rows)
    table(columns, shown, empty="There are no jobs.")


def _status(row: dict[str, Any]) -> str:
    if row["status"] != "running" or not row["total"]:
        return row["status"]
    return f"running {row['done'] / row['total']:.0%}"


@command(jobs_app, "show")
def show_job(job_id: JobId) -> None:
    """Show one job."""
    from ._connection import connect
    from ._show import print_json

    with connect() as api:
        row = api.get(f"/v1/noria/jobs/{quote(job_id, safe='')}")
    print_json(row) if target().json else _card(row)


def _card(row: dict[str, Any]) -> None:
    from ._show import ago, clock, count, facts, size

    amount = size if row["unit"] == "bytes" else count
    facts(
        (
            ("id", row["id"]),
            ("kind", row["kind"]),
            ("about", row["subject"]),
            ("status", row["status"]),
            ("done", f"{amount(row['done'])} of {amount(row['total'])} {row['unit']}" if row["total"] else None),
            *((str(key), None if value is None else str(value)) for key, value in row["detail"].items()),
            ("error", row["error"]),
            ("created", clock(row["created_at"])),
            ("updated", ago(row["updated_at"])),
        )
    )


@command(jobs_app, "cancel")
def cancel_job(job_id: JobId) -> None:
    """Ask a job to stop."""
    from ._connection import connect
    from ._show import print_json

    with connect() as api:
        row = api.post(f"/v1/noria/jobs/{quote(job_id, safe='')}/cancel")
    print_json(row) if target().json else print(f"{row['id']} has been asked to stop.")


@command(engines_app, "list")
def list_engines() -> None:
    """List engine processes that were started, with their memory."""
    from ._connection import connect
    from ._show import Column, duration, print_json, table

    with connect() as api:
        rows = api.get("/v1/noria/engines")["data"]
    if target().json:
        print_json(rows)
        return
    columns = (
        Column("NAME", shrink=True), Column("STATE"), Column("PID", "right"), Column("MEMORY", "right"),
        Column("CALLS", "right"), Column("UP"), Column("CRASHES", "right"),
    )  # fmt: skip
    shown = (
        (
            row["name"],
            row["state"],
            str(row["pid"] or ""),
            f"{row['rss_mb']:.0f} MB" if row["rss_mb"] else "",
            str(row["in_flight"]),
            duration(row["uptime_s"]),
            str(row["crashes"]),
        )
        for row in rows
    )
    table(columns, shown, empty="No engine has been started yet; one starts when its model is first asked.")
    for row in rows:
        if row["last_error"]:
            print(f"{row['name']}: {row['last_error']} (log: {row['log']})")


@command(engines_app, "stop")
def stop_engine(name: Annotated[str, typer.Argument(help="Name of the engine.", show_default=False)]) -> None:
    """Stop an engine after what it is doing. It starts again when its model is asked."""
    from ._connection import connect
    from ._show import print_json

    with connect() as api:
        row = api.post(f"/v1/noria/engines/{quote(name)}/stop")
    print_json(row) if target().json else print(f"{row['name']} has been stopped.")
