"""Large and repeated parts of spans, stored once by content.

A span's attributes become a small tree in which each message and each long text is a reference to a body. A
conversation's twentieth span holds twenty numbers, not twenty messages.

The tree's markers: `{"$s": id}` a text, `{"$l": [id, …]}` a list whose items are bodies, `{"$o": {…}}` an object looked
into; `"j": 1` beside `$l` or `$o` when the attribute was JSON text. A negative id is a body that was already there as
history: it is not searched for in this span, but where it was said first. Knows nothing about databases.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, cast

import orjson

from noria.tracing import _semconv as sc
from noria.tracing._records import SpanRecord, plain

INLINE_BYTES = 256
# What one span adds to the text index at most, and one body: an index is for finding, not for keeping.
SEARCH_CHARS, SEARCH_BODY_CHARS = 24_000, 8_000

_SPOKEN = {
    sc.INPUT_MESSAGES, sc.OUTPUT_MESSAGES, sc.SYSTEM_INSTRUCTIONS, sc.TOOL_ARGUMENTS, sc.TOOL_RESULT, sc.INPUT, sc.OUTPUT,
    "input.value", "output.value", "gen_ai.prompt", "gen_ai.completion", "ai.prompt", "ai.prompt.messages",
    "ai.response.text", "ai.response.object", "ai.response.toolCalls", "ai.response.reasoning", "ai.toolCall.args",
    "ai.toolCall.result", "ai.value", "ai.values", "ai.result.text", "ai.result.object", "ai.result.toolCalls",
    "traceloop.entity.input", "traceloop.entity.output", "langfuse.observation.input", "langfuse.observation.output",
    "langfuse.trace.input", "langfuse.trace.output", "mlflow.spanInputs", "mlflow.spanOutputs", "message", "content",
}  # fmt: skip
_SPOKEN_PREFIXES = (
    "llm.input_messages.", "llm.output_messages.", "llm.prompts.", "gen_ai.prompt.", "gen_ai.completion.",
    "retrieval.documents.", "reranker.", "llm.prompt_template.",
)  # fmt: skip
_UNSPOKEN = {sc.TOOL_DEFINITIONS, sc.REQUEST, "ai.prompt.tools", "ai.embedding", "ai.embeddings", "tool.parameters"}
_UNSPOKEN_PREFIXES = ("embedding.embeddings.", "llm.tools.", "llm.request.functions.")
_DUMP = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS
_SILENT_KEYS = {"id", "type", "role", "tool_call_id", "finish_reason", "call_id", "mime_type", "url", "image_url"}


def is_spoken(key: str) -> bool:
    """True for attributes whose text a person may look for."""
    return key in _SPOKEN or key.startswith(_SPOKEN_PREFIXES)


def is_content(key: str) -> bool:
    """True for attributes that are left out where content is not captured."""
    return is_spoken(key) or key in _UNSPOKEN or key.startswith(_UNSPOKEN_PREFIXES)


def without_content(record: SpanRecord) -> None:
    """Take out everything that was said, from attributes and events."""
    record.attributes = {key: value for key, value in record.attributes.items() if not is_content(key)}
    for event in record.events:
        event["attributes"] = {key: value for key, value in event["attributes"].items() if not is_content(key)}


@dataclass(slots=True, eq=False)
class Body:
    """A piece of content before it has a row. `owner` is the span that brought it, if no row had it before."""

    hash: bytes
    data: bytes
    id: int = 0
    owner: object = None
    uses: int = 0


@dataclass(slots=True, eq=False)
class Ref:
    """One use of a body by a span."""

    body: Body
    span: object
    value: Any  # what the body's bytes hold: text for `$s`, JSON for `$l`
    history: bool = False

    @property
    def stored(self) -> int:
        return -self.body.id if self.history and self.body.owner is not self.span else self.body.id


class Packer:
    """Packs the spans of one batch; equal bodies of a batch are one `Body`."""

    def __init__(self) -> None:
        self.bodies: dict[bytes, Body] = {}

    def pack(self, record: SpanRecord) -> tuple[dict[str, Any], list[Ref]]:
        """The tree to store for this span, and the bodies it uses."""
        refs: list[Ref] = []
        tree: dict[str, Any] = {"a": self._attributes(record.attributes, record, refs)}
        if record.events:
            tree["e"] = [{**event, "attributes": self._attributes(event["attributes"], record, refs)} for event in record.events]
        if record.links:
            tree["l"] = record.links
        if record.resource:
            tree["r"] = self._ref(_json(plain(record.resource)), None, record, refs)
        if record.scope:
            tree["s"] = record.scope
        if record.status_message:
            tree["m"] = record.status_message[:4000]
        return tree, refs

    def _attributes(self, attributes: Mapping[str, Any], span: object, refs: list[Ref]) -> dict[str, Any]:
        return {key: self._value(value, span, refs) for key, value in attributes.items()}

    def _value(self, value: Any, span: object, refs: list[Ref]) -> Any:
        if isinstance(value, str):
            if len(value) < INLINE_BYTES:
                return value
            return self._json_text(value, span, refs) or self._text(value, span, refs)
        if isinstance(value, dict):
            packed = self._object(cast("dict[str, Any]", value), span, refs)
            return {"$o": packed}
        if isinstance(value, list | tuple):
            items = cast("list[Any]", value)
            return self._list(items, span, refs) if items and isinstance(items[0], dict) else plain(items)
        return plain(value)

    def _text(self, value: str, span: object, refs: list[Ref]) -> dict[str, Any]:
        data = value.encode("utf-8", "replace")
        return {"$s": self._ref(data, value if value.isascii() else data.decode(), span, refs)}

    def _json_text(self, text: str, span: object, refs: list[Ref]) -> dict[str, Any] | None:
        if text[0] not in "[{":
            return None
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return None
        if isinstance(value, list):
            if not value or not isinstance(value[0], dict):
                return None
            return {**self._list(cast("list[Any]", value), span, refs), "j": 1}
        return {"$o": self._object(cast("dict[str, Any]", value), span, refs), "j": 1}

    def _object(self, value: dict[str, Any], span: object, refs: list[Ref]) -> dict[str, Any]:
        return {str(key): self._value(item, span, refs) for key, item in value.items()}

    def _list(self, items: list[Any], span: object, refs: list[Ref]) -> dict[str, Any]:
        last_answer = max((i for i, item in enumerate(items) if _is_answer(item)), default=-1)
        # An answer that ends the list was just given; one that something follows is history.
        history = last_answer if last_answer < len(items) - 1 else -1
        found = [self._ref(_json(item), item, span, refs) for item in items]
        for ref in found[: history + 1]:
            ref.history = True
        return {"$l": found}

    def _ref(self, data: bytes, value: Any, span: object, refs: list[Ref]) -> Ref:
        digest = blake2b(data, digest_size=16).digest()
        body = self.bodies.get(digest)
        if body is None:
            body = self.bodies[digest] = Body(digest, data)
        ref = Ref(body, span, value)
        refs.append(ref)
        return ref


def dump(tree: dict[str, Any]) -> bytes:
    """The tree as stored. All its bodies must have ids by now."""
    try:
        return orjson.dumps(tree, default=_default, option=_DUMP)
    except TypeError:  # a lone surrogate in some text
        return json.dumps(tree, default=_default, ensure_ascii=False).encode("utf-8", "replace")


def body_ids(tree: dict[str, Any]) -> Iterator[int]:
    """The bodies that a stored tree uses, one id for each use."""
    if "r" in tree:
        yield abs(tree["r"])
    for group in _groups(tree):
        for value in group.values():
            yield from _value_ids(value)


def _value_ids(value: Any) -> Iterator[int]:
    if not isinstance(value, dict):  # plain lists hold no references
        return
    marked = cast("dict[str, Any]", value)
    if "$s" in marked:
        yield abs(marked["$s"])
    elif "$l" in marked:
        yield from map(abs, marked["$l"])
    else:
        for item in marked["$o"].values():
            yield from _value_ids(item)


def _groups(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield tree["a"]
    for event in tree.get("e", ()):
        yield event["attributes"]


def unpack(value: Any, fetch: Callable[[int], bytes]) -> Any:
    """An attribute's value as it came; JSON text comes back with other white space."""
    if isinstance(value, dict):
        marked = cast("dict[str, Any]", value)
        if "$s" in marked:
            return fetch(abs(marked["$s"])).decode()
        if "$l" in marked:
            items = [orjson.loads(fetch(abs(item))) for item in marked["$l"]]
            return orjson.dumps(items).decode() if marked.get("j") else items
        if "$o" in marked:
            inside = {key: unpack(item, fetch) for key, item in marked["$o"].items()}
            return orjson.dumps(inside).decode() if marked.get("j") else inside
    return value


