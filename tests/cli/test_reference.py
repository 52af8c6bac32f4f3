"""The page that documents the command line is what the commands say of themselves."""

from __future__ import annotations

from pathlib import Path

from typer.main import get_command

from noria.cli._app import app
from noria.cli._reference import commands, render

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "Run: python -m noria.cli._reference > docs/reference/cli.md"


def test_every_command_argument_and_option_is_explained() -> None:
    for path, command in commands("noria", get_command(app)):
        assert command.help, path
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{path} {parameter.name}"
