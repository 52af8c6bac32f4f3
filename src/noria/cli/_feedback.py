"""`noria feedback`: what people said of answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from ._command import command, confirm, group, target

__all__ = ["app"]

app = group("Feedback on answers: add, import, list, show, sum up, delete.")

_PATH = "/v1/noria/feedback"
FeedbackId = Annotated[str, typer.Argument(metavar="ID", help="Id of the feedback (fb_…).", show_default=False)]
Model = Annotated[str | None, typer.Option(help="Only on answers of this model.")]
Label = Annotated[str | None, typer.Option(help="Only with this label.")]
Author = Annotated[str | None, typer.Option(help="Only by this author.")]
Since = Annotated[str | None, typer.Option("--from", metavar="WHEN", help="From then on: 2h, 3d, 2026-01-31.")]
Until = Annotated[str | None, typer.Option("--to", metavar="WHEN", help="Before then.")]


@command(app, "add")
def add(
    answer: Annotated[
        str, typer.Argument(metavar="TARGET", help="A trace, TRACE/SPAN, chatcmpl-… or resp_….", show_default=False)
    ],
    up: Annotated[bool, typer.Option("--up", help="It was good.")] = False,
    down: Annotated[bool, typer.Option("--down", help="It was not.")] = False,
    score: Annotated[float | None, typer.Option(help="How good, on a scale of your own.")] = None,
    label: Annotated[str | None, typer.Option(help="What it is, e.g. a class.")] = None,
    correction: Annotated[str | None, typer.Option(help="What the answer should have been.")] = None,
    comment: Annotated[str | None, typer.Option(help="Anything else.")] = None,
    author: Annotated[str | None, typer.Option(help="Who says so.")] = None,
) -> None:
    """Say something of an answer.

    noria feedback add chatcmpl-… --down --correction "Open from 9 to 17."
    """
    from noria.errors import InvalidRequest

    from ._connection import connect
    from ._show import print_json

    if up and down:
        raise InvalidRequest("It cannot be both --up and --down.")
    body: dict[str, Any] = {"target": answer, "rating": "up" if up else "down" if down else None, "score": score}
    body |= {"label": label, "correction": correction, "comment": comment, "author": author, "source": "cli"}
    with connect() as api:
        row = api.post(_PATH, {key: value for key, value in body.items() if value is not None})
    print_json(row) if target().json else print(f"Kept as {row['id']}, on an answer of {row['model'] or 'an unknown model'}.")


@command(app, "import")
def import_feedback(
    file: Annotated[Path, typer.Argument(help="CSV or JSONL.", show_default=False, exists=True, dir_okay=False)],
) -> None:
    """Import feedback, one opinion a line.

    Columns: target (or trace_id, completion_id, response_id), and any of rating, score, label, correction, comment, author and
    external_id. The same file again adds nothing.
    """
    from ._connection import connect
    from ._show import note, print_json
    from ._watching import watch_job

    with connect() as api:
        report = api.send_file(f"{_PATH}/import", file)
        if report["job"] is not None:
            report = {**watch_job(api, api.get(f"/v1/noria/jobs/{report['job']}"), f"Importing {file.name}")["detail"]}
    if target().json:
        print_json(report)
    else:
        print(f"{report['lines']} lines: {report['added']} added, {report['known']} known already, {report['failed']} failed.")
        for error in report["errors"]:
            note(f"line {error['line']}: {error['message']}")
    if report["failed"]:
        raise typer.Exit(1)


@command(app, "list")
def list_feedback(
    answer: Annotated[str | None, typer.Option("--target", help="Only on this trace, completion or response.")] = None,
    model: Model = None,
    label: Label = None,
    rating: Annotated[Literal["up", "down"] | None, typer.Option(help="Only thumbs up, or down.")] = None,
    author: Author = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most rows.")] = 20,
) -> None:
    """List feedback, newest first."""
    from ._connection import connect
    from ._show import Column, clock, print_json, table

    filters = {"model": model, "label": label, "rating": rating, "author": author, **_times(since, until)}
    by_trace = answer is not None and len(answer) == 32 and "_" not in answer
    filters["trace_id" if by_trace else "target"] = answer
    with connect() as api:
        rows = list(api.pages(_PATH, limit=limit, **filters))
    if target().json:
        print_json(rows)
        return
    columns = (
        Column("TIME"), Column("SAID", shrink=True), Column("MODEL", shrink=True), Column("BY", shrink=True),
        Column("TARGET", shrink=True, style="dim"), Column("ID", style="dim"),
    )  # fmt: skip
    shown = (
        (clock(row["created_at"]), _said(row), row["model"] or "", row["author"] or "", row["target"]["id"], row["id"])
        for row in rows
    )
    table(columns, shown, empty="There is no feedback here. Give some: noria feedback add TARGET --up")


def _times(since: str | None, until: str | None) -> dict[str, float]:
    from ._trace_views import moment

    return {name: moment(when) for name, when in (("from", since), ("to", until)) if when is not None}


def _said(row: dict[str, Any]) -> str:
    parts = [{"up": "👍", "down": "👎"}.get(row["rating"] or ""), row["label"]]
    parts.append(f"{row['score']:g}" if row["score"] is not None else None)
    parts.append(f"→ {row['correction'].get('content') or '(a tool call)'}" if row["correction"] else None)
    parts.append(row["comment"])
    return "  ".join(part for part in parts if part)


@command(app, "show")
def show(feedback_id: FeedbackId) -> None:
    """Show one piece of feedback."""
    from ._connection import connect
    from ._show import clock, facts, print_json

    with connect() as api:
        row = api.get(f"{_PATH}/{quote(feedback_id, safe='')}")
    if target().json:
        print_json(row)
        return
    facts(
        (
            ("id", row["id"]),
            ("on", f"{row['target']['kind']} {row['target']['id']}"),
            ("trace", row["trace_id"]),
            ("model", row["model"]),
            ("said", _said(row)),
            ("author", row["author"]),
            ("source", row["source"]),
            ("created", clock(row["created_at"])),
        )
    )


@command(app, "stats")
def stats(
    interval: Annotated[Literal["none", "hour", "day", "week"], typer.Option("--by", help="One row for each of these.")] = "none",
    model: Model = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Sum feedback up by model, over time."""
    from ._connection import connect
    from ._show import Column, clock, count, print_json, table

    with connect() as api:
        rows = api.get(f"{_PATH}/stats", interval=interval, model=model, **_times(since, until))["data"]
    if target().json:
        print_json(rows)
        return
    columns = (
        Column("FROM"), Column("MODEL", shrink=True), Column("COUNT", "right"), Column("UP", "right"), Column("DOWN", "right"),
        Column("UP SHARE", "right"), Column("CORRECTED", "right"), Column("MEAN SCORE", "right"), Column("LABELS", shrink=True),
    )  # fmt: skip
    shown = (
        (
            clock(row["start"]), row["model"] or "-", count(row["count"]), count(row["up"]), count(row["down"]),
            f"{row['up_share']:.0%}" if row["up_share"] is not None else "", count(row["corrections"]),
            f"{row['mean_score']:.3g}" if row["mean_score"] is not None else "",
            ", ".join(f"{label} {number}" for label, number in row["labels"].items()),
        )
        for row in rows
    )  # fmt: skip
    table(columns, shown, empty="There is no feedback here.")


@command(app, "delete")
def delete(
    ids: Annotated[list[str], typer.Argument(metavar="IDS...", help="Ids of feedback (fb_…).", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete feedback, and the rows that datasets made of it."""
    from ._connection import connect
    from ._show import print_json

    with connect() as api:
        confirm(f"Delete {', '.join(ids)}, also from every dataset?", yes=yes)
        replies = [api.delete(f"{_PATH}/{quote(feedback_id, safe='')}") for feedback_id in ids]
    if target().json:
        print_json(replies)
        return
    for feedback_id in ids:
        print(f"Deleted {feedback_id}.")
