"""`noria up` and `noria serve`: an instance in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from ._command import command

__all__ = ["register"]

Host = Annotated[str | None, typer.Option(help="Address to listen on (NORIA_HOST; default 127.0.0.1).")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the API (NORIA_PORT; default 8420; 0: any free one).")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the server's log.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""

    @command(app, "up", url=False, json=False)
    def up(
        host: Host = None,
        port: Port = None,
        console_port: Annotated[
            int | None, typer.Option(min=0, max=65535, help="Port of the console (default: the API's + 1).")
        ] = None,
        console: Annotated[bool | None, typer.Option("--console/--no-console", help="Start the web console as well.")] = None,
        verbose: Verbose = False,
    ) -> None:
        """Start everything: the server, the console, the default models.

        Models are pulled if they are missing. The first time, Noria's own documentation is indexed as the vector
        store noria-docs. Stays in the foreground; Ctrl-C
        stops everything it started.
        """
        from ._instance import UpOptions, run_up

        run_up(UpOptions(host=host, port=port, console_port=console_port, console=console, verbose=verbose))

    @command(app, "serve", url=False, json=False)
    def serve(
        host: Host = None,
        port: Port = None,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show the server's log.")] = False,
    ) -> None:
        """Start the server alone, in the foreground.

        No console is started, and nothing is pulled or indexed.
        """
        from ._instance import UpOptions, run_serve

        run_serve(UpOptions(host=host, port=port, verbose=not quiet))
