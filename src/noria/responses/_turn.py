"""One turn of the model inside a response: chat completions in, deltas out, tool calls gathered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from noria.models import Call, Resolved, Usage, call_model, chunks

from ._request import ResponseRequest

__all__ = ["Delta", "Turn", "chat_body"]


@dataclass(frozen=True, slots=True)
class Delta:
    text: str
    logprobs: tuple[dict[str, Any], ...] = ()


@dataclass(slots=True)
class Turn:
    """Run it with `async for delta in turn.run(…)`; afterwards it holds what the model decided."""

    finish_reason: str | None = None
    calls: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])
    usage: Usage = field(default_factory=Usage)

    async def run(self, resolved: Resolved, call: Call) -> AsyncIterator[Delta]:
        reply, observed = await call_model(resolved, call)
        try:
            async for chunk in chunks(reply.pieces):
                for choice in chunk.get("choices") or ():
                    delta = choice.get("delta") or {}
                    self._gather(delta.get("tool_calls") or ())
                    self.finish_reason = choice.get("finish_reason") or self.finish_reason
                    if text := delta.get("content") or delta.get("refusal"):
                        yield Delta(text, _logprobs(choice.get("logprobs")))
            async for _ in reply.pieces:  # the end of the stream, so that usage is complete
                pass
        finally:
            await reply.close()
            self.usage = observed.usage

    def _gather(self, parts: Any) -> None:
        for place, part in enumerate(parts):
            call = self.calls.setdefault(part.get("index", place), {"id": "", "name": "", "arguments": ""})
            function: Mapping[str, Any] = part.get("function") or {}
            call["id"] = part.get("id") or call["id"]
            call["name"] += function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""


def _logprobs(given: Any) -> tuple[dict[str, Any], ...]:
    if not given or not given.get("content"):
        return ()
    return tuple(
        {
            "token": entry["token"],
            "logprob": entry["logprob"],
            "bytes": entry.get("bytes"),
            "top_logprobs": entry.get("top_logprobs") or [],
        }
        for entry in given["content"]
    )


def chat_body(
    request: ResponseRequest, messages: list[dict[str, Any]], tools: list[dict[str, Any]], tool_choice: Any
) -> dict[str, Any]:
    """A chat completions body for this request; only what was asked for is in it."""
    body: dict[str, Any] = {"model": request.model, "messages": messages, "stream": True}
    if tools:
        body["tools"] = tools
        if tool_choice is not None:
            body["tool_choice"] = tool_choice
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls
    for name in ("temperature", "top_p"):
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if request.max_output_tokens is not None:
        body["max_completion_tokens"] = request.max_output_tokens
    if request.includes("message.output_text.logprobs") or request.top_logprobs:
        body["logprobs"] = True
        body["top_logprobs"] = request.top_logprobs or 0
    if request.reasoning is not None and request.reasoning.effort is not None:
        body["reasoning_effort"] = request.reasoning.effort
    if request.text is not None:
        if request.text.verbosity is not None:
            body["verbosity"] = request.text.verbosity
        if (text_format := request.text.format) is not None and text_format.type != "text":
            body["response_format"] = _response_format(text_format.model_dump(by_alias=True, exclude_none=True))
    return body


def _response_format(given: dict[str, Any]) -> dict[str, Any]:
    """`text.format` is flat where chat completions nest it under `json_schema`."""
    kind = given.pop("type")
    return {"type": kind, "json_schema": given} if kind == "json_schema" else {"type": kind}
