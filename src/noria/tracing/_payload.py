"""Raw bytes of a request and its answer, attached to a span now and read later.

The gateway's hot path hands over the bytes it has; the writer's thread parses them, so that no request waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import orjson
from opentelemetry.trace import Span

from noria.tracing import _semconv as sc
from noria.tracing._sse import Answer, Dialect, assemble


@dataclass(frozen=True, slots=True)
class Payload:
    """What went in and out: bytes as on the wire, or JSON-like objects. Objects must not be changed afterwards.

    `spans` are those of the process that answered, as an OTLP export request in JSON.
    """

    input: Any
    output: Any
    sse: Dialect | None
    spans: bytes | None = None

    @property
    def size(self) -> int:
        return sum(len(part) for part in (self.input, self.output, self.spans) if isinstance(part, bytes | str))


# By span id, until the span ends. The SDK hands its processors a copy of the span, so nothing can hang on the span.
_attached: dict[int, Payload] = {}


def attach_payload(
    span: Span, *, input: Any = None, output: Any = None, output_is_sse: Dialect | None = None, spans: bytes | None = None
) -> None:
    """Give a span, before it ends, the content of its request and answer; may be called once for each of the two.

    `input` and `output` are raw bytes (an OpenAI request body, an answer's body or its SSE stream) or objects.
    They are parsed outside the event loop, and only what the span's attributes do not already say is taken over.
    `spans` are an engine's own (OTLP in JSON); those of the same trace are stored beside this one.
    """
    if not span.is_recording():
        return
    span_id = span.get_span_context().span_id
    before = _attached.get(span_id)
    if before is not None:
        input = before.input if input is None else input
        output_is_sse = before.sse if output is None else output_is_sse
        output = before.output if output is None else output
        spans = before.spans if spans is None else spans
    _attached[span_id] = Payload(input, output, output_is_sse, spans)


def take(span_id: int) -> Payload | None:
    """The payload of a span that has just ended."""
    return _attached.pop(span_id, None) if _attached else None


def parsed(payload: Payload) -> dict[str, Any]:
    """The attributes that a payload amounts to."""
    attributes = _request(_loaded(payload.input))
    if payload.sse is not None and isinstance(payload.output, bytes):
        _answer(attributes, assemble(payload.output, payload.sse))
    else:
        _body(attributes, _loaded(payload.output))
    return attributes


def _loaded(value: Any) -> Any:
    if not isinstance(value, bytes | bytearray | memoryview):
        return value
    data = bytes(value)
    if not data:
        return None
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data.decode("utf-8", "replace")


def _request(body: Any) -> dict[str, Any]:
    if body is None:
        return {}
    if not isinstance(body, dict):
        return {sc.INPUT: body}
    rest = dict(cast("dict[str, Any]", body))
    attributes: dict[str, Any] = {}
    if isinstance(rest.get("messages"), list):
        attributes[sc.INPUT_MESSAGES] = rest.pop("messages")
    elif "input" in rest and _is_conversation(rest, rest["input"]):
        given = rest.pop("input")
        attributes[sc.INPUT_MESSAGES] = [{"role": "user", "content": given}] if isinstance(given, str) else given
        if isinstance(rest.get("instructions"), str):
            attributes[sc.SYSTEM_INSTRUCTIONS] = [{"type": "text", "content": rest.pop("instructions")}]
    elif "input" in rest:
        attributes[sc.INPUT] = rest.pop("input")
    elif "prompt" in rest:
        attributes[sc.INPUT] = rest.pop("prompt")
    elif "model" not in rest:
        return {sc.INPUT: rest}
    if rest.get("tools"):
        attributes[sc.TOOL_DEFINITIONS] = rest.pop("tools")
    if isinstance(rest.get("model"), str):
        attributes[sc.REQUEST_MODEL] = rest["model"]
    metadata: Any = rest.get("metadata")
    if isinstance(metadata, dict):
        attributes |= {f"{sc.METADATA_PREFIX}{key}": value for key, value in metadata.items()}
    attributes[sc.REQUEST] = rest
    return attributes


def _is_conversation(request: dict[str, Any], given: Any) -> bool:
    """True for the input of a response, False for that of an embedding or a moderation."""
    if isinstance(given, str):
        told = {"instructions", "previous_response_id", "max_output_tokens", "reasoning", "text", "tools", "store"}
        return not told.isdisjoint(request) or "stream" in request
    return isinstance(given, list) and bool(given) and isinstance(given[0], dict)


def _body(attributes: dict[str, Any], body: Any) -> None:
    if body is None:
        return
    answer = Answer()
    if not isinstance(body, dict):
        attributes[sc.OUTPUT] = body
        return
    body = cast("dict[str, Any]", body)
    if isinstance(body.get("choices"), list):
        answer.messages = [_choice(choice) for choice in body["choices"] if isinstance(choice, dict)]
    elif isinstance(body.get("output"), list):
        answer.messages = body["output"]
    elif isinstance(body.get("data"), list) and body["data"] and "embedding" in body["data"][0]:
        # Vectors are large, cheap to make again and say nothing to a reader.
        attributes[sc.OUTPUT] = {"embeddings": len(body["data"])}
    elif not body.get("error"):
        attributes[sc.OUTPUT] = body
    answer.usage = body["usage"] if isinstance(body.get("usage"), dict) else None
    answer.model = body["model"] if isinstance(body.get("model"), str) else None
    answer.id = body["id"] if isinstance(body.get("id"), str) else None
    answer.error = body.get("error")
    _answer(attributes, answer)


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    message: Any = choice.get("message")
    message = dict(message) if isinstance(message, dict) else {"role": "assistant", "content": choice.get("text")}
    return {**message, "finish_reason": choice.get("finish_reason")}


def _as_sent_back(message: Any) -> Any:
    """A chat answer as clients send it back with the next request, so that both are one body in the store."""
    if not isinstance(message, dict) or "content" not in message or "type" in message:
        return message
    return {
        key: value
        for key, value in cast("dict[str, Any]", message).items()
        if key == "content" or (value not in (None, []) and key not in ("finish_reason", "index"))
    }


def _answer(attributes: dict[str, Any], answer: Answer) -> None:
    if answer.messages:
        attributes[sc.OUTPUT_MESSAGES] = [_as_sent_back(message) for message in answer.messages]
        reasons = [item.get("finish_reason") for item in answer.messages if isinstance(item, dict)]
        if any(reasons):
            attributes[sc.FINISH_REASONS] = [str(reason) for reason in reasons if reason]
    if answer.error:
        attributes[sc.OUTPUT] = {"error": answer.error}
    for name, value in ((sc.RESPONSE_MODEL, answer.model), (sc.RESPONSE_ID, answer.id)):
        if value:
            attributes[name] = value
    usage = answer.usage or {}
    for name, keys in ((sc.INPUT_TOKENS, ("prompt_tokens", "input_tokens")),
                       (sc.OUTPUT_TOKENS, ("completion_tokens", "output_tokens"))):  # fmt: skip
        count = next((usage[key] for key in keys if isinstance(usage.get(key), int)), None)
        if count is not None:
            attributes[name] = count
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
        attributes[sc.CACHED_TOKENS] = details["cached_tokens"]
