"""`noria doctor`: what is well, what is not, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from ._command import command, target

__all__ = ["register"]

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app, "doctor", url=False)
    def doctor(
        offline: Annotated[bool, typer.Option("--offline", help="Do not ask the package index.")] = False,
    ) -> None:
        """Check the machine and the instance, and say what to do.

        Exit code 1 when something fails. A server is started for the checks when none runs.
        """
        from dataclasses import asdict

        from ._checks import run_checks
        from ._show import hanging, print_json

        found = []
        for check in run_checks(offline=offline):
            found.append(check)
            if target().json:
                continue
            hanging(f"{check.state:<5}", _COLOURS[check.state], f"{check.name:<14}", check.found)
            if check.advice:
                hanging("     ", "", " " * 14, check.advice)
        if target().json:
            print_json([asdict(check) for check in found])
        if any(check.state == "fail" for check in found):
            raise typer.Exit(1)
