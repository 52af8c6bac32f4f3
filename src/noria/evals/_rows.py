"""One row of a run, from its source to its outcome: ask the target, grade what it said, keep both.

Whatever goes wrong with a row is part of its outcome, a database that is away apart: that is waited for, and the row asked
again. Each row has a trace of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode

from noria.errors import DatabaseUnavailable, InvalidRequest, NoriaError
from noria.prompts import PromptReference, PromptResolver
from noria.store import new_id
from noria.tracing import semconv

from ._item_schema import ItemSchema
from ._messages import as_messages, fill_messages
from ._sources import SourceRow
from ._specs import JsonlRun, RunSpec, TemplateInput
from ._target import Answer, AskModel, error_of
from ._templates import MissingVariable, fill, look_up
from .graders import GradeFailed, Grader, Row, Tools

__all__ = ["RowRunner", "RunTerms"]

_log = logging.getLogger("noria.evals")
_tracer = trace.get_tracer("noria.evals")


@dataclass(frozen=True, slots=True)
class RunTerms:
    """What all rows of a run share. `schema` is what each item must be, None where anything goes."""

    run_id: str
    project_id: str
    spec: RunSpec
    graders: Sequence[Grader]
    schema: Mapping[str, Any] | None = None
    prompt: Mapping[str, Any] | None = None


@dataclass(slots=True)
class RowRunner:
    terms: RunTerms
    tools: Tools
    ask: AskModel
    prompts: PromptResolver | None = None
    _schema: ItemSchema | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.terms.schema:
            self._schema = ItemSchema(self.terms.schema)

    async def run(self, row: SourceRow) -> dict[str, Any]:
        """The row's outcome, as a record of the table of items."""
        attributes = {
            semconv.PROJECT: self.terms.project_id,
            semconv.METADATA_PREFIX + "eval_run": self.terms.run_id,
            "noria.eval.position": row.position,
        }
        with _tracer.start_as_current_span(f"eval row {row.position}", context=Context(), attributes=attributes) as span:
            context = span.get_span_context()
            outcome = await self._outcome(row)
            if outcome["status"] == "error":
                span.set_status(Status(StatusCode.ERROR))
        return {
            "id": new_id("outputitem_"),
            "project_id": self.terms.project_id,
            "run_id": self.terms.run_id,
            "position": row.position,
            "row_id": row.row_id[:64],
            "datasource_item": row.item,
            "trace_id": f"{context.trace_id:032x}" if context.is_valid else None,
            **outcome,
        }

    async def _outcome(self, row: SourceRow) -> dict[str, Any]:
        try:
            if self._schema is not None:
                await asyncio.to_thread(self._schema.check, row.item)
            given, shown = await self._sample(row)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            return {"status": "error", "results": [], "sample": _shown(self.terms.spec, [], None, _why(error))}
        graded = await asyncio.gather(*(self._grade(grader, Row(row.item, given)) for grader in self.terms.graders))
        status = (
            "error" if any("error" in result for result in graded) else "pass" if all(r["passed"] for r in graded) else "fail"
        )
        return {"status": status, "results": list(graded), "sample": shown}

    async def _sample(self, row: SourceRow) -> tuple[dict[str, Any], dict[str, Any]]:
        """What templates see as `sample`, and what is shown as the item's sample."""
        spec = self.terms.spec
        if isinstance(spec, JsonlRun) or spec.model is None:
            given = _with_json({"output_tools": [], **row.sample} if row.sample else {})
            return given, _shown(spec, list(given.get("input") or []), given, None)
        messages = await self._messages(row)
        body = {**spec.sampling_params.body(), "messages": messages}
        if "tools" not in body and row.item.get("tools") and spec.source.type == "noria_dataset":
            body["tools"] = row.item["tools"]
        answer = await self.ask(spec.model, body)
        given = _with_json(
            {
                "output_text": answer.text,
                "output_tools": answer.message.get("tool_calls") or [],
                "model": answer.model,
                "finish_reason": answer.finish_reason,
                "input": messages,
            }
        )
        return given, _shown(spec, messages, given, None, answer)

    async def _messages(self, row: SourceRow) -> list[dict[str, Any]]:
        names = {"item": row.item, "sample": row.sample}
        wanted = None if isinstance(self.terms.spec, JsonlRun) else self.terms.spec.input_messages
        if wanted is None:
            messages = row.messages or []
        elif isinstance(wanted, TemplateInput):
            messages = fill_messages(wanted.template, names)
        else:
            messages = as_messages(look_up(wanted.item_reference, names)) or []
        if self.terms.prompt is not None and self.prompts is not None:
            values = {name: fill(text, names) for name, text in (self.terms.prompt.get("variables") or {}).items()}
            reference = PromptReference.model_validate({**self.terms.prompt, "variables": values})
            rendered = await self.prompts.render(self.terms.project_id, reference)
            messages = [*rendered.messages, *messages]
        if not messages:
            raise InvalidRequest("The row leads to no messages for the model.", code="no_messages")
        return messages

    async def _grade(self, grader: Grader, row: Row) -> dict[str, Any]:
        result: dict[str, Any] = {"name": grader.name, "type": grader.type}
        try:
            grade = await grader.grade(row, self.tools)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            return {**result, "score": 0.0, "passed": False, "sample": None, "error": _why(error)}
        detail = {"noria": dict(grade.detail)} if grade.detail else {}
        return {**result, "score": grade.score, "passed": grade.passed, "sample": grade.sample, **detail}


def _why(error: Exception) -> dict[str, str]:
    if not isinstance(error, (GradeFailed, NoriaError, MissingVariable)):
        _log.error("A row failed in an unexpected way", exc_info=error)
    if isinstance(error, GradeFailed):
        return {"code": error.kind, "message": str(error)[:2000]}
    if isinstance(error, MissingVariable):
        return {"code": "invalid_variable_error", "message": str(error)[:2000]}
    return error_of(error)


def _with_json(sample: dict[str, Any]) -> dict[str, Any]:
    """With `output_json` where the text is JSON."""
    text = sample.get("output_text")
    if isinstance(text, str) and text.lstrip()[:1] in {"{", "["} and "output_json" not in sample:
        with contextlib.suppress(orjson.JSONDecodeError):
            sample["output_json"] = orjson.loads(text)
    return sample


def _shown(
    spec: RunSpec,
    messages: list[dict[str, Any]],
    sample: Mapping[str, Any] | None,
    error: dict[str, str] | None,
    answer: Answer | None = None,
) -> dict[str, Any]:
    """OpenAI's `sample` of an output item."""
    output: list[dict[str, Any]] = []
    if sample and "output_text" in sample:
        said = {"role": "assistant", "content": sample["output_text"]}
        output.append({**said, "tool_calls": sample["output_tools"]} if sample.get("output_tools") else said)
    usage = answer.usage if answer else None
    asked = {} if isinstance(spec, JsonlRun) else spec.sampling_params.body()
    return {
        "input": messages,
        "output": output,
        "finish_reason": (sample or {}).get("finish_reason") or "",
        "model": (sample or {}).get("model") or spec.model or "",
        "usage": {
            "prompt_tokens": usage.input_tokens if usage else 0,
            "completion_tokens": usage.output_tokens if usage else 0,
            "total_tokens": usage.input_tokens + usage.output_tokens if usage else 0,
            "cached_tokens": usage.cached_tokens if usage else 0,
        },
        "error": error,
        "temperature": asked.get("temperature"),
        "max_completion_tokens": asked.get("max_completion_tokens"),
        "top_p": asked.get("top_p"),
        "seed": asked.get("seed"),
    }
