"""Finds what feedback is about: the trace behind a completion, a response or a span, and the model that truly answered.

Spans are stored a moment after the answer has left, so what is not there yet is waited for, for a second at most.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select

from noria.errors import InvalidRequest, NotFound
from noria.store import Completion, Database, StoredResponse
from noria.tracing import TraceStore

from ._answers import answer_in

__all__ = ["Found", "Target", "TargetFinder", "missing", "parse_target", "trace_of_answer"]

TargetKind = Literal["trace", "span", "completion", "response"]
_TRACE = re.compile(r"[0-9a-f]{32}")
_SPAN = re.compile(r"[0-9a-f]{16}")
_ANSWER = re.compile(r"(chatcmpl-|cmpl-|resp_)([0-9a-f]{12})[0-9a-f]{4}([0-9a-f]{16})")
_WAIT_S = 1.0
_STEP_S = 0.05
_FRESH_S = 10


@dataclass(frozen=True, slots=True)
class Target:
    """What feedback names: `id` is a trace's, a completion's or a response's; `span_id` narrows a trace to one span."""

    kind: TargetKind
    id: str
    span_id: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A target that exists. `trace_id` is None for a stored completion whose trace is gone."""

    target: Target
    trace_id: str | None
    span_id: str | None
    model: str | None
    pending: bool = False
    """It is stored, and its trace on the way."""


def parse_target(given: str, span_id: str | None = None) -> Target:
    """A target by its id: 32 hex digits are a trace, `TRACE/SPAN` a span, `chatcmpl-…` a completion, `resp_…` a response."""
    identity, _, span = given.strip().partition("/")
    span = span or (span_id or "").strip()
    if not identity.isprintable():
        raise InvalidRequest(f"{given!r} is no id.", param="target")
    if identity.startswith("resp_"):
        kind: TargetKind = "response"
    elif identity.startswith(("chatcmpl-", "cmpl-")):
        kind = "completion"
    elif _TRACE.fullmatch(identity.lower()):
        kind, identity = ("span" if span else "trace"), identity.lower()
    else:
        raise InvalidRequest(
            f"{given!r} is not something that feedback can be about.",
            param="target",
            hint="Give a trace id (32 hex digits), TRACE_ID/SPAN_ID, a completion id (chatcmpl-…) or a response id (resp_…).",
        )
    if span and (kind != "span" or not _SPAN.fullmatch(span.lower())):
        raise InvalidRequest(f"{span!r} is not a span of a trace.", param="span_id", hint="A span id has 16 hex digits.")
    return Target(kind, identity, span.lower() or None)


class TargetFinder:
    """Looks targets up. `flush` waits until the spans that have ended are stored, and blocks."""

    def __init__(self, database: Database, traces: TraceStore, flush: Callable[[float], bool]) -> None:
        self._database, self._traces, self._flush = database, traces, flush

    async def find(self, project_id: str, target: Target) -> Found:
        """Waits for what has not been stored yet. Raises NotFound, naming the target."""
        deadline = time.monotonic() + _WAIT_S
        while True:
            await self.settle()
            found = (await self.find_all(project_id, [target]))[0]
            if found is not None and not found.pending:
                return found
            if time.monotonic() > deadline:
                if found is not None:
                    return found
                raise missing(target)
            await asyncio.sleep(_STEP_S)

    async def settle(self) -> None:
        """Waits until what has ended is stored; before many are looked up at once."""
        await asyncio.to_thread(self._flush, _WAIT_S)

    async def find_all(self, project_id: str, targets: Sequence[Target]) -> list[Found | None]:
        """Each target, or None where it is not there (yet); reads traces once for all."""
        rows = await self._stored(project_id, [target.id for target in targets if target.kind in {"completion", "response"}])
        trace_ids: list[str | None] = []
        for target in targets:
            if target.kind in {"trace", "span"}:
                trace_ids.append(target.id)
            elif target.id in rows:
                trace_ids.append(rows[target.id].trace_id)
            else:
                trace_ids.append(await trace_of_answer(self._traces, project_id, target.id))
        spans = await self._traces.spans_of(list({each for each in trace_ids if each}), project=project_id)
        found: list[Found | None] = []
        for target, trace_id in zip(targets, trace_ids, strict=True):
            row, inside = rows.get(target.id), spans.get(trace_id or "")
            if inside is None:
                found.append(_without_trace(target, row))
            elif target.span_id is not None and all(span.span_id != target.span_id for span in inside):
                found.append(None)
            else:
                answer = answer_in(inside, target.span_id)
                model = row.model if isinstance(row, Completion) else answer.model if answer else None
                found.append(Found(target, trace_id, target.span_id or (answer.span_id if answer else None), model))
        return found

    async def _stored(self, project_id: str, ids: Sequence[str]) -> dict[str, Completion | StoredResponse]:
        if not ids:
            return {}
        found: dict[str, Completion | StoredResponse] = {}
        async with self._database.read() as session:
            for table in (Completion, StoredResponse):
                query = select(table).where(table.id.in_(ids), table.project_id == project_id)
                found |= {row.id: row for row in await session.scalars(query)}
        return found


async def trace_of_answer(traces: TraceStore, project_id: str, identity: str) -> str | None:
    """The trace of an answer that was not stored: its id holds the time and the span."""
    match = _ANSWER.fullmatch(identity)
    if match is None or (near_ns := int(match[2], 16) * 1_000_000) >= 2**62:
        return None
    return await traces.trace_with_span(match[3], near_ns, project=project_id)


def _without_trace(target: Target, row: Completion | StoredResponse | None) -> Found | None:
    """A stored completion can be spoken of after its trace has gone, or before it has come."""
    if not isinstance(row, Completion):
        return None
    pending = row.trace_id is not None and row.created_at > time.time() - _FRESH_S
    return Found(target, row.trace_id if pending else None, None, row.model, pending)


def missing(target: Target) -> NotFound:
    shown = f"{target.id}/{target.span_id}" if target.span_id else target.id
    hint = "It may have been deleted: feedback goes with its trace, and none can be added after."
    return NotFound(f"There is no {target.kind} {shown!r} to say something about.", param="target", hint=hint)
