"""What led to a thing, and what came of it: from a trace to the models that learned from it, from an answer to its feedback.

A walk over the arrows of the loop, in both directions from where one stands. An edge points from cause to effect:
`trace → feedback → dataset version → file → tuning job → model → trace`. The walk back never turns forward again, nor the other
way, so it tells what led here and what came of this, not everything that has something to do with it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from noria.errors import InvalidRequest, NotFound
from noria.store import Database
from noria.tracing import TraceStore

from ._lineage_reads import Kind, Link, Node, Reads

__all__ = ["Graph", "Lineage"]

Direction = Literal["back", "forward", "both"]
_MOST_NODES = 500
_PREFIXES: tuple[tuple[str, Kind], ...] = (
    ("chatcmpl-", "completion"),
    ("cmpl-", "completion"),
    ("resp_", "response"),
    ("fb_", "feedback"),
    ("row_", "row"),
    ("ds_", "version"),
    ("file-", "file"),
    ("ftjob-", "job"),
    ("evalrun_", "eval_run"),
    ("turn_", "turn"),
)
_TRACE = re.compile(r"[0-9a-fA-F]{32}")


@dataclass(slots=True)
class Graph:
    """`truncated`: there was more than is shown."""

    start: str
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    edges: dict[tuple[str, str, str], None] = field(default_factory=dict[tuple[str, str, str], None])
    truncated: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "start": self.start,
            "nodes": [{"id": node.id, "kind": node.kind, **node.facts} for node in self.nodes.values()],
            "edges": [{"from": cause, "to": effect, "kind": kind} for cause, effect, kind in self.edges],
            "truncated": self.truncated,
        }


class Lineage:
    def __init__(self, database: Database, traces: TraceStore) -> None:
        self._database, self._traces = database, traces

    async def walk(self, project_id: str, identity: str, *, direction: Direction = "both", limit: int = 20) -> Graph:
        """The graph around a thing: any id of the loop, or a dataset's `NAME@VERSION`. Raises NotFound.

        Of many equal neighbours (the feedback of a version) `limit` are shown and the rest counted.
        """
        reads = Reads(self._database, self._traces, project_id, limit)
        start = await self._start(reads, identity.strip())
        graph = Graph(start.id, {start.id: start})
        if direction != "forward":
            await _spread(graph, start, reads.causes, forward=False)
        if direction != "back":
            await _spread(graph, start, reads.effects, forward=True)
        graph.truncated = graph.truncated or reads.truncated
        return graph

    async def _start(self, reads: Reads, identity: str) -> Node:
        for prefix, kind in _PREFIXES:
            if identity.startswith(prefix):
                return await self._found(reads, kind, identity)
        if _TRACE.fullmatch(identity):
            return await self._found(reads, "trace", identity.lower())
        for kind in ("model", "version"):  # a model's name, a dataset's
            if (node := await reads.node(kind, identity)) is not None:
                return node
        raise NotFound(
            f"Nothing is known of {identity!r}.",
            param="id",
            hint="Give a trace, chatcmpl-…, resp_…, fb_…, row_…, DATASET@VERSION, file-…, ftjob-…, ft:…, evalrun_… or turn_….",
        )

    @staticmethod
    async def _found(reads: Reads, kind: Kind, identity: str) -> Node:
        if len(identity) > 300:
            raise InvalidRequest("The id is too long.", param="id")
        node = await reads.node(kind, identity)
        if node is None:
            raise NotFound(f"There is no {kind.replace('_', ' ')} {identity!r}.", param="id", hint="It may have been deleted.")
        return node


async def _spread(graph: Graph, start: Node, neighbours: Callable[[Node], Awaitable[Sequence[Link]]], *, forward: bool) -> None:
    """Adds what can be reached in one direction, nearest first."""
    waiting, seen = [start], {start.id}
    while waiting:
        node = waiting.pop(0)
        for link in await neighbours(node):
            other = graph.nodes.setdefault(link.node.id, link.node)
            cause, effect = (node.id, other.id) if forward else (other.id, node.id)
            graph.edges[cause, effect, link.kind] = None
            if other.id not in seen or link.again:
                seen.add(other.id)
                if len(graph.nodes) >= _MOST_NODES:
                    graph.truncated = True
                else:
                    waiting.append(other)
