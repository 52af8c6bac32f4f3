"""The command line's reference page, made from the commands themselves: `python -m noria.cli._reference > docs/reference/cli.md`.

Knows nothing of what the commands do. The output depends on the commands alone, not on the terminal or the environment.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, get_args

from typer.main import get_command

from ._app import app

__all__ = ["commands", "render"]

_INTRO = """\
# The command line

<!-- Made by `python -m noria.cli._reference`; do not edit. -->

`noria` is a client of the HTTP API. A command talks to the server at `--url` (or `NORIA_URL`, with `NORIA_API_KEY`), else to the
one that runs on the home (`--home`, `NORIA_HOME`, default `~/.noria`), else it starts one and stops it at the end.
A `--home` on the command line wins over `NORIA_URL`.

Data goes to standard output, progress and remarks to standard error. With `--json`, the data are JSON. Exit codes: 0 done,
1 failed, 2 wrong usage or settings, 130 interrupted.
"""


def render() -> str:
    """The page, as Markdown."""
    root: Any = get_command(app)
    lines = [_INTRO]
    for path, command in commands("noria", root):
        lines += _section(path, command)
    return "\n".join(lines).rstrip() + "\n"


def commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Each command with its whole name, the groups before their members."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from commands(f"{path} {name}", child)


def _section(path: str, command: Any) -> Iterator[str]:
    depth = path.count(" ") + 1
    yield f"{'#' * (depth + 1)} `{path}`\n"
    if command.help:
        yield f"{command.help.strip()}\n"
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [each for each in shown if each.param_type_name == "argument"]
    options = [each for each in shown if each.param_type_name == "option" and "--help" not in each.opts]
    children = getattr(command, "commands", {})
    yield f"```console\n$ {_usage(path, arguments, has_options=bool(options), has_commands=bool(children))}\n```\n"
    if arguments:
        yield from _rows("Argument", [(f"`{_argument(each)}`", each) for each in arguments])
    if options:
        yield from _rows("Option", [(_option(each), each) for each in options])


def _usage(path: str, arguments: list[Any], *, has_options: bool, has_commands: bool) -> str:
    words = [path]
    words += ["[OPTIONS]"] if has_options else []
    words += ["COMMAND [ARGS]…"] if has_commands else []
    words += [_argument(each) if each.required else f"[{_argument(each)}]" for each in arguments]
    return " ".join(words)


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper()).strip("[]").removesuffix("...").strip("[]")
    return f"{name}…" if parameter.nargs == -1 else name


def _option(parameter: Any) -> str:
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _rows(title: str, rows: list[tuple[str, Any]]) -> Iterator[str]:
    yield f"| {title} | Meaning | Default |"
    yield "|---|---|---|"
    for name, parameter in rows:
        text = " ".join(str(getattr(parameter, "help", None) or "").split()).replace("|", "\\|").replace("<", "&lt;")
        choices = _choices(parameter)
        meaning = f"{text} One of {choices}." if choices else text
        yield f"| {name} | {meaning} | {_default(parameter)} |"
    yield ""


def _choices(parameter: Any) -> str:
    choices = get_args(parameter.type_descriptor.annotation) if parameter.type_descriptor.is_choice else ()
    return ", ".join(f"`{choice}`" for choice in choices)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if value is None or value is False or callable(value) or value == ():
        return ""
    if value is True:
        return f"`{parameter.opts[0]}`" if parameter.secondary_opts else "yes"
    return f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(render())
