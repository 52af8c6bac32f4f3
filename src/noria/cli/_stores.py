"""`noria stores` and `noria files`: vector stores, the files in them, and uploaded files."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from ._command import Yes, command, confirm, group, target
from ._completion import complete_store

__all__ = ["files_app", "stores_app"]

stores_app = group("Vector stores and the files in them.")
files_app = group("Uploaded files: list and delete.")

Store = Annotated[str, typer.Argument(help="Name or id of the vector store.", show_default=False, autocompletion=complete_store)]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Most rows.")]


@command(stores_app, "list")
def list_stores(limit: Limit = 100) -> None:
    """List vector stores, newest first."""
    from ._connection import connect
    from ._show import Column, print_json, size, table

    with connect() as api:
        rows = list(api.pages("/v1/vector_stores", limit=limit))
    if target().json:
        print_json(rows)
        return
    columns = (
        Column("NAME", shrink=True), Column("FILES", "right"), Column("SIZE", "right"), Column("STATUS"),
        Column("ID", style="dim"),
    )  # fmt: skip
    shown = ((row["name"] or "(no name)", _counts(row), size(row["usage_bytes"]), row["status"], row["id"]) for row in rows)
    table(columns, shown, empty="There are no vector stores. Make one: noria ingest FOLDER --store NAME")


def _counts(row: dict[str, Any]) -> str:
    counts = row["file_counts"]
    return f"{counts['completed']}/{counts['total']}" if counts["completed"] != counts["total"] else str(counts["total"])


@command(stores_app, "show")
def show_store(store: Store) -> None:
    """Show one vector store."""
    from ._connection import connect
    from ._show import clock, facts, print_json, size

    with connect() as api:
        row = api.get(f"/v1/vector_stores/{quote(store, safe='')}")
    if target().json:
        print_json(row)
        return
    counts = ", ".join(
        f"{number} {state.replace('_', ' ')}" for state, number in row["file_counts"].items() if number and state != "total"
    )
    facts(
        (
            ("name", row["name"]),
            ("id", row["id"]),
            ("description", row["description"]),
            ("status", row["status"]),
            ("files", counts or "none"),
            ("size", size(row["usage_bytes"])),
            ("embedder", row["embedding_model"]),
            ("created", clock(row["created_at"])),
            ("last used", clock(row["last_active_at"])),
            ("expires", clock(row["expires_at"])),
            ("metadata", ", ".join(f"{key}={value}" for key, value in row["metadata"].items())),
        )
    )


@command(stores_app, "create")
def create_store(
    name: Annotated[str, typer.Argument(help="Name of the new store.", show_default=False)],
    description: Annotated[str | None, typer.Option(help="What is in it.")] = None,
    expires_after_days: Annotated[int | None, typer.Option(min=1, max=365, help="Delete it when unused for so long.")] = None,
) -> None:
    """Create an empty vector store."""
    from ._connection import connect
    from ._show import print_json

    body: dict[str, Any] = {"name": name, "description": description}
    if expires_after_days is not None:
        body["expires_after"] = {"anchor": "last_active_at", "days": expires_after_days}
    with connect() as api:
        row = api.post("/v1/vector_stores", body)
    print_json(row) if target().json else print(f"Created {row['name']} ({row['id']}).")


@command(stores_app, "delete")
def delete_store(store: Store, yes: Yes = False) -> None:
    """Delete a vector store. The uploaded files stay: see noria files."""
    from ._connection import connect
    from ._show import print_json

    with connect() as api:
        row = api.get(f"/v1/vector_stores/{quote(store, safe='')}")
        confirm(f"Delete the vector store {row['name'] or row['id']} with {row['file_counts']['total']} files?", yes=yes)
        reply = api.delete(f"/v1/vector_stores/{row['id']}")
    print_json(reply) if target().json else print(f"Deleted {row['name'] or row['id']}.")


@command(stores_app, "files")
def store_files(
    store: Store,
    status: Annotated[str | None, typer.Option(help="Only in_progress, completed, failed or cancelled ones.")] = None,
    limit: Limit = 1000,
) -> None:
    """List the files in a vector store, with what went wrong."""
    from ._connection import connect
    from ._show import Column, count, print_json, size, table

    with connect() as api:
        path = f"/v1/vector_stores/{quote(store, safe='')}/files"
        rows = list(api.pages(path, limit=limit, filter=status))
    if target().json:
        print_json(rows)
        return
    columns = (
        Column("FILE", shrink=True), Column("STATUS"), Column("PASSAGES", "right"), Column("SIZE", "right"),
        Column("ERROR", shrink=True),
    )  # fmt: skip
    shown = (
        (
            row["filename"],
            row["status"],
            count(row["num_passages"]),
            size(row["usage_bytes"]),
            (row["last_error"] or {}).get("message", ""),
        )
        for row in rows
    )
    table(columns, shown, empty="There are no files in this store.")


@command(files_app, "list")
def list_files(
    purpose: Annotated[str | None, typer.Option(help="Only files uploaded for this, e.g. assistants.")] = None,
    limit: Limit = 100,
) -> None:
    """List uploaded files, newest first."""
    from ._connection import connect
    from ._show import Column, clock, print_json, size, table

    with connect() as api:
        rows = list(api.pages("/v1/files", limit=limit, purpose=purpose))
    if target().json:
        print_json(rows)
        return
    columns = (Column("FILE", shrink=True), Column("SIZE", "right"), Column("CREATED"), Column("ID", style="dim"))
    shown = ((row["filename"], size(row["bytes"]), clock(row["created_at"]), row["id"]) for row in rows)
    table(columns, shown, empty="No files have been uploaded.")


@command(files_app, "delete")
def delete_files(
    ids: Annotated[list[str], typer.Argument(help="Ids of files (file-…).", show_default=False)], yes: Yes = False
) -> None:
    """Delete uploaded files, also from every vector store."""
    from ._connection import connect
    from ._show import print_json

    with connect() as api:
        rows = [api.get(f"/v1/files/{quote(file_id, safe='')}") for file_id in ids]
        confirm(f"Delete {', '.join(row['filename'] for row in rows)}, also from every vector store?", yes=yes)
        replies = [api.delete(f"/v1/files/{row['id']}") for row in rows]
    if target().json:
        print_json(replies)
        return
    for row in rows:
        print(f"Deleted {row['filename']} ({row['id']}).")
