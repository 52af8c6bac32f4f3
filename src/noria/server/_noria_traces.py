"""Traces: OTLP in at /v1/traces, lists, trees, statistics and deletion under /v1/noria/traces."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request
from fastapi.responses import Response

from noria.errors import InvalidRequest
from noria.tracing import SpanNode, StatsRow, TraceFilter, TraceSummary

from ._deps import NoriaDep, Spans, Traces
from ._routers import new_router

__all__ = ["router"]

router = new_router("Noria: traces")
_LONGEST_S = 1e9  # as nanoseconds it still fits 64 bits

_OTLP_TYPES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-protobuf": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": {"type": "object"}},
        },
    }
}


@router.post("/v1/traces", summary="Take spans of other programs (OTLP/HTTP)", openapi_extra=_OTLP_TYPES, response_class=Response)
async def ingest_spans(request: Request, caller: Spans, noria: NoriaDep) -> Response:
    body = await request.body()
    kind = request.headers.get("content-type", "")
    encoding = request.headers.get("content-encoding")
    reply = await noria.tracing.ingest_otlp(body, kind, encoding, caller.project_id)
    return Response(reply.body, media_type=reply.content_type)


async def _filter(
    caller: Traces,
    request: Request,
    since: Annotated[float | None, Query(alias="from", description="Unix seconds, included")] = None,
    until: Annotated[float | None, Query(alias="to", description="Unix seconds, excluded")] = None,
    model: str | None = None,
    key_id: str | None = None,
    status: Literal["ok", "error"] | None = None,
    name: str | None = None,
    service: str | None = None,
    session_id: str | None = None,
    user_id: str | None = None,
    min_latency_s: Annotated[float | None, Query(ge=0, le=_LONGEST_S)] = None,
    max_latency_s: Annotated[float | None, Query(ge=0, le=_LONGEST_S)] = None,
    min_cost_usd: Annotated[float | None, Query(ge=0, le=1e12)] = None,
    max_cost_usd: Annotated[float | None, Query(ge=0, le=1e12)] = None,
    min_tokens: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    max_tokens: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    text: Annotated[str | None, Query(max_length=1000)] = None,
    prompt: Annotated[str | None, Query(max_length=256, description="Id or name of a stored prompt")] = None,
    prompt_version: Annotated[int | None, Query(ge=1, le=10**9)] = None,
) -> TraceFilter:
    metadata = {k[9:-1]: v for k, v in request.query_params.multi_items() if k.startswith("metadata[") and k.endswith("]")}
    return TraceFilter(
        project=caller.project_id,
        from_ns=_ns(since, "from"),
        to_ns=_ns(until, "to"),
        model=model,
        key_id=key_id,
        status=status,
        name=name,
        service=service,
        session_id=session_id,
        user_id=user_id,
        min_latency_s=min_latency_s,
        max_latency_s=max_latency_s,
        min_cost_usd=min_cost_usd,
        max_cost_usd=max_cost_usd,
        min_tokens=min_tokens,
        max_tokens=max_tokens,
        text=text,
        prompt=prompt,
        prompt_version=prompt_version,
        metadata=metadata,
    )


def _ns(seconds: float | None, param: str) -> int | None:
    if seconds is None:
        return None
    if not 0 <= seconds < 2**33:
        raise InvalidRequest(f"{param} = {seconds} is not a time in Unix seconds.", param=param)
    return int(seconds * 1e9)


Wanted = Annotated[TraceFilter, Depends(_filter)]


def _show_summary(trace: TraceSummary) -> dict[str, Any]:
    return {"object": "noria.trace", "id": trace.trace_id, **asdict(trace)}


def _show_node(node: SpanNode) -> dict[str, Any]:
    return {"object": "noria.span", "id": node.span_id, **asdict(node)}


@router.get("/v1/noria/traces", summary="List traces")
async def list_traces(
    wanted: Wanted,
    noria: NoriaDep,
    order: Literal["newest", "oldest", "slowest", "costliest", "most_tokens"] = "newest",
    after: Annotated[str | None, Query(max_length=512)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> dict[str, Any]:
    page = await noria.tracing.store.list(wanted, order=order, after=after, limit=limit)
    return {
        "object": "list",
        "data": [_show_summary(trace) for trace in page.traces],
        "has_more": page.next_cursor is not None,
        "next_cursor": page.next_cursor,
        "text_capped": page.text_capped,
    }


@router.get("/v1/noria/traces/stats", summary="Requests, latency, tokens and cost, by group")
async def trace_stats(
    wanted: Wanted,
    noria: NoriaDep,
    group_by: Literal["none", "model", "provider", "key", "day", "name", "service", "status"] = "none",
) -> dict[str, Any]:
    rows: list[StatsRow] = await noria.tracing.store.stats(wanted, group_by=group_by)
    return {"object": "list", "data": [{"object": "noria.stats", **asdict(row)} for row in rows], "has_more": False}


@router.get("/v1/noria/traces/{trace_id}", summary="A trace with all its spans, nested")
async def get_trace(trace_id: str, caller: Traces, noria: NoriaDep) -> dict[str, Any]:
    await asyncio.to_thread(noria.tracing.flush, 2.0)  # a trace that has just ended is found
    tree = await noria.tracing.store.get(trace_id, project=caller.project_id)
    return {**_show_summary(tree.summary), "spans": [_show_node(node) for node in tree.roots]}


@router.delete("/v1/noria/traces/{trace_id}", summary="Delete a trace, its feedback, and what datasets hold of it")
async def delete_trace(trace_id: str, caller: Traces, noria: NoriaDep) -> dict[str, Any]:
    await noria.forgetting.trace(caller.project_id, trace_id)
    return {"object": "noria.trace.deleted", "id": trace_id, "deleted": True}


@router.delete("/v1/noria/traces", summary="Delete every trace that matches")
async def delete_traces(wanted: Wanted, noria: NoriaDep, confirm: bool = False) -> dict[str, Any]:
    if not confirm:
        count = await noria.tracing.store.count(wanted)
        raise InvalidRequest(f"This would delete {count} traces.", param="confirm", hint="Send confirm=true to do it.")
    return {"object": "noria.traces.deleted", "deleted": await noria.forgetting.traces_where(wanted)}
