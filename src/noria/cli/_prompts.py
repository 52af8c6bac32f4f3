"""`noria prompts`: templates with versions, labels that say which version runs, and what one renders to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from ._command import Yes, command, confirm, group, target
from ._completion import complete_prompt

__all__ = ["app"]

app = group("Prompts: templates with versions and labels.")

Name = Annotated[str, typer.Argument(help="Name or id of the prompt.", show_default=False, autocompletion=complete_prompt)]
Label = Annotated[str, typer.Argument(help="The label, e.g. production.", show_default=False)]
Version = Annotated[
    str | None, typer.Option("--version", "-v", help="A number, a label or latest. Default: production, else latest.")
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Most rows.")]
Variables = Annotated[list[str] | None, typer.Option("--var", "-V", metavar="NAME=TEXT", help="A variable's value; repeatable.")]


@command(app, "create")
def create(
    name: Annotated[str, typer.Argument(help="Name of the prompt.", show_default=False)],
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="The template as TOML or JSON; - reads stdin.", allow_dash=True)
    ] = None,
    role: Annotated[str | None, typer.Option(help="Block: who answers.")] = None,
    context: Annotated[str | None, typer.Option(help="Block: what it should know.")] = None,
    task: Annotated[str | None, typer.Option(help="Block: what it should do.")] = None,
    output: Annotated[str | None, typer.Option(help="Block: what the answer must look like.")] = None,
    message: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=TEXT", help="A message after the blocks; repeatable.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model, where a request names none.")] = None,
    note: Annotated[str, typer.Option(help="What is new in this version.")] = "",
    label: Annotated[list[str] | None, typer.Option("--label", help="Point this label at it; repeatable.")] = None,
) -> None:
    """Create a prompt, or the next version of one that exists. Nothing new comes about where nothing differs.

    noria prompts create support --role "You answer for {{company}}." --task "Answer in one line." --label production
    """
    from ._connection import connect
    from ._show import print_json

    blocks = {"role": role, "context": context, "task": task, "output": output, "model": model}
    template = _read(source) | {key: value for key, value in blocks.items() if value is not None}
    if message:
        template["messages"] = [_message(text) for text in message]
    with connect() as api:
        path = _path(name)
        if api.find(path) is None:
            row = api.post("/v1/noria/prompts", {"name": name, "template": template, "note": note})
            version = api.get(f"{path}/versions/{row['head']}")
        else:
            version = api.post(f"{path}/versions", {"template": template, "note": note})
        for each in label or ():
            api.put(f"{path}/labels/{quote(each, safe='')}", {"version": str(version["version"])})
    if target().json:
        print_json(version)
        return
    labels = f", {', '.join(label)}" if label else ""
    print(f"{name} version {version['version']}{labels}. Variables: {', '.join(version['variables']) or 'none'}.")


@command(app, "list")
def list_prompts(limit: Limit = 100) -> None:
    """List prompts, newest first."""
    from ._connection import connect
    from ._show import Column, clock, print_json, table

    with connect() as api:
        rows = list(api.pages("/v1/noria/prompts", limit=limit))
    if target().json:
        print_json(rows)
        return
    columns = (
        Column("NAME", shrink=True), Column("VERSIONS", "right"), Column("LABELS", shrink=True), Column("CREATED"),
        Column("ID", style="dim"),
    )  # fmt: skip
    shown = ((row["name"], str(row["head"]), _labels(row), clock(row["created_at"]), row["id"]) for row in rows)
    table(columns, shown, empty="There are no prompts. Make one: noria prompts create NAME --task TEXT")


@command(app, "show")
def show(name: Name, version: Version = None, limit: Limit = 20) -> None:
    """Show a prompt: one version's template, and the list of its versions."""
    from ._connection import connect
    from ._show import Column, clock, facts, out, print_json, table

    with connect() as api:
        row = api.get(_path(name))
        wanted = version or ("production" if "production" in row["labels"] else "latest")
        found = api.get(f"{_path(name)}/versions/{quote(wanted, safe='')}")
        versions = list(api.pages(f"{_path(name)}/versions", limit=limit))
    if target().json:
        print_json({**row, "version": found, "versions": versions})
        return
    facts(
        (
            ("name", row["name"]),
            ("id", row["id"]),
            ("description", row["description"]),
            ("labels", _labels(row)),
            ("variables", ", ".join(found["variables"])),
            ("shown", f"version {found['version']}"),
        )
    )
    print()
    for line in _template_lines(found["template"]):
        out().print(line)
    print()
    columns = (Column("VERSION", "right"), Column("LABELS"), Column("CREATED"), Column("NOTE", shrink=True))
    pointing = {number: [label for label, at in row["labels"].items() if at == number] for number in row["labels"].values()}
    table(
        columns,
        (
            (str(each["version"]), ", ".join(pointing.get(each["version"], [])), clock(each["created_at"]), each["note"])
            for each in versions
        ),
        empty="",
    )


