"""Stored spans read back, with their content, and nested.

Parents may be missing, late or (from a broken sender) in a circle: every span stored is in the tree exactly once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from sqlalchemy import Connection, select

from noria.tracing import _normalise
from noria.tracing._batch import load_tree
from noria.tracing._content import body_ids, unpack
from noria.tracing._deletion import read_bodies
from noria.tracing._schema import spans

_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES: tuple[Literal["unset", "ok", "error"], ...] = ("unset", "ok", "error")


@dataclass(slots=True)
class SpanNode:
    """A span as it is shown.

    `input` and `output` are lists of OpenAI chat messages (or Responses items) where the span was a conversation, any
    JSON value where it was not, None where nothing was captured. `attributes` are the originals.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    operation: str | None
    start_ns: int
    duration_ns: int
    status: Literal["unset", "ok", "error"]
    status_message: str | None
    error_type: str | None
    model: str | None
    provider: str | None
    service: str | None
    key_id: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    ttft_s: float | None
    input: Any
    output: Any
    attributes: dict[str, Any]
    events: list[dict[str, Any]]
    links: list[dict[str, Any]]
    resource: dict[str, Any]
    scope: str | None
    children: list[SpanNode] = field(default_factory=list["SpanNode"])


_COLUMNS = ("span_id", "parent_id", "name", "operation", "start_ns", "duration_ns", "error_type", "model", "provider",
            "service", "key_id", "input_tokens", "output_tokens", "cost_usd", "ttft_s")  # fmt: skip


def load_spans(connection: Connection, named: Mapping[int, str], span_id: str | None = None) -> dict[str, list[SpanNode]]:
    """The spans of these traces (row ids with their names), by time, each with its content and without children."""
    here = spans.c.trace.in_(list(named))
    query = select(spans).where(here if span_id is None else here & (spans.c.span_id == span_id))
    rows = connection.execute(query.order_by(spans.c.trace, spans.c.start_ns, spans.c.id)).all()
    trees = [load_tree(row.rest) for row in rows]
    data = read_bodies(connection, list({body for tree in trees for body in body_ids(tree)}))
    found: dict[str, list[SpanNode]] = {name: [] for name in named.values()}
    for row, tree in zip(rows, trees, strict=True):
        found[named[row.trace]].append(_node(named[row.trace], row, tree, data))
    return found


def _node(trace_id: str, row: Any, tree: dict[str, Any], data: dict[int, bytes]) -> SpanNode:
    fetch = data.__getitem__
    attributes = {key: unpack(value, fetch) for key, value in tree["a"].items()}
    events = [
        {**event, "attributes": {key: unpack(value, fetch) for key, value in event["attributes"].items()}}
        for event in tree.get("e", ())
    ]
    said = _normalise.content(attributes, events)
    return SpanNode(
        trace_id=trace_id,
        kind=_KINDS[row.kind] if 0 <= row.kind < len(_KINDS) else "unspecified",
        status=_STATUSES[row.status] if 0 <= row.status < len(_STATUSES) else "unset",
        status_message=tree.get("m"),
        input=said.input,
        output=said.output,
        attributes=attributes,
        events=events,
        links=tree.get("l", []),
        resource=orjson.loads(fetch(tree["r"])) if "r" in tree else {},
        scope=tree.get("s"),
        **{name: getattr(row, name) for name in _COLUMNS},
    )


def build_tree(nodes: list[SpanNode]) -> tuple[SpanNode, ...]:
    """Nest the spans; those whose parents are not among them are roots, and so is one of each circle."""
    by_id = {node.span_id: node for node in nodes}
    placed: set[str] = set()

    def place(node: SpanNode) -> None:
        # With a stack, not by recursion: a chain of spans may be longer than Python's.
        stack = [node]
        placed.add(node.span_id)
        while stack:
            parent = stack.pop()
            for child in waiting.get(parent.span_id, []):
                if child.span_id not in placed:
                    placed.add(child.span_id)
                    parent.children.append(child)
                    stack.append(child)

    waiting: dict[str, list[SpanNode]] = {}
    roots: list[SpanNode] = []
    for node in nodes:
        if node.parent_id is not None and node.parent_id in by_id:
            waiting.setdefault(node.parent_id, []).append(node)
        else:
            roots.append(node)
    for node in roots:
        place(node)
    for node in nodes:  # what is left is in circles
        if node.span_id not in placed:
            roots.append(node)
            place(node)
    return tuple(roots)
