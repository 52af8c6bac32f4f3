"""A response while it is being made: its object, its output items, and the events that tell of each step.

Every change goes through here, so that the events and the final object cannot disagree. Event names and order:
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from opentelemetry import trace

from noria.errors import NoriaError
from noria.models import Usage
from noria.store import new_id

from ._request import ResponseRequest

__all__ = ["Draft", "Event", "MessageDraft"]

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

    # --- items --------------------------------------------------------------------------------------------------------

    def open_item(self, item: dict[str, Any]) -> tuple[int, Event]:
        self.output.append(item)
        index = len(self.output) - 1
        return index, self.event("response.output_item.added", output_index=index, item=dict(item))

    def close_item(self, index: int) -> Event:
        return self.event("response.output_item.done", output_index=index, item=dict(self.output[index]))

    def function_call(self, call: Mapping[str, Any], *, incomplete: bool = False) -> Iterator[Event]:
        """A function call as item, arguments and done. One that came without an id gets one, for its output must name it."""
        item = {
            "type": "function_call",
            "id": new_id("fc_"),
            "call_id": call["id"] or new_id("call_"),
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
        item["status"] = "incomplete" if incomplete else "completed"
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


class MessageDraft:
    """The message item being written. Opens itself with the first text, so that a pure tool call has no empty message.

    Its parts are text and refusals; one ends where the other kind begins.
    """

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._item: dict[str, Any] = {}
        self._part: dict[str, Any] = {}
        self._index = -1
        self._pieces: list[str] = []
        self._logprobs: list[dict[str, Any]] = []

    @property
    def text(self) -> str:
        """Of the part that is being written; nothing while that is a refusal."""
        return "".join(self._pieces) if self._part.get("type") == "output_text" else ""

    def open(self) -> Iterator[Event]:
        """A message with a text, be it empty."""
        if not self._item:
            yield from self._write("output_text")

    def delta(self, text: str, logprobs: Sequence[dict[str, Any]] = ()) -> Iterator[Event]:
        yield from self._write("output_text")
        self._pieces.append(text)
        self._logprobs += logprobs
        yield self._event("response.output_text.delta", delta=text, logprobs=list(logprobs))

    def refusal(self, text: str) -> Iterator[Event]:
        yield from self._write("refusal")
        self._pieces.append(text)
        yield self._event("response.refusal.delta", delta=text)

    def annotate(self, annotation: dict[str, Any]) -> Iterator[Event]:
        number = len(self._part["annotations"])
        self._part["annotations"].append(annotation)
        yield self._event("response.output_text.annotation.added", annotation_index=number, annotation=annotation)

    def close(self, *, incomplete: bool = False) -> Iterator[Event]:
        if not self._item:
            return
        yield from self._end_part()
        self._item["status"] = "incomplete" if incomplete else "completed"
        yield self._draft.close_item(self._index)

    def _write(self, kind: Literal["output_text", "refusal"]) -> Iterator[Event]:
        """The part that is written is of this kind from now on."""
        if self._part.get("type") == kind:
            return
        if not self._item:
            self._item = {"type": "message", "id": new_id("msg_"), "status": "in_progress", "role": "assistant", "content": []}
            self._index, added = self._draft.open_item(self._item)
            yield added
        yield from self._end_part()
        self._part = {"type": "refusal", "refusal": ""}
        if kind == "output_text":
            self._part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self._item["content"] = [*self._item["content"], self._part]
        yield self._event("response.content_part.added", part=dict(self._part))

    def _end_part(self) -> Iterator[Event]:
        if not self._part:
            return
        whole, logprobs = "".join(self._pieces), self._logprobs
        if self._part["type"] == "output_text":
            self._part |= {"text": whole, "logprobs": logprobs}
            yield self._event("response.output_text.done", text=whole, logprobs=logprobs)
        else:
            self._part["refusal"] = whole
            yield self._event("response.refusal.done", refusal=whole)
        yield self._event("response.content_part.done", part=dict(self._part))
        self._part, self._pieces, self._logprobs = {}, [], []

    def _event(self, kind: str, **fields: Any) -> Event:
        where = {"item_id": self._item["id"], "output_index": self._index, "content_index": len(self._item["content"]) - 1}
        return self._draft.event(kind, **where, **fields)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
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
