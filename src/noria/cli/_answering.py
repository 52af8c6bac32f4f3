"""Asking documents through /v1/responses: the answer as it is written, then what it rests on and where its trace is.

On a terminal the answer streams; citations come when it is complete, so the text is then written once more, with its
numbers, over itself. Elsewhere it is printed once, whole.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from noria.errors import InvalidRequest, UpstreamError

from ._api import Api
from ._command import target
from ._connection import connect, console_url, settings_of
from ._show import note, out, paragraph, print_json
from ._terminal import Rewritable
from ._values import parse_filters

_MARKS = re.compile(r"\s*(?:\[[\d,\s]+\]\s*)+")
_NUMBER = re.compile(r"(?<=[\[,\s])(\d+)(?=[\],])")

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
    quotes: tuple[str, ...]


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
            if kind in {"response.output_text.delta", "response.refusal.delta"}:
                shown.write(event["delta"])
            elif kind in {"response.completed", "response.incomplete"}:
                return event["response"], reply.trace_id
            elif kind == "response.failed":
                raise UpstreamError(str((event["response"].get("error") or {}).get("message") or "The response failed."))
    raise UpstreamError("The stream ended before the answer was complete.")


def _print_answer(response: Mapping[str, Any], shown: Rewritable) -> None:
    text, annotations = _text_of(response)
    mode = (response.get("noria") or {}).get("answer_mode")
    numbered, sources = number_citations(text, annotations)
    shown.replace(numbered)
    for line in _remarks(response, mode):
        out().print(line, style="dim")
    if sources:
        out().print()
    for source in sources:
        _print_source(source, quote=mode != "extract")


def _remarks(response: Mapping[str, Any], mode: str | None) -> Iterator[str]:
    if mode == "extract":
        yield "extractive: passages quoted verbatim; no model wrote this."
    elif mode == "absent":
        yield "absent: no passage that was found answers the question; no model was asked."
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
            elif part["type"] == "refusal":
                text += part["refusal"]
    return text, annotations


def number_citations(text: str, annotations: Iterable[Mapping[str, Any]]) -> tuple[str, list[Source]]:
    """The text with [1], [2] … where passages are cited (the model may have written them itself), and those passages.

    A number is the server's, where it gives one; else files are numbered as they are first met.
    """
    sources: dict[int, Source] = {}
    by_file: dict[Any, int] = {}
    marks: dict[int, list[int]] = {}
    for annotation in sorted(annotations, key=lambda each: each["index"]):
        passage = annotation.get("noria") or {}
        number = int(passage.get("number") or by_file.setdefault(annotation.get("file_id"), len(by_file) + 1))
        known = sources.get(number)
        quote = " ".join(str(passage.get("quote") or "").split())
        quotes = known.quotes if known else ()
        name = str(annotation.get("filename") or annotation.get("file_id") or "?")
        sources[number] = Source(number, name, where(passage), quotes if not quote or quote in quotes else (*quotes, quote))
        here = marks.setdefault(min(max(annotation["index"], 0), len(text)), [])
        if number not in here:
            here.append(number)
    return _marked(text, marks), [sources[number] for number in sorted(sources)]


def _marked(text: str, marks: Mapping[int, Sequence[int]]) -> str:
    """Puts in the numbers that are missing at the end of each cited stretch; positions are those of the given text."""
    places = sorted(marks)
    for begin, index in reversed(list(zip([0, *places], places, strict=False))):
        trailing = _MARKS.match(text, index)
        written = {int(number) for number in _NUMBER.findall(text[begin : trailing.end() if trailing else index])}
        missing = "".join(f"[{number}]" for number in marks[index] if number not in written)
        if missing:
            cited = text[:index].rstrip()
            text = f"{cited} {missing}{text[len(cited) :]}"
    return text


def where(passage: Mapping[str, Any]) -> str:
    """`page 3 · Install › From source`, as far as it is known."""
    pages = ""
    if passage.get("page"):
        last = passage.get("last_page")
        pages = f"pages {passage['page']}–{last}" if last and last != passage["page"] else f"page {passage['page']}"
    return " · ".join(part for part in (pages, " › ".join(passage.get("heading_path") or ())) if part)


def _print_source(source: Source, *, quote: bool) -> None:
    from rich.text import Text

    head = Text(f"[{source.number}] ", style="bold")
    head.append(source.filename, style="bold")
    if source.place:
        head.append(f"  {source.place}", style="dim")
    out().print(head)
    for text in source.quotes if quote else ():
        paragraph(f"“{_shortened(text)}”", indent=4)


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
