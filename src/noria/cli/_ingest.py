"""`noria ingest`: files and folders into a vector store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._command import command
from ._completion import complete_store

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app, "ingest")
    def ingest(
        paths: Annotated[list[Path], typer.Argument(help="Files and folders.", show_default=False)],
        store: Annotated[
            str,
            typer.Option(
                "--store", "-s", help="Name or id of the vector store.", show_default=False, autocompletion=complete_store
            ),
        ],
        create: Annotated[bool, typer.Option("--create/--no-create", help="Create the store if it does not exist.")] = True,
        recursive: Annotated[bool, typer.Option("--recursive/--no-recursive", help="Go into folders within folders.")] = True,
        glob: Annotated[str | None, typer.Option(help="Take only files in folders whose name matches, e.g. '*.md'.")] = None,
        attr: Annotated[
            list[str] | None,
            typer.Option("--attr", metavar="KEY=VALUE", help="Attribute of every file, to filter by; repeatable."),
        ] = None,
        wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until everything is indexed.")] = True,
        prune: Annotated[
            bool, typer.Option("--prune", help="Take files out of the store that are gone from the given folders.")
        ] = False,
    ) -> None:
        """Put files and folders into a vector store.

        Only what is new or has changed is sent. A changed file replaces its predecessor once it is indexed. A run
        that was interrupted is resumed by running it again.
        """
        from ._file_choice import Choice
        from ._ingesting import run_ingest
        from ._values import parse_attributes

        choice = Choice(tuple(paths), recursive=recursive, glob=glob)
        run_ingest(store, choice, attributes=parse_attributes(attr or ()), create=create, wait=wait, prune=prune)
