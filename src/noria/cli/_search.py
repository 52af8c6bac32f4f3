"""`noria search`: the passages of a vector store that match, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from ._command import command, target
from ._completion import complete_store

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app, "search")
    def search(
        query: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
        store: Annotated[
            str,
            typer.Option(
                "--store", "-s", help="Name or id of the vector store.", show_default=False, autocompletion=complete_store
            ),
        ],
        k: Annotated[int, typer.Option("-k", "--k", min=1, max=50, help="Most passages.")] = 5,
        explain: Annotated[bool, typer.Option("--explain", help="Say why each passage was found.")] = False,
        filter: Annotated[
            list[str] | None,
            typer.Option(
                "--filter", "-f", metavar="KEY=VALUE", help="Only files with this attribute (or != > >= < <=); repeatable."
            ),
        ] = None,
    ) -> None:
        """Search a vector store by meaning and by words."""
        from ._connection import connect
        from ._show import note, print_json
        from ._values import parse_filters

        body = {"query": query, "max_num_results": k, "filters": parse_filters(filter or ()), "explain": True}
        with connect() as api:
            reply = api.post(f"/v1/vector_stores/{quote(store, safe='')}/search", body)
        if target().json:
            print_json(reply["data"])
            return
        for number, hit in enumerate(reply["data"], 1):
            _print_hit(number, hit, explain=explain)
        if not reply["data"]:
            note("Nothing was found.")


def _print_hit(number: int, hit: Mapping[str, Any], *, explain: bool) -> None:
    from rich.text import Text

    from ._answering import where
    from ._show import out, paragraph

    head = Text(f"{number}. {hit['filename']}", style="bold")
    head.append(f"  {hit['score']:.3f}", style="cyan")
    if place := where(hit["noria"]):
        head.append(f"  {place}", style="dim")
    out().print(head)
    text = "\n".join(part["text"] for part in hit["content"]).strip()
    paragraph(text, indent=3)
    if explain:
        for line in _reasons(hit["noria"]):
            paragraph(line, indent=3, style="dim")
    out().print()


def _reasons(why: Mapping[str, Any]) -> Iterator[str]:
    for name, leg in (("by meaning", why.get("dense")), ("by words", why.get("text"))):
        yield f"{name}: rank {leg['rank']}, score {leg['score']:.3f}" if leg else f"{name}: not among the candidates"
    if why.get("matched_words"):
        yield "words: " + ", ".join(why["matched_words"])
    yield f"characters {why['start']}–{why['end']} of the file's text"
