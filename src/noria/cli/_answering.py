"""Asking documents through /v1/responses: the answer as it is written, then what it rests on and where its trace is.

On a terminal the answer streams; citations come when it is complete, so the text is then written once more, with its
numbers, over itself. Elsewhere it is printed once, whole.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from noria.errors import InvalidRequest, UpstreamError

from ._api import Api
from ._command import target
from ._connection import connect, console_url, settings_of
from ._show import note, out, print_json
from ._terminal import Rewritable
from ._values import parse_filters

__all__ = ["Question", "Source", "number_citations", "run_ask", "where"]


@dataclass(frozen=True, slots=True)
class Question:
    """What the command line says."""

    text: str
    stores: tuple[str, ...]
    model: str | None = None
    answer: str = "auto"
    k: int = 8
    filters: tuple[str, ...] = ()
    max_tokens: int | None = None

    def body(self, model: str) -> dict[str, Any]:
        tool: dict[str, Any] = {"type": "file_search", "vector_store_ids": list(self.stores), "max_num_results": self.k}
        if (filters := parse_filters(self.filters)) is not None:
            tool["filters"] = filters
        body: dict[str, Any] = {
            "model": model,
            "input": self.text,
            "tools": [tool],
            "include": ["file_search_call.results"],
            "noria": {"answer": self.answer},
            "store": False,
            "stream": True,
        }
        return body if self.max_tokens is None else {**body, "max_output_tokens": self.max_tokens}


@dataclass(frozen=True, slots=True)
class Source:
    """A passage that an answer rests on."""

    number: int
    filename: str
    place: str
    text: str


def run_ask(question: Question) -> None:
    """The command."""
    if question.text == "-":
        question = replace(question, text=sys.stdin.read())
    if not question.text.strip():
        raise InvalidRequest("The question is empty.")
    with connect() as api:
        model = question.model or api.get("/v1/noria/status")["chat_model"]
        shown = Rewritable(sys.stdout, live=sys.stdout.isatty() and not target().json)
        response, trace_id = _stream(api, question.body(model), shown)
        if target().json:
            print_json({**response, "noria": {**(response.get("noria") or {}), "trace_id": trace_id}})
        else:
            _print_answer(response, shown)
            if trace_id:
                note(_trace_line(api, trace_id))


def _stream(api: Api, body: dict[str, Any], shown: Rewritable) -> tuple[dict[str, Any], str | None]:
    """The final response object, the text having been shown as it came."""
    with api.stream("/v1/responses", body) as reply:
        for event in reply.events:
            kind = event["type"]
            if kind == "response.output_text.delta":
                shown.write(event["delta"])
            elif kind in {"response.completed", "response.incomplete"}:
                return event["response"], reply.trace_id
            elif kind == "response.failed":
                raise UpstreamError(str((event["response"].get("error") or {}).get("message") or "The response failed."))
            elif kind == "error":
                raise UpstreamError(str(event.get("message") or event))
    raise UpstreamError("The stream ended before the answer was complete.")


def _print_answer(response: Mapping[str, Any], shown: Rewritable) -> None:
    text, annotations = _text_of(response)
    results = [row for item in response["output"] if item["type"] == "file_search_call" for row in item.get("results") or ()]
    mode = (response.get("noria") or {}).get("answer_mode")
    numbered, sources = number_citations(text, annotations, results)
    shown.replace(numbered)
    for line in _remarks(response, mode):
        out().print(line, style="dim")
    for source in sources:
        _print_source(source, quote=mode != "extract")


def _remarks(response: Mapping[str, Any], mode: str | None) -> Iterator[str]:
    if mode == "extract":
        yield "extractive: passages quoted verbatim; no model wrote this."
    elif mode == "absent":
        yield "not in the documents: nothing that was found answers the question."
    if response["status"] == "incomplete":
        reason = (response.get("incomplete_details") or {}).get("reason") or "unknown"
        yield f"incomplete: the answer was cut off ({reason})."


def _text_of(response: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    text, annotations = "", list[dict[str, Any]]()
    for item in response["output"]:
        for part in item.get("content") or () if item["type"] == "message" else ():
            if part["type"] == "output_text":
                annotations += [{**each, "index": len(text) + int(each.get("index") or 0)} for each in part["annotations"]]
                text += part["text"]
    return text, annotations


def number_citations(
    text: str, annotations: Iterable[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]
) -> tuple[str, list[Source]]:
    """The text with [1], [2] … where passages are cited, and those passages, numbered as they are first met."""
    numbers: dict[Any, Source] = {}
    marks: dict[int, list[int]] = {}
    for annotation in sorted(annotations, key=lambda each: each["index"]):
        passage = _passage(annotation, results)
        key = (annotation.get("file_id"), passage.get("passage_id") or passage.get("text"))
        if key not in numbers:
            name = str(annotation.get("filename") or passage.get("filename") or annotation.get("file_id") or "?")
            numbers[key] = Source(len(numbers) + 1, name, where(passage), str(passage.get("text") or ""))
        here = marks.setdefault(min(max(annotation["index"], 0), len(text)), [])
        if numbers[key].number not in here:
            here.append(numbers[key].number)
    for index in sorted(marks, reverse=True):
        # After the sentence's text, before the white space that follows it.
        cited = text[:index].rstrip()
        signs = "".join(f"[{number}]" for number in marks[index])
        if not text[index:].startswith(signs) and not cited.endswith(signs):
            text = f"{cited} {signs}{text[len(cited) :]}"
    return text, list(numbers.values())


def _passage(annotation: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is known of the passage behind an annotation: its own words of it, over the search result that it came from."""
    own = annotation.get("noria") or {}
    same_file = [row for row in results if row.get("file_id") == annotation.get("file_id")]
    found = next((row for row in same_file if _same(own, row.get("noria") or {})), same_file[0] if same_file else {})
    return {**found, **(found.get("noria") or {}), **own}


def _same(own: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return own.get("passage_id") is not None and own.get("passage_id") == row.get("passage_id")


def where(passage: Mapping[str, Any]) -> str:
    """`page 3 · Install › From source`, as far as it is known."""
    pages = ""
    if passage.get("page"):
        last = passage.get("last_page")
        pages = f"pages {passage['page']}–{last}" if last and last != passage["page"] else f"page {passage['page']}"
    return " · ".join(part for part in (pages, " › ".join(passage.get("heading_path") or ())) if part)


def _print_source(source: Source, *, quote: bool) -> None:
    from rich.padding import Padding
    from rich.text import Text

    head = Text(f"[{source.number}] ", style="bold")
    head.append(source.filename, style="bold")
    if source.place:
        head.append(f"  {source.place}", style="dim")
    out().print(head)
    if quote and source.text:
        out().print(Padding(Text(_shortened(source.text)), (0, 0, 0, 4)))


def _shortened(text: str, limit: int = 320) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _trace_line(api: Api, trace_id: str) -> str:
    console = None if target().url else console_url(settings_of().settings.home)
    if console:
        return f"Trace: {console}/traces/{trace_id}"
    if api.lasting:
        return f"Trace: {api.url}/v1/noria/traces/{trace_id}"
    return f"Trace: noria traces show {trace_id}"
