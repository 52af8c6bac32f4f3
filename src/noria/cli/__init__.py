"""The `noria` command: a client of the HTTP API, one file per command group.

Beside the API it touches only the settings, the home folder of backups and the processes that it starts. Importing it
costs little: Typer alone; what a command needs is imported when it runs.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """The console script. Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 interrupted."""
    from ._app import app

    app(prog_name="noria")
