"""`noria chat`: talk with a model in the terminal, or send one message."""

from __future__ import annotations

from typing import Annotated

import typer

from ._command import command

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app, "chat")
    def chat(
        model: Annotated[str | None, typer.Argument(help="The model (default: the chat model of the settings).")] = None,
        message: Annotated[
            str | None,
            typer.Option("--message", "-m", help="Send this, print the answer and leave; piped input is put below it."),
        ] = None,
        system: Annotated[str | None, typer.Option("--system", "-s", help="Instructions to the model.")] = None,
        temperature: Annotated[float | None, typer.Option("--temperature", "-t", min=0, max=2, help="0 to 2.")] = None,
        max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
        seed: Annotated[int | None, typer.Option(help="Seed, for answers that can be repeated.")] = None,
    ) -> None:
        """Chat with a model. In the conversation, /help lists what else can be done.

        With --message, or with input piped in, one message is sent and the answer printed.
        """
        from ._talk import Talk, run_chat

        run_chat(Talk(model, system, temperature, max_tokens, seed), message)
