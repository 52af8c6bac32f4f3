"""One turn of the model inside a response: chat completions in, deltas out, tool calls gathered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from noria.models import Call, Observed, Reply, Resolved, call_model, chunks

from ._request import ResponseRequest

__all__ = ["Delta", "Turn", "chat_body"]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of what the model says; `refusal`: of its saying that it will not."""

    text: str
    logprobs: tuple[dict[str, Any], ...] = ()
    refusal: bool = False


class Turn:
    """The model's answer under way. Read `deltas` to the end; then it holds what the model decided. Close it in any case."""

    def __init__(self, reply: Reply, observed: Observed) -> None:
        self.observed, self.model = observed, reply.card.id
        self.finish_reason: str | None = None
        self.calls: dict[int, dict[str, str]] = {}
        self._reply = reply
        self._chunks = chunks(reply.pieces)
        self._first: dict[str, Any] | None = None

    @classmethod
    async def opened(cls, resolved: Resolved, call: Call) -> Turn:
        """Asks, and waits until the model has begun: what fails before that is raised here, with a status of its own."""
        turn = cls(*await call_model(resolved, call))
        try:
            turn._first = await anext(turn._chunks, None)
        except BaseException:
            await asyncio.shield(turn.aclose())
            raise
        return turn

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        try:
            chunk = self._first
            while chunk is not None:
                for choice in chunk.get("choices") or ():
                    delta = choice.get("delta") or {}
                    self._gather(delta.get("tool_calls") or ())
                    self.finish_reason = choice.get("finish_reason") or self.finish_reason
                    if text := delta.get("content"):
                        yield Delta(text, _logprobs(choice.get("logprobs")))
                    if text := delta.get("refusal"):
                        yield Delta(text, refusal=True)
                chunk = await anext(self._chunks, None)
            async for _ in self._reply.pieces:  # the end of the stream, so that usage is complete
                pass
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        await self._reply.close()

    @property
    def incomplete(self) -> Literal["max_output_tokens", "content_filter"] | None:
        """Why the answer is not whole, in the words of responses."""
        if self.finish_reason == "length":
            return "max_output_tokens"
        return "content_filter" if self.finish_reason == "content_filter" else None

    def is_cut(self, index: int) -> bool:
        """Whether the call is the one that the limit of tokens fell into."""
        if self.finish_reason != "length" or index != max(self.calls):
            return False
        try:
            orjson.loads(self.calls[index]["arguments"])
        except orjson.JSONDecodeError:
            return True
        return False

    def _gather(self, parts: Any) -> None:
        for place, part in enumerate(parts):
            index = part.get("index")
            call = self.calls.setdefault(place if index is None else index, {"id": "", "name": "", "arguments": ""})
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
