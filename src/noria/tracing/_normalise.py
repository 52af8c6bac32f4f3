"""What a span says, whichever library wrote it: operation, model, tokens, cost, messages.

Reads OpenTelemetry GenAI, OpenInference, OpenLLMetry (Traceloop), Langfuse, Vercel's AI SDK and MLflow names, in that
order of trust. It never changes the attributes: they are stored as they came and read again when a span is shown, so
that what is learned here later also holds for old spans.

Sources: opentelemetry.io/docs/specs/semconv/gen-ai, arize-ai.github.io/openinference/spec,
github.com/traceloop/openllmetry (semconv_ai), langfuse.com/integrations/native/opentelemetry#property-mapping,
ai-sdk.dev/docs/ai-sdk-core/telemetry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from noria.tracing import _conversation as talk
from noria.tracing import _semconv as sc
from noria.tracing._records import clean_text

_MODEL = (sc.REQUEST_MODEL, sc.RESPONSE_MODEL, "llm.model_name", "embedding.model_name", "reranker.model_name",
          "llm.request.model", "langfuse.observation.model.name", "ai.model.id")  # fmt: skip
_PROVIDER = (sc.PROVIDER, "gen_ai.system", "llm.provider", "llm.system", "llm.vendor", "ai.model.provider")
_INPUT_TOKENS = (sc.INPUT_TOKENS, "gen_ai.usage.prompt_tokens", "llm.token_count.prompt", "llm.usage.prompt_tokens",
                 "ai.usage.inputTokens", "ai.usage.promptTokens", "ai.usage.tokens")  # fmt: skip
_OUTPUT_TOKENS = (sc.OUTPUT_TOKENS, "gen_ai.usage.completion_tokens", "llm.token_count.completion",
                  "llm.usage.completion_tokens", "ai.usage.outputTokens", "ai.usage.completionTokens")  # fmt: skip
_CACHED_TOKENS = (sc.CACHED_TOKENS, "gen_ai.usage.cache_read_input_tokens", "ai.usage.cachedInputTokens",
                  "llm.token_count.prompt_details.cache_read")  # fmt: skip
_COST = (sc.COST_USD, "gen_ai.usage.cost", "llm.cost.total", "gen_ai.usage.total_cost")
_SESSION = (sc.CONVERSATION_ID, "session.id", "langfuse.session.id", "traceloop.association.properties.session_id",
            "ai.telemetry.metadata.sessionId", "mlflow.trace.session")  # fmt: skip
_USER = (sc.USER_ID, "langfuse.user.id", "enduser.id", "traceloop.association.properties.user_id",
         "ai.telemetry.metadata.userId")  # fmt: skip
_INPUT = (sc.INPUT, sc.TOOL_ARGUMENTS, "input.value", "langfuse.observation.input", "langfuse.trace.input",
          "traceloop.entity.input", "ai.toolCall.args", "ai.prompt", "ai.value", "ai.values", "mlflow.spanInputs",
          "gen_ai.prompt")  # fmt: skip
_OUTPUT = (sc.OUTPUT, sc.TOOL_RESULT, "output.value", "langfuse.observation.output", "langfuse.trace.output",
           "traceloop.entity.output", "ai.toolCall.result", "ai.response.object", "mlflow.spanOutputs",
           "gen_ai.completion")  # fmt: skip
_METADATA_PREFIXES = (sc.METADATA_PREFIX, "langfuse.trace.metadata.", "langfuse.observation.metadata.",
                      "ai.telemetry.metadata.", "traceloop.association.properties.")  # fmt: skip
# Kept as labels beside the metadata, so that traces are found by them.
_FOUND_BY = (sc.PROMPT_ID, sc.PROMPT_NAME, sc.PROMPT_VERSION, sc.ROUTE, sc.ROUTE_VARIANT)

_KINDS = {
    # OpenInference's openinference.span.kind, Langfuse's langfuse.observation.type, Traceloop's span kinds
    "llm": sc.CHAT, "generation": sc.CHAT, "embedding": sc.EMBEDDINGS, "retriever": sc.RETRIEVAL, "tool": sc.EXECUTE_TOOL,
    "agent": sc.INVOKE_AGENT, "reranker": sc.RERANK, "chain": "chain", "workflow": "workflow", "task": "task",
    "guardrail": "guardrail", "evaluator": "evaluator", "chat": sc.CHAT, "completion": sc.TEXT_COMPLETION,
    "rerank": sc.RERANK, "chat_model": sc.CHAT, "prompt": "prompt",
}  # fmt: skip
_VERCEL = {"doGenerate": sc.CHAT, "doStream": sc.CHAT, "doEmbed": sc.EMBEDDINGS, "toolCall": sc.EXECUTE_TOOL}
# Spans whose usage is their own; an agent's or a chain's repeats what its children report.
_COUNTED = {sc.CHAT, sc.TEXT_COMPLETION, sc.EMBEDDINGS, sc.RERANK, "generate_content", "response", "responses"}
_TEXT_LIMIT = 300


@dataclass(slots=True)
class Facts:
    """The columns of a span. None means that the span does not say."""

    operation: str | None = None
    provider: str | None = None
    model: str | None = None
    key_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost_usd: float | None = None
    ttft_s: float | None = None
    error_type: str | None = None
    counted: bool = False
    metadata: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Content:
    """What went into a span and what came out: chat messages where it was a conversation, any JSON where not."""

    input: Any
    output: Any


def facts(attributes: Mapping[str, Any], events: list[dict[str, Any]]) -> Facts:
    """The columns of a span with these attributes and events."""
    found = Facts(
        operation=_operation(attributes),
        provider=_text(attributes, _PROVIDER),
        model=_text(attributes, _MODEL),
        key_id=_text(attributes, (sc.KEY_ID,)),
        session_id=_text(attributes, _SESSION),
        user_id=_text(attributes, _USER),
        input_tokens=_count(attributes, _INPUT_TOKENS),
        output_tokens=_count(attributes, _OUTPUT_TOKENS),
        cached_tokens=_count(attributes, _CACHED_TOKENS),
        cost_usd=_number(attributes, _COST),
        ttft_s=_number(attributes, (sc.TTFT_S,)),
        error_type=_text(attributes, (sc.ERROR_TYPE,)),
        metadata=_metadata(attributes),
    )
    if "langfuse.observation.usage_details" in attributes or "langfuse.observation.cost_details" in attributes:
        _langfuse_usage(found, attributes)
    if found.error_type is None and events:
        found.error_type = next(
            (_text(event["attributes"], ("exception.type",)) for event in events if event["name"] == "exception"), None
        )
    uses = found.input_tokens is not None or found.output_tokens is not None or found.cost_usd is not None
    own = found.operation in _COUNTED or (found.operation is None and found.model is not None)
    found.counted = uses and own and not attributes.get(sc.ROLLUP) and not _vercel_outer(attributes)
    return found


def content(attributes: Mapping[str, Any], events: list[dict[str, Any]]) -> Content:
    """Input and output of a span, as messages if any convention says they are messages."""
    attributes = dict(attributes)
    return Content(_input(attributes, events), _output(attributes, events))


def preview(attributes: Mapping[str, Any], events: list[dict[str, Any]]) -> tuple[str, str]:
    """The user's newest text and the answer's text, short enough for a list."""
    attributes = dict(attributes)
    # A long history need not be converted to show its last question.
    given = _last_question(attributes) or _input(attributes, events)
    answered = _output(attributes, events)
    asked = talk.last_user_text(cast("list[Any]", given)) if isinstance(given, list) else _short_text(given)
    said = " ".join(map(talk.text_of, cast("list[Any]", answered))) if isinstance(answered, list) else ""
    return _cut(asked), _cut(said or ("" if isinstance(answered, list) else _short_text(answered)))


def _last_question(attributes: dict[str, Any]) -> list[Any] | None:
    messages = json_text(attributes.get(sc.INPUT_MESSAGES))
    if isinstance(messages, list):
        for message in reversed(cast("list[Any]", messages)):
            if isinstance(message, dict) and message.get("role") == "user":
                return talk.as_messages([message], "user")
    return None


def json_text(value: Any) -> Any:
    """What a JSON text holds; the text itself where it is none."""
    if isinstance(value, str) and value[:1] in "[{" and value:
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def _input(attributes: dict[str, Any], events: list[dict[str, Any]]) -> Any:
    if sc.INPUT_MESSAGES in attributes:
        messages = talk.as_messages(json_text(attributes[sc.INPUT_MESSAGES]), "user")
        if sc.SYSTEM_INSTRUCTIONS in attributes:
            parts = json_text(attributes[sc.SYSTEM_INSTRUCTIONS])
            source = {"role": "system", "parts": parts} if isinstance(parts, list) else parts
            messages = [*talk.as_messages(source, "system"), *messages]
        return messages
    if any(key.startswith("llm.input_messages.") for key in attributes):
        return talk.from_openinference(talk.unflatten(attributes, "llm.input_messages."), "user")
    if any(key.startswith("gen_ai.prompt.") for key in attributes):
        return talk.from_openllmetry(talk.unflatten(attributes, "gen_ai.prompt."), "user")
    if "ai.prompt.messages" in attributes:
        return talk.as_messages(json_text(attributes["ai.prompt.messages"]), "user")
    messages = _event_messages(events, asked=True)
    return messages or _first_content(attributes, _INPUT, "user")


def _output(attributes: dict[str, Any], events: list[dict[str, Any]]) -> Any:
    if sc.OUTPUT_MESSAGES in attributes:
        return talk.as_messages(json_text(attributes[sc.OUTPUT_MESSAGES]), "assistant")
    if any(key.startswith("llm.output_messages.") for key in attributes):
        return talk.from_openinference(talk.unflatten(attributes, "llm.output_messages."), "assistant")
    if any(key.startswith("gen_ai.completion.") for key in attributes):
        return talk.from_openllmetry(talk.unflatten(attributes, "gen_ai.completion."), "assistant")
    if "ai.response.text" in attributes or "ai.response.toolCalls" in attributes:
        parts: list[Any] = [{"type": "text", "text": attributes.get("ai.response.text") or ""}]
        calls = json_text(attributes.get("ai.response.toolCalls"))
        if isinstance(calls, list):
            parts += [{**call, "type": "tool-call"} for call in calls if isinstance(call, dict)]
        return talk.as_messages([{"role": "assistant", "parts": parts}], "assistant")
    messages = _event_messages(events, asked=False)
    if not messages and any(key.startswith("retrieval.documents.") for key in attributes):
        return [item.get("document", item) for item in talk.unflatten(attributes, "retrieval.documents.")]
    return messages or _first_content(attributes, _OUTPUT, "assistant")


def _first_content(attributes: Mapping[str, Any], keys: tuple[str, ...], role: str) -> Any:
    value = next((json_text(attributes[key]) for key in keys if attributes.get(key) not in (None, "")), None)
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        return talk.as_messages(value["messages"], role)
    if isinstance(value, list) and value and all(isinstance(item, dict) and "role" in item for item in value):
        return talk.as_messages(value, role)
    return value


def _event_messages(events: list[dict[str, Any]], *, asked: bool) -> list[Any]:
    """Messages of the conventions before 1.37, which put each in an event (`gen_ai.user.message`, `gen_ai.choice`)."""
    messages: list[Any] = []
    for event in events:
        name, attributes = event["name"], event["attributes"]
        if asked and name.startswith("gen_ai.") and name.endswith(".message"):
            message = {"role": name.split(".")[1], **attributes}
            messages.append({**message, "content": json_text(message.get("content"))})
        elif not asked and name == "gen_ai.choice":
            messages += talk.as_messages(json_text(attributes.get("message", attributes)), "assistant")
        elif name == ("gen_ai.content.prompt" if asked else "gen_ai.content.completion"):
            value = json_text(attributes.get("gen_ai.prompt" if asked else "gen_ai.completion"))
            messages += talk.as_messages(value, "user" if asked else "assistant")
    return messages


def _operation(attributes: Mapping[str, Any]) -> str | None:
    if operation := attributes.get(sc.OPERATION):
        return str(operation)
    if vercel := attributes.get("ai.operationId"):
        return _VERCEL.get(str(vercel).rsplit(".", 1)[-1], sc.INVOKE_AGENT)
    keys = ("openinference.span.kind", "langfuse.observation.type", "traceloop.span.kind", "llm.request.type")
    kind = next((str(attributes[key]).lower() for key in (*keys, "mlflow.spanType") if attributes.get(key)), None)
    return _KINDS.get(kind.strip('"'), kind) if kind and kind != "span" else None


def _vercel_outer(attributes: Mapping[str, Any]) -> bool:
    """True for `ai.generateText` itself, whose usage its `.doGenerate` children report too."""
    operation = attributes.get("ai.operationId")
    return operation is not None and str(operation).rsplit(".", 1)[-1] not in _VERCEL


def _langfuse_usage(found: Facts, attributes: Mapping[str, Any]) -> None:
    usage = json_text(attributes.get("langfuse.observation.usage_details"))
    if isinstance(usage, dict):
        details = cast("dict[str, Any]", usage)
        found.input_tokens = found.input_tokens or _count(details, ("input", "prompt_tokens", "input_tokens"))
        found.output_tokens = found.output_tokens or _count(details, ("output", "completion_tokens", "output_tokens"))
    cost = json_text(attributes.get("langfuse.observation.cost_details"))
    if isinstance(cost, dict) and found.cost_usd is None:
        costs = cast("dict[str, Any]", cost)
        total = _number(costs, ("total",))
        found.cost_usd = total if total is not None else sum(v for v in costs.values() if isinstance(v, int | float))


def _metadata(attributes: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in attributes.items():
        if key.startswith(_METADATA_PREFIXES):
            prefix = next(prefix for prefix in _METADATA_PREFIXES if key.startswith(prefix))
            found[key[len(prefix) :]] = value if isinstance(value, str) else talk.dump_text(value)
    found |= {key: str(attributes[key]) for key in _FOUND_BY if key in attributes}
    packed = json_text(attributes.get("metadata"))  # OpenInference: one JSON object
    if isinstance(packed, dict):
        found |= {str(key): v if isinstance(v, str) else talk.dump_text(v) for key, v in packed.items()}
    return {clean_text(key[:200]): clean_text(value[:1000]) for key, value in found.items() if key} if found else found


def _text(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        if value := attributes.get(key):
            return clean_text(str(value)[:200])
    return None


def _number(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    for key in keys:
        value = attributes.get(key)
        if value is None or isinstance(value, bool):
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if -1e15 < number < 1e15:  # neither NaN nor infinity
            return number
    return None


def _count(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    number = _number(attributes, keys)
    return int(number) if number is not None else None


def _short_text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else talk.dump_text(value)


def _cut(text: str) -> str:
    return clean_text(" ".join(text[: 2 * _TEXT_LIMIT].split())[:_TEXT_LIMIT])
