"""`noria wheel`: make a wheel, turn it, watch, approve, roll back, read the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from ._command import Yes, command, confirm, group, target
from ._completion import complete_model, complete_wheel

__all__ = ["app"]

app = group("The wheel: feedback becomes a better model.")

Name = Annotated[str, typer.Argument(help="Name or id of the wheel.", show_default=False, autocompletion=complete_wheel)]
Turn = Annotated[str, typer.Option("--turn", "-t", help="Number or id of the turn.")]
By = Annotated[str | None, typer.Option("--by", help="Who asks, for the record.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Most rows.")]


@command(app, "init")
def init(
    name: Annotated[str, typer.Argument(help="Name of the wheel, and of the route that programs ask.", show_default=False)],
    source: Annotated[Path | None, typer.Option("--from", metavar="FILE", help="A specification in TOML.")] = None,
    base_model: Annotated[
        str | None, typer.Option("--base", help="The model to improve; default: chat_model.", autocompletion=complete_model)
    ] = None,
    route: Annotated[str | None, typer.Option(help="Another name for the route.")] = None,
    method: Annotated[str | None, typer.Option(help="supervised or dpo.")] = None,
    labels: Annotated[bool, typer.Option("--labels", help="Labels are the expected answers, for classifiers.")] = False,
    minutes: Annotated[float | None, typer.Option(help="Longest training, in minutes.")] = None,
    approval: Annotated[str | None, typer.Option(help="auto, or manual: a person lets the candidate in.")] = None,
    every: Annotated[str | None, typer.Option(help="Turn by itself, e.g. every 24h.")] = None,
    new_feedback: Annotated[int | None, typer.Option(min=1, help="Turn by itself when so much feedback came.")] = None,
) -> None:
    """Make a wheel with its route and its dataset. Options win over the file.

    noria wheel init support --base smollm2-135m-instruct --approval manual
    """
    from ._connection import connect
    from ._show import print_json

    spec = _read(source) if source is not None else {}
    with connect() as api:
        spec["name"] = name
        spec["base_model"] = base_model or spec.get("base_model") or api.get("/v1/noria/status")["chat_model"]
        for part, key, value in (
            (None, "route", route),
            ("train", "method", method),
            ("train", "minutes", minutes),
            ("good", "labels", labels or None),
            ("approval", "mode", approval),
            ("trigger", "every", every),
            ("trigger", "new_feedback", new_feedback),
        ):
            if value is not None:
                (spec if part is None else spec.setdefault(part, {}))[key] = value
        row = api.post("/v1/noria/wheels", {"spec": spec})
    if target().json:
        print_json(row)
        return
    print(
        f"The wheel {row['name']} is made. Let programs ask the model {row['route']!r}; it leads to {row['spec']['base_model']}."
    )
    print(f"When feedback has come: noria wheel turn {row['name']}")


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    from noria.errors import InvalidRequest

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is not TOML: {error}.") from None


@command(app, "update")
def update(
    name: Name, source: Annotated[Path, typer.Option("--from", metavar="FILE", help="The whole specification in TOML.")]
) -> None:
    """Give a wheel another specification. A turn under way keeps its own."""
    from ._connection import connect
    from ._show import print_json

    with connect() as api:
        row = api.post(_path(name), {"spec": _read(source)})
    print_json(row) if target().json else print(f"{row['name']} has its new specification.")


@command(app, "turn")
def turn(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the turn; it goes on by itself either way.")] = True,
    by: By = None,
) -> None:
    """Turn a wheel: collect, curate, split, train, evaluate, gate, canary, promote or roll back. Goes on with an open turn."""
    from ._connection import connect
    from ._show import note, print_json
    from ._wheel_views import follow_turn, print_outcome

    with connect() as api:
        row = _start(api, name, by)
        if wait:
            row = follow_turn(api, name, row)
        elif not api.lasting:
            note("The turn goes on when the server runs next (noria up).")
    print_json(row) if target().json else print_outcome(name, row)
    if row["outcome"] == "failed":
        raise typer.Exit(1)


def _start(api: Any, name: str, by: str | None) -> dict[str, Any]:
    from noria.errors import Conflict

    from ._show import note

    try:
        return api.post(f"{_path(name)}/turns", {"by": by} if by else None)
    except Conflict as error:
        if error.code != "turn_open":
            raise
        open_id = api.get(_path(name))["open_turn_id"] or "latest"
        note("A turn is under way: going on with it.")
        return api.get(f"{_path(name)}/turns/{open_id}")


@command(app, "status")
def status(name: Name) -> None:
    """Show a wheel, what flows along its arrows, and where its turn is."""
    from ._connection import connect
    from ._show import print_json
    from ._wheel_views import print_wheel

    with connect() as api:
        row = api.get(_path(name))
    print_json(row) if target().json else print_wheel(row)


@command(app, "list")
def list_wheels(limit: Limit = 100) -> None:
    """List wheels, newest first."""
    from ._connection import connect
    from ._show import Column, clock, print_json, table

    with connect() as api:
        rows = list(api.pages("/v1/noria/wheels", limit=limit))
    if target().json:
        print_json(rows)
        return
    columns = (
        Column("NAME", shrink=True), Column("ROUTE", shrink=True), Column("BASE", shrink=True), Column("OPEN TURN"),
        Column("CREATED"),
    )  # fmt: skip
    shown = (
        (row["name"], row["route"], row["spec"]["base_model"], row["open_turn_id"] or "", clock(row["created_at"]))
        for row in rows
    )
    table(columns, shown, empty="There are no wheels. Make one: noria wheel init NAME")


@command(app, "history")
def history(name: Name, limit: Limit = 20) -> None:
    """List a wheel's turns, newest first, with how each ended."""
    from ._connection import connect
    from ._show import print_json
    from ._wheel_views import print_turns

    with connect() as api:
        rows = list(api.pages(f"{_path(name)}/turns", limit=limit))
    print_json(rows) if target().json else print_turns(name, rows)


