"""`noria ask`: a question answered from documents, with the passages that the answer rests on."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ._command import command
from ._completion import complete_model, complete_store

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app, "ask")
    def ask(
        question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.", show_default=False)],
        store: Annotated[
            list[str],
            typer.Option(
                "--store",
                "-s",
                help="Vector store to answer from; repeatable.",
                show_default=False,
                autocompletion=complete_store,
            ),
        ],
        model: Annotated[
            str | None,
            typer.Option("--model", "-m", help="Model that answers (default: the chat model).", autocompletion=complete_model),
        ] = None,
        answer: Annotated[
            Literal["auto", "generate", "extract"],
            typer.Option(help="Let the model write, quote passages verbatim, or choose by the model's card."),
        ] = "auto",
        k: Annotated[int, typer.Option("-k", "--k", min=1, max=50, help="Passages to look up.")] = 8,
        filter: Annotated[
            list[str] | None,
            typer.Option(
                "--filter", "-f", metavar="KEY=VALUE", help="Only files with this attribute (also != > >= < <=); repeatable."
            ),
        ] = None,
        max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    ) -> None:
        """Answer a question from a vector store, with citations.

        Where the model's card says that it cannot answer from passages well, they are quoted verbatim and labelled extractive.
        """
        from ._answering import Question, run_ask

        run_ask(Question(question, tuple(store), model, answer, k, tuple(filter or ()), max_tokens))