@command(app, "diff")
def diff(
    name: Name,
    older: Annotated[str | None, typer.Argument(help="A number, a label or latest. Default: the one before.")] = None,
    newer: Annotated[str | None, typer.Argument(help="Default: latest.")] = None,
) -> None:
    """Show what changes from one version to another."""
    from rich.text import Text

    from ._connection import connect
    from ._show import note, out, print_json

    with connect() as api:
        found = api.get(f"{_path(name)}/diff", **{"from": older, "to": newer})
    if target().json:
        print_json(found)
        return
    if not found["diff"]:
        note(f"Versions {found['from']} and {found['to']} are the same.")
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in found["diff"].splitlines():
        out().print(Text(line, style=styles.get(line[:1], "")), soft_wrap=True)


@command(app, "label")
def label_version(
    name: Name,
    label: Label,
    version: Annotated[str | None, typer.Argument(help="A number, another label or latest.", show_default=False)] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the label.")] = False,
) -> None:
    """Point a label at a version: from then on, who asks for the label gets that version."""
    from noria.errors import InvalidRequest

    from ._connection import connect
    from ._show import print_json

    if remove == (version is not None):
        raise InvalidRequest("Say a version, or --remove.", param="version")
    path = f"{_path(name)}/labels/{quote(label, safe='')}"
    with connect() as api:
        row = api.delete(path) if remove else api.put(path, {"version": version})
    print_json(row) if target().json else print(f"{row['name']}: {_labels(row) or 'no labels'}")


@command(app, "rollback")
def rollback(name: Name, label: Annotated[str, typer.Argument(help="The label.")] = "production") -> None:
    """Point a label back at the version it pointed at before."""
    from ._connection import connect
    from ._show import print_json

    with connect() as api:
        row = api.post(f"{_path(name)}/labels/{quote(label, safe='')}/rollback")
    print_json(row) if target().json else print(f"{row['name']}: {_labels(row)}")


@command(app, "render")
def render(name: Name, var: Variables = None, version: Version = None) -> None:
    """Show the messages that a version becomes with these values."""
    from ._connection import connect
    from ._show import out, print_json
    from ._values import parse_pairs

    with connect() as api:
        found = api.post(f"{_path(name)}/render", {"version": version, "variables": parse_pairs(var or ())})
    if target().json:
        print_json(found)
        return
    for message in found["messages"]:
        out().print(message["role"], style="bold")
        out().print(message["content"], soft_wrap=True)


@command(app, "delete")
def delete(name: Name, yes: Yes = False) -> None:
    """Delete a prompt with all its versions."""
    from ._connection import connect
    from ._show import print_json

    with connect() as api:
        row = api.get(_path(name))
        confirm(f"Delete the prompt {row['name']} with {row['head']} versions?", yes=yes)
        reply = api.delete(_path(row["id"]))
    print_json(reply) if target().json else print(f"Deleted {row['name']}.")


def _path(name: str) -> str:
    return f"/v1/noria/prompts/{quote(name, safe='')}"


def _labels(row: dict[str, Any]) -> str:
    return ", ".join(f"{label}={number}" for label, number in sorted(row["labels"].items()))


def _message(text: str) -> dict[str, str]:
    from ._values import parse_pairs

    ((role, content),) = parse_pairs([text]).items()
    return {"role": role, "content": content}


def _read(source: Path | None) -> dict[str, Any]:
    import json
    import sys
    import tomllib

    from noria.errors import InvalidRequest

    if source is None:
        return {}
    try:
        text = sys.stdin.read() if str(source) == "-" else source.expanduser().read_text(encoding="utf-8")
        found = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"The template {source} cannot be read: {error}.", param="--from") from None
    return found


def _template_lines(template: dict[str, Any]) -> list[str]:
    from noria.prompts import Template

    return Template.model_validate(template).lines()