@command(app, "report")
def report(
    name: Name,
    turn: Turn = "latest",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write report.md and its plots into this folder.")] = None,
) -> None:
    """Print a turn's report as Markdown, or write it with its plots."""
    from ._connection import connect
    from ._show import print_json

    base = f"{_path(name)}/turns/{quote(turn, safe='')}"
    with connect() as api:
        facts = api.get(f"{base}/report", format="json")
        text = api.text(f"{base}/report")
        if out is not None:
            (out / "plots").mkdir(parents=True, exist_ok=True)
            for plot, address in facts["plots"].items():
                (out / address).write_text(api.text(f"{base}/plots/{plot}.svg"), encoding="utf-8")
            (out / "report.md").write_text(text, encoding="utf-8")
    if target().json:
        print_json(facts)
    else:
        print(f"Wrote {out / 'report.md'} with {len(facts['plots'])} plots." if out is not None else text, end="\n")


def _ask(name: str, turn: str, what: str, by: str | None) -> None:
    from ._connection import connect
    from ._show import print_json

    with connect() as api:
        row = api.post(f"{_path(name)}/turns/{quote(turn, safe='')}/{what}", {"by": by} if by else None)
    print_json(row) if target().json else print(f"Turn {row['number']} has been asked: {what}. See: noria wheel status {name}")


@command(app, "approve")
def approve(name: Name, turn: Turn = "latest", by: By = None) -> None:
    """Let a candidate that has passed the gate into traffic."""
    _ask(name, turn, "approve", by)


@command(app, "reject")
def reject(name: Name, turn: Turn = "latest", by: By = None) -> None:
    """End a turn that waits for approval."""
    _ask(name, turn, "reject", by)


@command(app, "rollback")
def rollback(name: Name, turn: Turn = "latest", by: By = None) -> None:
    """Put the base back on all traffic: during the canary, or after the promotion."""
    _ask(name, turn, "rollback", by)


@command(app, "cancel")
def cancel(name: Name, turn: Turn = "latest", by: By = None) -> None:
    """Stop a turn."""
    _ask(name, turn, "cancel", by)


@command(app, "pause")
def pause(name: Name, resume: Annotated[bool, typer.Option("--resume", help="Let them again.")] = False) -> None:
    """Keep triggers from starting turns."""
    from ._connection import connect
    from ._show import print_json

    with connect() as api:
        row = api.post(_path(name), {"paused": not resume})
    print_json(row) if target().json else print(f"{row['name']} {'turns by its triggers again' if resume else 'is paused'}.")


@command(app, "delete")
def delete(name: Name, yes: Yes = False) -> None:
    """Delete a wheel and its turns. Its route, dataset and models stay."""
    from ._connection import connect
    from ._show import print_json

    confirm(f"Delete the wheel {name} and its turns?", yes=yes)
    with connect() as api:
        row = api.delete(_path(name))
    print_json(row) if target().json else print(f"Deleted {name}.")


def _path(name: str) -> str:
    return f"/v1/noria/wheels/{quote(name, safe='')}"
