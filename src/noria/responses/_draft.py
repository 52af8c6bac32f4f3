"""A response while it is being made: its object, its output items, and the events that tell of each step.

Every change goes through here, so that the events and the final object cannot disagree. Event names and order:
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry import trace

from noria.errors import NoriaError
from noria.models import Usage
from noria.store import new_id

from ._request import ResponseRequest

__all__ = ["Draft", "Event", "TextDraft"]

Event = dict[str, Any]


class Draft:
    """Methods that change the response yield its events, numbered in order."""

    def __init__(self, request: ResponseRequest, model: str) -> None:
        span = trace.get_current_span().get_span_context()
        self.id = new_id("resp_", tail=span.span_id if span.is_valid else None)  # by which feedback finds the trace
        self._sequence = 0
        self.output: list[dict[str, Any]] = []
        self.usage = Usage()
        self.body = _blank(self.id, request, model)

    def event(self, kind: str, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event

    def snapshot(self) -> dict[str, Any]:
        return {**self.body, "output": [dict(item) for item in self.output]}

    def start(self) -> Iterator[Event]:
        yield self.event("response.created", response=self.snapshot())
        yield self.event("response.in_progress", response=self.snapshot())

    def add_usage(self, usage: Usage) -> None:
        cost = None if usage.cost_usd is None else (self.usage.cost_usd or 0.0) + usage.cost_usd
        self.usage = Usage(
            input_tokens=self.usage.input_tokens + usage.input_tokens,
            cached_tokens=self.usage.cached_tokens + usage.cached_tokens,
            output_tokens=self.usage.output_tokens + usage.output_tokens,
            cost_usd=cost,
        )

    # --- items --------------------------------------------------------------------------------------------------------

    def open_item(self, item: dict[str, Any]) -> tuple[int, Event]:
        self.output.append(item)
        index = len(self.output) - 1
        return index, self.event("response.output_item.added", output_index=index, item=dict(item))

    def close_item(self, index: int) -> Event:
        return self.event("response.output_item.done", output_index=index, item=dict(self.output[index]))

    def function_call(self, call: Mapping[str, Any]) -> Iterator[Event]:
        """A whole function call, as item, arguments and done."""
        item = {
            "type": "function_call",
            "id": new_id("fc_"),
            "call_id": call["id"],
            "name": call["name"],
            "arguments": "",
            "status": "in_progress",
        }
        index, added = self.open_item(item)
        yield added
        where = {"item_id": item["id"], "output_index": index}
        if call["arguments"]:
            yield self.event("response.function_call_arguments.delta", **where, delta=call["arguments"])
        item["arguments"] = call["arguments"]
        item["status"] = "completed"
        yield self.event("response.function_call_arguments.done", **where, name=item["name"], arguments=item["arguments"])
        yield self.close_item(index)

    # --- the end ------------------------------------------------------------------------------------------------------

    def finish(self, *, incomplete: str | None = None) -> Event:
        """Completed, or incomplete for a reason (`max_output_tokens`, `content_filter`)."""
        self.body["usage"] = _usage(self.usage)
        self.body["completed_at"] = int(time.time())
        if incomplete is not None:
            self.body["status"] = "incomplete"
            self.body["incomplete_details"] = {"reason": incomplete}
            return self.event("response.incomplete", response=self.snapshot())
        self.body["status"] = "completed"
        return self.event("response.completed", response=self.snapshot())

    def fail(self, error: NoriaError) -> Event:
        code = "rate_limit_exceeded" if error.status == 429 else "invalid_prompt" if error.status == 400 else "server_error"
        self.body["status"] = "failed"
        self.body["error"] = {"code": code, "message": str(error)}
        self.body["usage"] = _usage(self.usage)
        return self.event("response.failed", response=self.snapshot())


class TextDraft:
    """The message item being written. Opens itself with the first text, so that a pure tool call has no empty message."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._item: dict[str, Any] = {}
        self._part: dict[str, Any] = {}
        self._index = -1
        self._pieces: list[str] = []
        self._logprobs: list[dict[str, Any]] = []

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def opened(self) -> bool:
        return self._index >= 0

    def open(self) -> Iterator[Event]:
        if self.opened:
            return
        self._item = {"type": "message", "id": new_id("msg_"), "status": "in_progress", "role": "assistant", "content": []}
        self._index, added = self._draft.open_item(self._item)
        yield added
        self._part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield self._event("response.content_part.added", part=dict(self._part))
        self._item["content"] = [self._part]

    def delta(self, text: str, logprobs: Sequence[dict[str, Any]] = ()) -> Iterator[Event]:
        yield from self.open()
        self._pieces.append(text)
        self._logprobs += logprobs
        yield self._event("response.output_text.delta", delta=text, logprobs=list(logprobs))

    def annotate(self, annotation: dict[str, Any]) -> Iterator[Event]:
        number = len(self._part["annotations"])
        self._part["annotations"].append(annotation)
        yield self._event("response.output_text.annotation.added", annotation_index=number, annotation=annotation)

    def close(self, *, incomplete: bool = False) -> Iterator[Event]:
        if not self.opened:
            return
        self._part["text"] = self.text
        self._part["logprobs"] = self._logprobs
        yield self._event("response.output_text.done", text=self.text, logprobs=self._logprobs)
        yield self._event("response.content_part.done", part=dict(self._part))
        self._item["status"] = "incomplete" if incomplete else "completed"
        yield self._draft.close_item(self._index)

    def _event(self, kind: str, **fields: Any) -> Event:
        return self._draft.event(kind, item_id=self._item["id"], output_index=self._index, content_index=0, **fields)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _blank(response_id: str, request: ResponseRequest, model: str) -> dict[str, Any]:
    """The response object before anything has happened: what was asked for, OpenAI's defaults for the rest."""
    asked = request.model_dump(exclude_unset=True, by_alias=True)
    text = asked.get("text") or {}
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "model": model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt": request.prompt.model_dump() if request.prompt else None,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": request.reasoning.effort if request.reasoning else None, "summary": None},
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": request.keep,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": {"type": "text"}, "verbosity": "medium", **{k: v for k, v in text.items() if v is not None}},
        "tool_choice": asked.get("tool_choice") or "auto",
        "tools": asked.get("tools") or [],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": request.truncation or "disabled",
        "usage": None,
        "user": request.user,
        "metadata": request.metadata or {},
    }
