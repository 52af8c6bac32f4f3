"""`noria keys`: API keys of this instance."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from ._command import command, group, target

__all__ = ["app"]

app = group("API keys: create, list, revoke. Without any key, only this machine is served.")


@command(app, "create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.", show_default=False)],
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="inference, data, traces, spans or admin; repeatable. Default: all.")
    ] = None,
    expires_in_days: Annotated[float | None, typer.Option(help="Days until it stops working.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=0, help="Rate limit; 0: none.")] = None,
) -> None:
    """Create an API key. Its secret is shown once and kept nowhere."""
    from ._connection import connect
    from ._show import note, print_json

    body = {"name": name, "scopes": scope, "expires_in_days": expires_in_days, "requests_per_minute": requests_per_minute}
    with connect() as api:
        key = api.post("/v1/noria/keys", body)
    if target().json:
        print_json(key)
        return
    print(key["secret"])
    note(f"This is the secret of {key['name']} ({key['id']}), shown only now. From now on every call needs a key.")


@command(app, "list")
def list_keys() -> None:
    """List API keys."""
    from ._connection import connect
    from ._show import Column, ago, clock, print_json, table

    with connect() as api:
        rows = list(api.pages("/v1/noria/keys"))
    if target().json:
        print_json(rows)
        return
    columns = (
        Column("NAME", shrink=True), Column("SCOPES", shrink=True), Column("STATE"), Column("USED"),
        Column("ID", style="dim"),
    )  # fmt: skip

    def state(row: dict[str, object]) -> str:
        if row["revoked_at"]:
            return "revoked"
        expires = row["expires_at"]
        return f"until {clock(expires)}" if isinstance(expires, int) else "live"

    shown = ((row["name"], ",".join(row["scopes"]), state(row), ago(row["last_used_at"]), row["id"]) for row in rows)
    table(columns, shown, empty="There are no API keys: only this machine is served.")


@command(app, "revoke")
def revoke(key_id: Annotated[str, typer.Argument(help="Id of the key (key_…).", show_default=False)]) -> None:
    """Revoke an API key: it stops working at once."""
    from ._connection import connect
    from ._show import print_json

    with connect() as api:
        row = api.delete(f"/v1/noria/keys/{quote(key_id, safe='')}")
    print_json(row) if target().json else print(f"Revoked {row['name']} ({row['id']}).")
