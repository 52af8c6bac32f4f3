"""The server-side loop of a response: history, search, model, citations, storage; as a stream of OpenAI's events.

Whoever wants the object alone reads to the last event. A failure before anything was sent raises; after that it is the
`response.failed` event. Searching comes before the model is asked (small models choose tools badly); the answer is then
written by the model, or quoted from the passages where the model's card says that it cannot.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace

from noria.errors import ContextTooLong, InvalidRequest, NoriaError
from noria.knowledge import Knowledge, as_result
from noria.messages import MessageItem, text_of, to_chat_messages
from noria.models import Call, Hub, Resolved, sticky_key
from noria.prompts import PromptResolver
from noria.store import Database, new_id
from noria.tools import NamedToolChoice, chat_tool, chat_tool_choice
from noria.tracing import attach_payload

from ._draft import Draft, Event, TextDraft
from ._grounding import Found, Grounding
from ._history import ResponseStore, as_items
from ._prompts import mark_trace
from ._request import ResponseRequest
from ._turn import Turn, chat_body

__all__ = ["Responder"]


@dataclass(slots=True)
class _Work:
    """What one response needs while it runs."""

    request: ResponseRequest
    project_id: str
    resolved: Resolved
    own_items: list[Any]
    items: list[Any]
    draft: Draft
    text: TextDraft
    sticky: str | None


class Responder:
    def __init__(self, database: Database, hub: Hub, knowledge: Knowledge, prompts: PromptResolver, *, timeout_s: float) -> None:
        self.stored = ResponseStore(database)
        self._hub, self._knowledge, self._prompts, self._timeout_s = hub, knowledge, prompts, timeout_s
        self._grounding = Grounding(knowledge)

    async def prepare(self, request: ResponseRequest, project_id: str) -> AsyncGenerator[Event, None]:
        """Everything that can fail with a status of its own, then the events. Raises NoriaError."""
        request, said = await self._with_prompt(request, project_id)
        resolved = await self._hub.resolve(request.model or "", project_id)
        history, first_id = await self.stored.history(project_id, request.previous_response_id)
        own_items = await self.stored.resolve_references(project_id, as_items(request.input))
        if request.file_search is not None:
            await self._knowledge.check(project_id, request.file_search.vector_store_ids, request.file_search.filters)
        draft = Draft(request, resolved.card.id)
        named = sticky_key(request.safety_identifier, request.user, request.metadata)
        sticky = named or first_id or draft.id  # a conversation is known by its first response
        work = _Work(request, project_id, resolved, own_items, [*said, *history, *own_items], draft, TextDraft(draft), sticky)
        events = self._run(work)
        first = await anext(events)  # creates the response; the model is asked only after it

        async def all_events() -> AsyncGenerator[Event, None]:
            try:
                yield first
                async for event in events:
                    yield event
            finally:
                await events.aclose()

        return all_events()

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

    async def _run(self, work: _Work) -> AsyncGenerator[Event, None]:
        draft = work.draft
        for event in draft.start():
            yield event
        try:
            steps = self._grounded(work) if self._searches(work) else self._generate(work, to_chat_messages(work.items))
            incomplete: str | None = None
            async for event in steps:
                incomplete = event.pop("_incomplete", incomplete)
                if "type" in event:
                    yield event
            last = draft.finish(incomplete=incomplete)
        except NoriaError as error:
            trace.get_current_span().set_attribute("error.type", error.code or type(error).__name__)
            last = draft.fail(error)
        if work.request.keep:
            await self.stored.save(work.project_id, draft.id, work.request.previous_response_id, work.own_items, last["response"])
        yield last

    @staticmethod
    def _searches(work: _Work) -> bool:
        request, last = work.request, work.items[-1] if work.items else None
        if request.file_search is None or request.tool_choice == "none":
            return False
        if isinstance(request.tool_choice, NamedToolChoice) and request.tool_choice.type == "function":
            return False
        return isinstance(last, MessageItem) and last.role == "user"

    # --- answering from documents -------------------------------------------------------------------------------------

    async def _grounded(self, work: _Work) -> AsyncIterator[Event]:
        tool = work.request.file_search
        assert tool is not None
        draft, question = work.draft, text_of(work.items[-1].content)
        item: dict[str, Any] = {
            "type": "file_search_call",
            "id": new_id("fs_"),
            "status": "in_progress",
            "queries": [question],
            "results": None,
        }
        index, added = draft.open_item(item)
        yield added
        where = {"item_id": item["id"], "output_index": index}
        yield draft.event("response.file_search_call.in_progress", **where)
        item["status"] = "searching"
        yield draft.event("response.file_search_call.searching", **where)
        found = await self._grounding.search(work.project_id, tool, question)
        item["status"] = "completed"
        if work.request.includes("file_search_call.results"):
            item["results"] = [as_result(hit) for hit in found.hits]
        yield draft.event("response.file_search_call.completed", **where)
        yield draft.close_item(index)

        options = work.request.noria
        mode = await self._grounding.mode(found, work.resolved.card, options.answer if options else "auto")
        draft.body["noria"] = {"answer_mode": mode}
        trace.get_current_span().set_attribute("noria.answer_mode", mode)
        if mode == "generate":
            system, user = self._grounding.prompt(found, work.resolved.card)
            messages = [*_with_rules(to_chat_messages(work.items[:-1]), system), user]
            async for event in self._generate(work, messages, cite=found):
                yield event
            return
        written = self._grounding.written(found, mode)
        for event in work.text.delta(written.text):
            yield event
        for annotation in written.annotations:
            for event in work.text.annotate(annotation):
                yield event
        for event in work.text.close():
            yield event

    # --- the model ----------------------------------------------------------------------------------------------------

    async def _generate(self, work: _Work, messages: list[dict[str, Any]], *, cite: Found | None = None) -> AsyncIterator[Event]:
        request, draft, text = work.request, work.draft, work.text
        if request.instructions:
            messages = _with_instructions(request.instructions, messages)
        tools = [chat_tool(tool) for tool in request.functions]
        turn = Turn()
        async for delta in self._ask(work, turn, messages, tools):
            for event in text.delta(delta.text, delta.logprobs):
                yield event
        draft.add_usage(turn.usage)
        cut = turn.finish_reason == "length"
        if not turn.calls:
            for event in text.open():
                yield event
        if cite is not None and text.opened:
            for annotation in self._grounding.citations(cite, text.text):
                for event in text.annotate(annotation):
                    yield event
        for event in text.close(incomplete=cut):
            yield event
        for index in sorted(turn.calls):
            for event in draft.function_call(turn.calls[index]):
                yield event
        if cut:
            yield {"_incomplete": "max_output_tokens"}
        elif turn.finish_reason == "content_filter":
            yield {"_incomplete": "content_filter"}

    async def _ask(
        self, work: _Work, turn: Turn, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
    ) -> AsyncIterator[Any]:
        """The model's deltas; with `truncation: auto` the oldest messages are dropped until the rest fits."""
        choice = chat_tool_choice(work.request.tool_choice)
        if isinstance(choice, str) and not tools:
            choice = None
        while True:
            body = chat_body(work.request, messages, tools, choice)
            call = Call("chat", body, timeout_s=self._timeout_s, sticky=work.sticky, project_id=work.project_id)
            try:
                async for delta in turn.run(work.resolved, call):
                    yield delta
            except ContextTooLong:
                shorter = _without_oldest(messages)
                if work.request.truncation != "auto" or len(shorter) == len(messages):
                    raise
                messages = shorter
            else:
                return


def _with_instructions(instructions: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The caller's instructions first; templates of small models know one system message only, so they are put together."""
    if messages and messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{instructions}\n\n{messages[0]['content']}"}, *messages[1:]]
    return [{"role": "system", "content": instructions}, *messages]


def _with_rules(messages: list[dict[str, Any]], rules: dict[str, Any]) -> list[dict[str, Any]]:
    """The rules of answering from passages, after what a first system message says (again as one)."""
    if messages and messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{messages[0]['content']}\n\n{rules['content']}"}, *messages[1:]]
    return [rules, *messages]


def _without_oldest(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the first message that is not the system's and not the last; with a call go its outputs."""
    start = 1 if messages and messages[0]["role"] in {"system", "developer"} else 0
    end = start + 1
    while end < len(messages) - 1 and messages[end]["role"] == "tool":
        end += 1
    return messages if end >= len(messages) else messages[:start] + messages[end:]
