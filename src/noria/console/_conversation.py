"""A playground's conversation and how its answers are made. Knows nothing about the page that shows it.

An `Answer` is filled in while the model speaks; whoever shows it watches `version`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

from noria.console._api import Api
from noria.errors import NoriaError, NotFound, UpstreamError

__all__ = ["Answer", "Choices", "Citation", "Conversation", "Turn", "start"]


@dataclass(frozen=True, slots=True)
class Citation:
    """`index` is where in the answer it stands; `passage` the text it points at, where the API gave it."""

    number: int
    index: int
    file_id: str
    filename: str
    passage: str
    place: dict[str, Any]


@dataclass
class Choices:
    """What the user set at the side. None is the model's own default."""

    models: list[str] = field(default_factory=list[str])
    system: str = ""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = 512
    seed: int | None = None
    schema: dict[str, Any] | None = None
    stores: list[str] = field(default_factory=list[str])


@dataclass
class Answer:
    """One model's answer to one prompt."""

    model: str
    text: str = ""
    state: Literal["waiting", "writing", "done", "stopped", "failed"] = "waiting"
    version: int = 0
    error: NoriaError | None = None
    trace_id: str | None = None
    mode: str | None = None
    finish: str | None = None
    is_json: bool = False
    citations: list[Citation] = field(default_factory=list[Citation])
    results: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    ttft_s: float | None = None
    latency_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    task: asyncio.Task[None] | None = None
    feedback: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def running(self) -> bool:
        return self.state in {"waiting", "writing"}

    def touch(self) -> None:
        self.version += 1


@dataclass
class Turn:
    prompt: str
    answers: list[Answer]


@dataclass
class Conversation:
    """The turns of one browser tab; each model column sees its own answers only."""

    choices: Choices = field(default_factory=Choices)
    turns: list[Turn] = field(default_factory=list[Turn])

    @property
    def running(self) -> bool:
        return any(answer.running for turn in self.turns for answer in turn.answers)

    def ask(self, api: Api, prompt: str) -> Turn:
        turn = Turn(prompt, [Answer(model, is_json=self.choices.schema is not None) for model in self.choices.models])
        self.turns.append(turn)
        self._start(api, turn)
        return turn

    def again(self, api: Api) -> Turn | None:
        """Asks the last prompt anew, with the choices as they are now."""
        if not self.turns:
            return None
        return self.ask(api, self.turns.pop().prompt)

    def stop(self) -> None:
        for turn in self.turns:
            for answer in turn.answers:
                if answer.task is not None and answer.running:
                    answer.task.cancel()

    def _start(self, api: Api, turn: Turn) -> None:
        for column, answer in enumerate(turn.answers):
            body = _body(self.choices, answer.model, self._history(column, turn))
            start(api, body, answer, grounded=self.choices.stores != [])

    def _history(self, column: int, until: Turn) -> list[dict[str, str]]:
        messages: list[dict[str, str]] = []
        for turn in self.turns:
            messages.append({"role": "user", "content": turn.prompt})
            if turn is until:
                break
            given = turn.answers[min(column, len(turn.answers) - 1)].text
            if given:
                messages.append({"role": "assistant", "content": given})
            else:
                messages.pop()  # a prompt that got no answer would make two users' messages in a row
        return messages


def start(api: Api, body: dict[str, Any], answer: Answer, *, grounded: bool = False) -> None:
    """Asks, and fills the answer in while the model speaks; `grounded`: the body is one of the Responses API."""
    answer.task = asyncio.create_task(_run(api, grounded, body, answer))


def _body(choices: Choices, model: str, messages: list[dict[str, str]]) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "stream": True}
    if choices.temperature is not None:
        body["temperature"] = choices.temperature
    if choices.top_p is not None:
        body["top_p"] = choices.top_p
    schema = {"name": "answer", "schema": choices.schema}
    if choices.stores:
        body["input"] = messages
        body["tools"] = [{"type": "file_search", "vector_store_ids": list(choices.stores)}]
        body["include"] = ["file_search_call.results"]
        if choices.system:
            body["instructions"] = choices.system
        if choices.max_tokens is not None:
            body["max_output_tokens"] = choices.max_tokens
        if choices.schema is not None:
            body["text"] = {"format": {"type": "json_schema", **schema}}
        return body
    body["messages"] = [{"role": "system", "content": choices.system}, *messages] if choices.system else messages
    body["stream_options"] = {"include_usage": True}
    if choices.max_tokens is not None:
        body["max_tokens"] = choices.max_tokens
    if choices.seed is not None:
        body["seed"] = choices.seed
    if choices.schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


