"""What was asked and what was answered, read back from a trace: the call of the model that truly answered.

Used by feedback (whose answer was it?) and by datasets (what was in and out?). Knows nothing about either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from sqlalchemy import select

from noria.store import Completion, Database, Feedback
from noria.tracing import SpanNode, TraceStore, semconv

__all__ = ["Answer", "Judged", "answer_in", "answer_of_completion", "read_judged"]

_ANSWERING = {semconv.CHAT, semconv.TEXT_COMPLETION, "generate_content", "response", "responses"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer with what led to it. `output` is None where nothing was captured or the call failed; `route` is the name that
    was asked, where that was not the model's own."""

    model: str | None
    span_id: str | None
    messages: list[dict[str, Any]]
    output: dict[str, Any] | None
    tools: list[Any] | None = None
    metadata: Mapping[str, Any] | None = None
    route: str | None = None


def answer_in(spans: Sequence[SpanNode], within: str | None = None) -> Answer | None:
    """The last model call of a trace, or of one span and those below it; None where no model was asked."""
    inside = spans if within is None else _below(spans, within)
    calls = [span for span in inside if span.operation in _ANSWERING]
    if not calls:
        return None
    own = [span for span in calls if span.status != "error" and semconv.ROLLUP not in span.attributes]
    span = max(own or calls, key=lambda each: each.start_ns)
    tools: Any = span.attributes.get(semconv.TOOL_DEFINITIONS)
    return Answer(
        model=_text(span.attributes.get(semconv.RESPONSE_MODEL)) or span.model,
        span_id=span.span_id,
        messages=_messages(span.input),
        output=_assistant(span.output) if span.status != "error" else None,
        tools=_tools(tools),
        metadata=_metadata(spans),
        route=_text(span.attributes.get(semconv.ROUTE)),
    )


def answer_of_completion(row: Completion) -> Answer:
    """A stored completion's first choice."""
    choices: list[Any] = row.response.get("choices") or []
    asked = row.request.get("model")
    return Answer(
        model=row.model,
        span_id=None,
        messages=_messages(row.request.get("messages")),
        output=_assistant([choices[0].get("message")]) if choices else None,
        tools=row.request.get("tools"),
        metadata=row.meta,
        route=_text(asked) if asked != row.model else None,
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """What is there of the answers that some feedback is about."""

    completions: Mapping[str, Completion]
    spans: Mapping[str, Sequence[SpanNode]]

    def completion(self, said: Feedback) -> Completion | None:
        """The stored completion that was named, if one was and it is still there."""
        return self.completions.get(said.target_id)

    def answer(self, said: Feedback) -> Answer | Literal["trace_gone", "no_model_call"]:
        """The answer, or why there is none."""
        if (completion := self.completion(said)) is not None:
            return answer_of_completion(completion)
        if (inside := self.spans.get(said.trace_id or "")) is None:
            return "trace_gone"
        return answer_in(inside, said.span_id if said.target_kind == "span" else None) or "no_model_call"


async def read_judged(database: Database, traces: TraceStore, project_id: str, said: Sequence[Feedback]) -> Judged:
    """Reads what `said` is about; a few hundred at a time."""
    ids = {row.target_id for row in said if row.target_kind == "completion"}
    async with database.read() as session:
        found = {row.id: row for row in await session.scalars(select(Completion).where(Completion.id.in_(ids)))}
    return Judged(found, await traces.spans_of(sorted({row.trace_id for row in said if row.trace_id}), project=project_id))


def _below(spans: Sequence[SpanNode], span_id: str) -> list[SpanNode]:
    """The span and all below it. Parents may come after their children, so the list is walked until nothing is added."""
    inside, grown = {span_id}, True
    while grown:
        found = {span.span_id for span in spans if span.parent_id in inside} - inside
        inside |= found
        grown = bool(found)
    return [span for span in spans if span.span_id in inside]


def _messages(given: Any) -> list[dict[str, Any]]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list):
        return []
    return [cast("dict[str, Any]", each) for each in cast("list[Any]", given) if isinstance(each, dict) and "role" in each]


def _assistant(given: Any) -> dict[str, Any] | None:
    found = [message for message in _messages(given) if message["role"] == "assistant"]
    if not found and isinstance(given, str):
        return {"role": "assistant", "content": given}
    return found[0] if found else None


def _tools(given: Any) -> list[Any] | None:
    if isinstance(given, str):
        import orjson

        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError:
            return None
    return cast("list[Any]", given) if isinstance(given, list) and given else None


def _metadata(spans: Sequence[SpanNode]) -> dict[str, Any]:
    """The metadata that callers sent, of whichever span carries it."""
    prefix = semconv.METADATA_PREFIX
    return {key[len(prefix) :]: value for span in spans for key, value in span.attributes.items() if key.startswith(prefix)}


def _text(value: Any) -> str | None:
    return str(value) if value else None
