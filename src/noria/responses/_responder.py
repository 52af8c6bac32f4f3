"""The server-side loop of a response: history, search, model, citations, storage; as a stream of OpenAI's events.

Whoever wants the object alone reads to the last event. What fails before the model has begun to answer is raised, with a status
of its own; what fails after that, or later than the caller would wait for it, is the `response.failed` event. Searching comes
before the model is asked (small models choose tools badly); the answer is then written by the model, or quoted from the passages
where the model's card says that it cannot.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import trace

from noria.errors import ContextTooLong, InvalidRequest, NoriaError
from noria.fields import hints
from noria.knowledge import Knowledge, as_result
from noria.messages import MessageItem, text_of, to_chat_messages
from noria.models import Call, Hub, Observed, Resolved, Usage, sticky_key
from noria.prompts import PromptResolver
from noria.store import Database, new_id
from noria.tools import FileSearchTool, chat_tool, chat_tool_choice
from noria.tracing import attach_payload

from ._context import ever_shorter, with_images_of, with_instructions, with_rules
from ._draft import Draft, Event, MessageDraft
from ._grounding import Found, Grounding, Written
from ._history import ResponseStore, as_items
from ._prompts import mark_trace
from ._request import ResponseRequest
from ._turn import Turn, chat_body

__all__ = ["Responder", "Running"]

_NOTHING_YET = Written("")


@dataclass(slots=True)
class _Work:
    """What one response needs while it runs. `answer` is what a model says, or what was written without one."""

    request: ResponseRequest
    project_id: str
    resolved: Resolved
    own_items: list[Any]
    items: list[Any]
    draft: Draft
    message: MessageDraft
    sticky: str | None
    told: list[Event] = field(default_factory=list[Event])
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever there is more to tell before the model's first word, or no more will come."""
    found: Found | None = None
    answer: Turn | Written = _NOTHING_YET
    error: NoriaError | None = None

    def tell(self, *events: Event) -> None:
        self.told += events
        self.news.set()


class Running:
    """A response under way. Read `events` to the end, then close it; close it in any case."""

    def __init__(self, work: _Work, beginning: asyncio.Task[None], events: AsyncGenerator[Event, None]) -> None:
        self._work, self._beginning, self.events = work, beginning, events

    @property
    def model(self) -> str:
        """Who answers, as far as is known."""
        answer = self._work.answer
        return answer.model if isinstance(answer, Turn) else self._work.resolved.card.id

    @property
    def observed(self) -> Observed:
        """Whole when the events have ended."""
        answer = self._work.answer
        return answer.observed if isinstance(answer, Turn) else Observed(Usage())

    @property
    def error(self) -> NoriaError | None:
        """What ended it as failed."""
        return self._work.error

    async def aclose(self) -> None:
        self._beginning.cancel()
        await asyncio.gather(self._beginning, return_exceptions=True)
        try:
            await self.events.aclose()
        finally:
            if isinstance(self._work.answer, Turn):  # the events may never have been read
                await self._work.answer.aclose()


