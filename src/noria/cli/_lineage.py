"""`noria lineage`: what led to a thing and what came of it, as a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import typer

from ._command import command, target

if TYPE_CHECKING:
    from rich.tree import Tree

__all__ = ["register"]

_FACTS = ("name", "rating", "label", "split", "rows", "filename", "status", "outcome", "count")
_WORDS = {"version": "dataset", "job": "tuning", "eval_run": "evaluation"}


def register(app: typer.Typer) -> None:
    command(app, "lineage")(lineage)


def lineage(
    identity: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="A trace, chatcmpl-…, resp_…, fb_…, row_…, DATASET@VERSION, file-…, ftjob-…, ft:…, …",
            show_default=False,
        ),
    ],
    direction: Annotated[
        Literal["back", "forward", "both"], typer.Option(help="Towards what led to it, what came of it, or both.")
    ] = "both",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="Of many equal neighbours show so many.")] = 10,
) -> None:
    """Walk back from an answer, or forward from a trace.

    From an answer to the model, the data and the feedback that made it; from a trace to every dataset and
    model that learned from it.
    """
    from ._connection import connect
    from ._show import note, out, print_json

    with connect() as api:
        graph = api.get(f"/v1/noria/lineage/{quote(identity, safe='')}", direction=direction, limit=limit)
    if target().json:
        print_json(graph)
        return
    nodes = {node["id"]: node for node in graph["nodes"]}
    start = nodes[graph["start"]]
    for title, here, there in (("came from", "to", "from"), ("led to", "from", "to")):
        if any(edge[here] == start["id"] for edge in graph["edges"]):
            out().print(_tree(graph["edges"], nodes, start, (here, there), title))
    if not graph["edges"]:
        out().print(_title(start))
        note("Nothing led to it and nothing came of it.")
    if graph["truncated"]:
        note("There is more than is shown: --limit, or --json.")


def _tree(
    edges: Sequence[Mapping[str, str]], nodes: Mapping[str, Any], start: Mapping[str, Any], way: tuple[str, str], title: str
) -> Tree:
    """The edges as a tree; a node that is reached twice is unfolded once."""
    from rich.tree import Tree

    here, there = way
    tree = Tree(f"{_title(start)} {title}", guide_style="dim", highlight=False)
    shown = {start["id"]}
    waiting: list[tuple[Tree, str]] = [(tree, start["id"])]
    while waiting:
        branch, identity = waiting.pop(0)
        for edge in edges:
            if edge[here] == identity:
                node = nodes[edge[there]]
                again = node["id"] in shown
                below = branch.add(f"{_title(node)}{' …' if again else ''}", highlight=False)
                if not again:
                    shown.add(node["id"])
                    waiting.append((below, node["id"]))
    return tree


def _title(node: Mapping[str, Any]) -> str:
    if node["kind"] == "more":
        return f"{node['count']:,} more of kind {node['of']}"
    facts = ", ".join(f"{node[name]}" for name in _FACTS if node.get(name) not in (None, "", []))
    marks = f"; learned from {len(node['marks'])} deleted" if node.get("marks") else ""
    return f"{_WORDS.get(node['kind'], str(node['kind'])).replace('_', ' ')} {node['id']}" + (
        f" ({facts}{marks})" if facts or marks else ""
    )
