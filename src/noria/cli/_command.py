"""How a command is declared: the options that all share, and how every failure ends.

`--home`, `--url` and `--json` are added to a command's own parameters here, so that no command repeats them; what was given is
kept for the time of the call in `target()`. A command's function has one parameter per argument and option on its command
line, however many those are.
"""

from __future__ import annotations

import functools
import inspect
import io
import os
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer

from noria.errors import ConfigurationError, InvalidRequest, NoriaError

from ._harmless import harmless_streams

__all__ = ["Target", "Yes", "command", "common_options", "confirm", "fail", "group", "target"]

Home = Annotated[Path | None, typer.Option("--home", help="Folder of the instance (NORIA_HOME; default ~/.noria).")]
Url = Annotated[str | None, typer.Option("--url", help="Talk to the server at this URL (NORIA_URL, with NORIA_API_KEY).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dataclass(frozen=True, slots=True)
class Target:
    """Which instance a command is about, and how it prints."""

    home: Path | None = None
    url: str | None = None
    json: bool = False


_target: ContextVar[Target] = ContextVar("target", default=Target())  # noqa: B039  (frozen)


def target() -> Target:
    """What `--home`, `--url` and `--json` say for the command that runs."""
    return _target.get()


def group(help: str) -> typer.Typer:
    """A group of commands, like `noria models`."""
    return typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def common_options(home: Path | None, url: str | None) -> None:
    """Notes options given before the command's name (`noria --home DIR ask …`)."""
    _target.set(Target(home, url))


def command(
    app: typer.Typer, name: str, *, url: bool = True, json: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds a function to `app` as a command. `url` and `json` say whether it takes those options."""
    shared: dict[str, tuple[Any, Any]] = {"home": (Home, None)}
    shared |= {"url": (Url, None)} if url else {}
    shared |= {"json": (Json, False)} if json else {}

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True)
        extra = [
            inspect.Parameter(f"noria_{key}", inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, (annotation, default) in shared.items()
        ]

        @functools.wraps(function)
        def run(**given: Any) -> None:
            common = {key: given.pop(f"noria_{key}") for key in shared}
            _target.set(replace(_target.get(), **{key: value for key, value in common.items() if value}))
            _take_any_text(sys.stdout, sys.stderr)
            with harmless_streams():
                _guarded(function, given)

        run.__signature__ = own.replace(parameters=[*own.parameters.values(), *extra])  # pyright: ignore[reportAttributeAccessIssue]
        app.command(name)(run)
        return function

    return register


def _take_any_text(*streams: TextIO) -> None:
    """What a terminal's or a pipe's encoding lacks is shown as `?`: it is no fault of what was given."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _guarded(function: Callable[..., None], given: dict[str, Any]) -> None:
    """Runs a command; an expected failure prints its message, not a traceback."""
    try:
        function(**given)
        sys.stdout.flush()
    except NoriaError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # Whoever read us has left (`noria traces list | head`); nothing more may be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except UnicodeError as error:
        fail(InvalidRequest(f"What was given is not UTF-8 text: {error}."))
    except OSError as error:
        fail(NoriaError(f"{error.filename or 'The system'}: {error.strerror or error}."))


def fail(error: NoriaError) -> NoReturn:
    """Prints what failed and what to do, and exits."""
    print(f"noria: {error.message}", file=sys.stderr)
    if error.hint:
        print(error.hint, file=sys.stderr)
    raise typer.Exit(2 if isinstance(error, ConfigurationError | InvalidRequest) else 1)


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something is lost. Where nobody can be asked, --yes is needed."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidRequest(question, hint="Nobody can be asked here: say --yes.")
    typer.confirm(question, abort=True)