class Responder:
    def __init__(self, database: Database, hub: Hub, knowledge: Knowledge, prompts: PromptResolver, *, timeout_s: float) -> None:
        self.stored = ResponseStore(database)
        self._hub, self._knowledge, self._prompts, self._timeout_s = hub, knowledge, prompts, timeout_s
        self._grounding = Grounding(knowledge)

    async def begin(self, request: ResponseRequest, project_id: str, *, grace_s: float | None = None) -> Running:
        """Everything up to the model's first word; then the events tell it from the start. Raises NoriaError.

        What takes longer than `grace_s` the events tell while it happens, and its failure is the last of them.
        """
        work = await self._work(request, project_id)
        work.tell(*work.draft.start())
        beginning = asyncio.create_task(self._begin(work))
        beginning.add_done_callback(lambda _: work.news.set())
        running = Running(work, beginning, self._events(work, beginning))
        try:
            await asyncio.wait({beginning}, timeout=grace_s)
            if beginning.done():
                await beginning
        except BaseException:
            await asyncio.shield(running.aclose())
            raise
        return running

    async def _begin(self, work: _Work) -> None:
        tool = work.request.file_search
        if tool is not None and self._searches(work):
            await self._search(work, tool)
        else:
            work.answer = await self._ask(work, to_chat_messages(work.items))

    async def _work(self, request: ResponseRequest, project_id: str) -> _Work:
        request.check()
        request, said = await self._with_prompt(request, project_id)
        resolved = await self._hub.resolve(request.model or "", project_id)
        history, first_id = await self.stored.history(project_id, request.previous_response_id)
        own_items = await self.stored.resolve_references(project_id, as_items(request.input))
        if (tool := request.file_search) is not None:
            await self._knowledge.check(project_id, tool.vector_store_ids, tool.filters, _ranking(tool))
        draft = Draft(request, resolved.card.id)
        named = sticky_key(request.safety_identifier, request.user, request.metadata)
        sticky = named or first_id or draft.id  # a conversation is known by its first response
        items = [*said, *history, *own_items]
        return _Work(request, project_id, resolved, own_items, items, draft, MessageDraft(draft), sticky)

    async def _with_prompt(self, request: ResponseRequest, project_id: str) -> tuple[ResponseRequest, list[Any]]:
        """The request with its prompt's version (and model, if it names none), and the items that the prompt says."""
        if request.input is None and request.prompt is None:
            raise InvalidRequest("input is missing.", param="input", code="missing_required_parameter")
        said: list[Any] = []
        if request.prompt is not None:
            rendered = await self._prompts.render(project_id, request.prompt)
            mark_trace(rendered)
            prompt = request.prompt.model_copy(update={"id": rendered.prompt_id, "version": str(rendered.version)})
            request = request.model_copy(update={"prompt": prompt, "model": request.model or rendered.model})
            said = [MessageItem.model_validate(message) for message in rendered.messages]
            asked = request.model_dump(exclude_unset=True, by_alias=True)
            own = [item.model_dump(exclude_none=True) for item in as_items(request.input)]
            attach_payload(trace.get_current_span(), input={**asked, "input": [*rendered.messages, *own]})
        if request.model is None:
            raise InvalidRequest("model is missing.", param="model", code="missing_required_parameter")
        return request, said

    async def _events(self, work: _Work, beginning: asyncio.Task[None]) -> AsyncGenerator[Event, None]:
        async for event in _beginnings(work, beginning):
            yield event
        try:
            await beginning
            if isinstance(work.answer, Turn):
                async for event in self._say(work, work.answer):
                    yield event
                last = work.draft.finish(incomplete=work.answer.incomplete)
            else:
                for event in _write(work.message, work.answer):
                    yield event
                last = work.draft.finish()
        except NoriaError as error:
            trace.get_current_span().set_attribute("error.type", error.code or type(error).__name__)
            work.error, last = error, work.draft.fail(error)
        request = work.request
        if request.keep and (work.error is None or request.stream):  # else the caller is told of the error and of no response
            await self.stored.save(work.project_id, work.draft.id, request.previous_response_id, work.own_items, last["response"])
        yield last

    # --- answering from documents -------------------------------------------------------------------------------------

    @staticmethod
    def _searches(work: _Work) -> bool:
        """Only for a question that has words in it."""
        last = work.items[-1] if work.items else None
        if work.request.tool_choice == "none" or work.request.chooses("function"):
            return False
        return isinstance(last, MessageItem) and last.role == "user" and bool(text_of(last.content).strip())

    async def _search(self, work: _Work, tool: FileSearchTool) -> None:
        """Searches, tells of it, and decides on the answer."""
        request, draft = work.request, work.draft
        asked = to_chat_messages(work.items[-1:])[0]
        wanted = request.noria.answer if request.noria else "auto"
        must_ask = request.needs_a_model or isinstance(asked["content"], list)
        if must_ask and wanted == "extract":
            raise InvalidRequest(
                "noria.answer is 'extract', which asks no model; functions, text.format and images need one.",
                param="noria.answer",
            )
        item: dict[str, Any] = {
            "type": "file_search_call",
            "id": new_id("fs_"),
            "status": "in_progress",
            "queries": [text_of(work.items[-1].content)],
            "results": None,
        }
        index, added = draft.open_item(item)
        where = {"item_id": item["id"], "output_index": index}
        work.tell(added, draft.event("response.file_search_call.in_progress", **where))
        work.tell(draft.event("response.file_search_call.searching", **where))
        found = await self._grounding.search(work.project_id, tool, item["queries"][0])
        item["status"] = "completed"
        if request.includes("file_search_call.results"):
            item["results"] = [as_result(hit) for hit in found.hits]
        work.tell(draft.event("response.file_search_call.completed", **where), draft.close_item(index))

        card = work.resolved.card
        mode = "generate" if must_ask else await self._grounding.mode(found, card, wanted)
        draft.body["noria"] = {"answer_mode": mode}
        trace.get_current_span().set_attribute("noria.answer_mode", mode)
        if mode != "generate":
            work.answer = self._grounding.written(found, mode)
            return
        work.found = found
        system, user = self._grounding.prompt(found, card, has_functions=bool(request.functions))
        messages = with_rules(to_chat_messages(work.items[:-1]), system)
        work.answer = await self._ask(work, [*messages, with_images_of(asked, user)])

    # --- the model ----------------------------------------------------------------------------------------------------

    async def _ask(self, work: _Work, messages: list[dict[str, Any]]) -> Turn:
        """The model, when it has begun to answer; with `truncation: auto` asked again without the oldest messages."""
        request, card = work.request, work.resolved.card
        if request.instructions:
            messages = with_instructions(request.instructions, messages)
        tools = [chat_tool(tool) for tool in request.functions]
        choice = chat_tool_choice(request.tool_choice)
        if isinstance(choice, str) and not tools:
            choice = None
        room = None if card.context_tokens is None else card.context_tokens - (request.max_output_tokens or 0)
        tried = ever_shorter(messages, room) if request.truncation == "auto" else iter([messages])
        refused: ContextTooLong | None = None
        for fewer in tried:
            body = chat_body(request, fewer, tools, choice)
            call = Call(
                "chat", body, hints=hints(request), timeout_s=self._timeout_s, sticky=work.sticky, project_id=work.project_id
            )
            try:
                return await Turn.opened(work.resolved, call)
            except ContextTooLong as error:
                refused = error
        assert refused is not None
        raise refused

    async def _say(self, work: _Work, turn: Turn) -> AsyncGenerator[Event, None]:
        draft, message = work.draft, work.message
        try:
            async for delta in turn.deltas():
                for event in message.refusal(delta.text) if delta.refusal else message.delta(delta.text, delta.logprobs):
                    yield event
        finally:
            draft.usage = turn.observed.usage
        if not turn.calls:
            for event in message.open():
                yield event
        if work.found is not None and message.text:
            for annotation in self._grounding.citations(work.found, message.text):
                for event in message.annotate(annotation):
                    yield event
        for event in message.close(incomplete=turn.incomplete is not None and not turn.calls):
            yield event
        for index in sorted(turn.calls):
            for event in draft.function_call(turn.calls[index], incomplete=turn.is_cut(index)):
                yield event


async def _beginnings(work: _Work, beginning: asyncio.Task[None]) -> AsyncGenerator[Event, None]:
    """What is told before the model's first word, as it comes."""
    given = 0
    while True:
        done = beginning.done()
        work.news.clear()
        while given < len(work.told):
            yield work.told[given]
            given += 1
        if done:
            return
        await work.news.wait()


def _write(message: MessageDraft, written: Written) -> Iterator[Event]:
    yield from message.delta(written.text)
    for annotation in written.annotations:
        yield from message.annotate(annotation)
    yield from message.close()


def _ranking(tool: FileSearchTool) -> dict[str, Any] | None:
    return tool.ranking_options.model_dump(exclude_none=True) if tool.ranking_options else None
