"""`noria config`, `noria tokens`, `noria backup` and `noria restore`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from ._command import command, group, target
from ._completion import complete_model

__all__ = ["app", "register"]

app = group("Settings and where each came from; keys of remote providers.")


@command(app, "show", url=False)
def show(
    changed: Annotated[bool, typer.Option("--changed", help="Only settings that differ from their default.")] = False,
) -> None:
    """Show each setting, its value (secrets masked) and where it came from."""
    from ._connection import settings_of
    from ._show import Column, print_json, table

    rows = [row for row in settings_of().rows() if not changed or row["origin"] != "default"]
    if target().json:
        print_json(rows)
        return
    shown = ((row["name"], "" if row["value"] is None else str(row["value"]), row["origin"]) for row in rows)
    table(
        (Column("SETTING"), Column("VALUE", shrink=True), Column("FROM", shrink=True)),
        shown,
        empty="Every setting has its default.",
    )


@command(app, "credential")
def credential(
    provider: Annotated[
        str | None, typer.Argument(help="A provider, or the address of an API; without one, all are listed.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Forget the stored key.")] = False,
) -> None:
    """Store the API key of a provider or of an address, encrypted; list what there is when none is named.

    A key goes to its own address only: a model with another --base-url needs the key of that one, as in
    noria config credential https://llm.example.com. The key is read from a hidden prompt, or from standard input: it never
    stands on the command line.
    """
    from ._connection import connect
    from ._show import print_json

    if provider is None:
        _list_providers()
        return
    path = f"/v1/noria/providers/{quote(provider, safe=':/')}/credential"
    value = None if delete else _read_secret(provider)
    with connect() as api:
        reply = api.delete(path) if value is None else api.put(path, {"value": value})
    if target().json:
        print_json(reply)
    else:
        print(f"The key of {provider} is forgotten." if delete else f"The key of {provider} is stored ({reply['hint']}).")


def _read_secret(provider: str) -> str:
    import getpass

    from noria.errors import InvalidRequest

    try:
        value = getpass.getpass(f"API key of {provider}: ") if sys.stdin.isatty() else sys.stdin.readline()
    except EOFError:
        value = ""
    if not value.strip():
        raise InvalidRequest("No key was given.")
    return value.strip()


def _list_providers() -> None:
    from ._connection import connect
    from ._show import Column, print_json, table

    with connect() as api:
        rows = api.get("/v1/noria/providers")["data"]
    if target().json:
        print_json(rows)
        return
    shown = ((row["id"], row["key"], row["key_env"] or "", row["key_hint"] or "", row["title"]) for row in rows)
    columns = (Column("PROVIDER"), Column("KEY"), Column("VARIABLE"), Column("STORED"), Column("TITLE", shrink=True))
    table(columns, shown, empty="There are no providers.")


def register(root: typer.Typer) -> None:
    """Adds the commands that stand alone."""
    command(root, "tokens")(tokens)
    command(root, "backup", url=False)(backup)
    command(root, "restore", url=False)(restore)


def tokens(
    text: Annotated[str, typer.Argument(help="The text; - reads it from standard input.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model that counts (default: the chat model).", autocompletion=complete_model),
    ] = None,
) -> None:
    """Count the tokens of a text as a model does, and their cost."""
    from ._connection import connect
    from ._show import count, money, print_json

    given = sys.stdin.read() if text == "-" else text
    with connect() as api:
        name = model or api.get("/v1/noria/status")["chat_model"]
        reply = api.post("/v1/noria/tokens", {"model": name, "text": given})
    if target().json:
        print_json(reply)
        return
    how = "" if reply["exact"] else ", estimated"
    cost = f", {money(reply['input_cost_usd'])} as input" if reply["input_cost_usd"] else ""
    print(f"{count(reply['num_tokens'])} tokens ({reply['model']}{how}){cost}")


def backup(file: Annotated[Path, typer.Argument(help="The .tar.gz to write.", show_default=False)]) -> None:
    """Write the instance's state to one file.

    It is consistent even while the server runs, and holds databases, uploads, fine-tuned models, settings and the
    secret that opens stored credentials: keep it as you would keep a key.
    """
    from dataclasses import asdict

    from noria.store import backup as write

    from ._connection import settings_of
    from ._show import note

    settings = settings_of().settings
    manifest = write(settings.home, file.expanduser().absolute(), external_database=settings.database_url is not None)
    if manifest.database == "external":
        note("The PostgreSQL database is not in this file: back it up with its own tools.")
    _say_manifest(asdict(manifest), f"Wrote {file}")


def restore(file: Annotated[Path, typer.Argument(help="A backup.", show_default=False)]) -> None:
    """Unpack a backup into an empty home: --home DIR. Indexes are rebuilt when they are first searched."""
    from dataclasses import asdict

    from noria.store import restore as unpack

    from ._connection import settings_of
    from ._show import note

    home = settings_of().settings.home
    manifest = unpack(file.expanduser().absolute(), home)
    if manifest.database == "external":
        note("Its PostgreSQL database is not in this file: restore that with its own tools.")
    for setting in _commands_in(home / "noria.toml"):
        note(f"Its noria.toml has {setting}: it runs commands on this machine. Look at it before you start Noria.")
    _say_manifest(asdict(manifest), f"Restored {home}")


def _commands_in(path: Path) -> list[str]:
    """The settings of a file that make Noria run commands, as they are written there."""
    import tomllib

    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [f"{name} = {given[name]!r}" for name in ("train_command", "allow_engine_commands") if given.get(name)]


def _say_manifest(manifest: dict[str, Any], done: str) -> None:
    from ._show import print_json

    if target().json:
        print_json(manifest)
    else:
        print(f"{done}: {', '.join(manifest['members']) or 'nothing'}.")