def search_text(tree: dict[str, Any], fetch: Callable[[int], bytes] | None = None) -> str:
    """What the text index holds for a span.

    The index keeps no text: to take a span out of it the same text must be given again. So this gives the same for a
    tree before storing (`Ref`s, no `fetch`) and after (numbers); whoever changes what it gives raises
    `_schema.VERSION` and rebuilds the index.
    """
    found: list[str] = []
    for group in _groups(tree):
        for key, value in group.items():
            if is_spoken(key):
                _texts(value, fetch, found)
    pieces: list[str] = []
    left = SEARCH_CHARS
    for text in found:
        pieces.append(text[: min(left, SEARCH_BODY_CHARS)])
        left -= len(pieces[-1])
        if left <= 0:
            break
    return "\n".join(pieces)


def _texts(value: Any, fetch: Callable[[int], bytes] | None, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, list):
        _leaves(value, found)
    elif isinstance(value, dict):
        marked = cast("dict[str, Any]", value)
        if "$s" in marked:
            text = marked["$s"]
            found.append(text.value if fetch is None else fetch(abs(text)).decode())
        elif "$l" in marked:
            for item in marked["$l"]:
                if fetch is None:
                    if item.stored > 0:
                        _leaves(item.value, found)
                elif item > 0:
                    _leaves(orjson.loads(fetch(item)), found)
        elif "$o" in marked:
            for key, item in sorted(marked["$o"].items()):
                if key not in _SILENT_KEYS:
                    _texts(item, fetch, found)


def _leaves(value: Any, found: list[str]) -> None:
    if isinstance(value, str):
        if not value.startswith("data:"):
            found.append(value)
    elif isinstance(value, dict):
        # Sorted, as bodies are: with many texts, which of them the limit cuts off must not depend on the sender's order.
        for key in sorted(value):
            if key not in _SILENT_KEYS:
                _leaves(value[key], found)
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            _leaves(item, found)


def _is_answer(item: Any) -> bool:
    return isinstance(item, dict) and cast("dict[str, Any]", item).get("role") == "assistant"


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)  # two clients' orders of keys are one body
    except TypeError:  # an integer beyond 64 bits, a lone surrogate, an SDK's tuple
        return json.dumps(plain(value), ensure_ascii=False).encode("utf-8", "replace")


def _default(value: Any) -> Any:
    if isinstance(value, Ref):
        return value.stored
    return str(value)