async def _run(api: Api, grounded: bool, body: dict[str, Any], answer: Answer) -> None:
    started = time.perf_counter()
    path = "/v1/responses" if grounded else "/v1/chat/completions"
    try:
        async with api.stream(path, body) as stream:
            answer.trace_id = stream.trace_id
            read = _read_response if grounded else _read_chat
            async for piece in read(stream.events(), answer):
                if answer.ttft_s is None:
                    answer.ttft_s = time.perf_counter() - started
                    answer.state = "writing"
                answer.text += piece
                answer.touch()
        answer.state = "done"
    except NoriaError as error:
        answer.error, answer.state = error, "failed"
    except asyncio.CancelledError:
        answer.state = "stopped"
        raise
    except Exception as error:
        answer.error, answer.state = UpstreamError(f"The answer could not be read: {error}."), "failed"
        raise
    finally:
        answer.latency_s = time.perf_counter() - started
        answer.touch()
    await _add_cost(api, answer)


async def _add_cost(api: Api, answer: Answer) -> None:
    """The price is on the trace; a key that may not read traces does without."""
    if answer.trace_id is None:
        return
    for wait_s in (0.0, 0.4, 1.5):  # its last span ends a little after the answer does
        await asyncio.sleep(wait_s)
        try:
            trace = await api.get(f"/v1/noria/traces/{answer.trace_id}")
        except NotFound:
            continue
        except NoriaError:
            return
        answer.cost_usd = trace["cost_usd"]
        answer.touch()
        return


async def _read_chat(events: AsyncIterator[dict[str, Any]], answer: Answer) -> AsyncIterator[str]:
    async for chunk in events:
        if usage := chunk.get("usage"):
            answer.input_tokens, answer.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]
        for choice in chunk.get("choices") or ():
            answer.finish = choice.get("finish_reason") or answer.finish
            if piece := choice["delta"].get("content") or choice["delta"].get("refusal"):
                yield piece


async def _read_response(events: AsyncIterator[dict[str, Any]], answer: Answer) -> AsyncIterator[str]:
    async for event in events:
        kind = event.get("type")
        if kind in {"response.output_text.delta", "response.refusal.delta"}:
            yield event["delta"]
        elif kind == "response.output_item.done" and event["item"].get("type") == "file_search_call":
            answer.results = event["item"].get("results") or []
            answer.touch()
        elif kind in {"response.completed", "response.incomplete"}:
            _finish_response(event["response"], answer)
        elif kind == "response.failed":
            error = event["response"].get("error") or {}
            raise UpstreamError(error.get("message") or "The response failed.", code=error.get("code"))


def _finish_response(response: dict[str, Any], answer: Answer) -> None:
    if usage := response.get("usage"):
        answer.input_tokens, answer.output_tokens = usage["input_tokens"], usage["output_tokens"]
    answer.mode = (response.get("noria") or {}).get("answer_mode")
    answer.finish = "length" if response.get("incomplete_details") else "stop"
    annotations = [
        annotation
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
        for annotation in part.get("annotations") or ()
        if annotation.get("type") == "file_citation"
    ]
    answer.citations = _cite(annotations, answer.results)


def _cite(annotations: list[dict[str, Any]], results: list[dict[str, Any]]) -> list[Citation]:
    """Numbers the passages in the order in which they are cited; one cited twice keeps its number."""
    numbers: dict[Any, int] = {}
    found: list[Citation] = []
    for annotation in annotations:
        place: dict[str, Any] = annotation.get("noria") or {}
        passage = _passage(annotation, place, results)
        key = place.get("passage_id") or (annotation["file_id"], passage)
        number = place.get("number") or numbers.setdefault(key, len(numbers) + 1)
        found.append(
            Citation(number, int(annotation.get("index") or 0), annotation["file_id"], annotation["filename"], passage, place)
        )
    return found


def _passage(annotation: dict[str, Any], place: dict[str, Any], results: list[dict[str, Any]]) -> str:
    """The text behind a citation: of the same passage if it is named, else the best of the same file."""
    same_file = [result for result in results if result.get("file_id") == annotation["file_id"]]
    quote = str(place.get("quote") or "")
    for result in [r for r in same_file if quote and quote in r["text"]] or same_file:
        return str(result.get("text") or "")
    return quote
