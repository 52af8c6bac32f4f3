"""Feedback under /v1/noria/feedback: given, imported, listed, changed, summed, deleted."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request, UploadFile
from pydantic import Field

from noria.errors import InvalidRequest
from noria.evals import FeedbackFilter, FeedbackStats, Opinion, import_feedback
from noria.fields import Many
from noria.store import Feedback

from ._chat_bodies import Body
from ._deps import Data, ListCursor, NoriaDep, listing
from ._files import clean_filename, keep_upload
from ._routers import new_router

__all__ = ["feedback_filter", "router", "show_feedback"]

router = new_router("Noria: feedback", prefix="/v1/noria/feedback")

Rating = Literal["up", "down"]
Seconds = Annotated[float, Query(ge=0, lt=2**33)]
# What an import adds while its caller waits; more becomes a job.
_AT_ONCE_BYTES = 256 * 1024
_INTERVALS = {"none": None, "hour": 3600, "day": 86400, "week": 604800}


class Correction(Body):
    """The message that the answer should have been."""

    role: Literal["assistant"] = "assistant"
    content: str | Many[dict[str, Any]] | None = None
    tool_calls: Many[dict[str, Any]] | None = None
    refusal: str | None = None


class _Said(Body):
    rating: Rating | None = None
    score: float | None = None
    label: str | None = Field(default=None, min_length=1, max_length=256)
    correction: str | Correction | None = None
    comment: str | None = Field(default=None, max_length=20_000)
    author: str | None = Field(default=None, max_length=256)
    metadata: dict[str, Any] | None = None


class FeedbackBody(_Said):
    """POST /v1/noria/feedback. One of `target`, `trace_id`, `completion_id` and `response_id`; `span_id` narrows a trace."""

    target: str | None = Field(
        default=None, max_length=256, description="Id of a trace, a completion or a response, or TRACE/SPAN."
    )
    trace_id: str | None = Field(default=None, max_length=256)
    completion_id: str | None = Field(default=None, max_length=256)
    response_id: str | None = Field(default=None, max_length=256)
    span_id: str | None = Field(default=None, max_length=64)
    external_id: str | None = Field(
        default=None,
        max_length=256,
        description="Your own id: giving the same again changes nothing and answers with what is there.",
    )
    source: Literal["api", "cli", "console"] = "api"


class UpdateFeedbackBody(_Said):
    """PATCH /v1/noria/feedback/{id}: what is given is changed; null takes back."""


def show_feedback(row: Feedback) -> dict[str, Any]:
    return {
        "object": "noria.feedback",
        "id": row.id,
        "target": {"kind": row.target_kind, "id": row.target_id},
        "trace_id": row.trace_id,
        "span_id": row.span_id,
        "model": row.model,
        "rating": {1: "up", -1: "down"}.get(row.rating or 0),
        "score": row.score,
        "label": row.label,
        "correction": row.correction,
        "comment": row.comment,
        "author": row.author,
        "source": row.source,
        "external_id": row.external_id,
        "metadata": row.meta,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


async def feedback_filter(
    target: Annotated[str | None, Query(max_length=256)] = None,
    trace_id: Annotated[str | None, Query(max_length=64)] = None,
    model: Annotated[str | None, Query(max_length=256)] = None,
    label: Annotated[str | None, Query(max_length=256)] = None,
    rating: Rating | None = None,
    author: Annotated[str | None, Query(max_length=256)] = None,
    source: Literal["api", "cli", "console", "import"] | None = None,
    corrected: bool | None = None,
    since: Annotated[Seconds | None, Query(alias="from", description="Unix seconds, included")] = None,
    until: Annotated[Seconds | None, Query(alias="to", description="Unix seconds, excluded")] = None,
) -> FeedbackFilter:
    return FeedbackFilter(
        target=target,
        trace_id=trace_id.lower() if trace_id else None,
        models=(model,) if model else (),
        label=label,
        rating=rating,
        author=author,
        source=source,
        corrected=corrected,
        since=since,
        until=until,
    )


Wanted = Annotated[FeedbackFilter, Depends(feedback_filter)]


def _message(given: str | Correction | None) -> dict[str, Any] | None:
    if given is None:
        return None
    if isinstance(given, str):
        return {"role": "assistant", "content": given}
    if given.content is None and not given.tool_calls and not given.refusal:
        raise InvalidRequest("correction has neither content nor tool calls.", param="correction")
    return given.model_dump(exclude_none=True) | {"content": given.content}


@router.post("", summary="Say something of an answer")
async def create_feedback(body: FeedbackBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    named = [value for value in (body.target, body.trace_id, body.completion_id, body.response_id) if value is not None]
    if len(named) != 1:
        raise InvalidRequest(
            f"{len(named)} targets were given.",
            param="target",
            hint="Give exactly one of target, trace_id, completion_id and response_id.",
        )
    opinion = Opinion(
        rating=body.rating,
        score=body.score,
        label=body.label,
        correction=_message(body.correction),
        comment=body.comment,
        author=body.author,
        external_id=body.external_id,
        source=body.source,
        metadata=body.metadata or {},
    )
    return show_feedback(await noria.feedback.create(caller.project_id, named[0], opinion, span_id=body.span_id))


@router.post("/import", summary="Import feedback from CSV or JSONL")
async def import_file(request: Request, caller: Data, noria: NoriaDep, file: UploadFile) -> dict[str, Any]:
    form = await request.form()
    if unknown := sorted(set(form) - {"file"}):
        raise InvalidRequest(f"Unknown field: {unknown[0]}.", param=unknown[0], code="unknown_parameter")
    filename = clean_filename(file.filename)
    data = await file.read(_AT_ONCE_BYTES + 1)
    if len(data) <= _AT_ONCE_BYTES:
        report = await import_feedback(noria.feedback, caller.project_id, io.BytesIO(data), filename)
        return {"object": "noria.feedback.import", "job": None, **asdict(report)}
    await file.seek(0)
    kept = await keep_upload(noria, caller.project_id, file, filename, "user_data")
    job = await noria.jobs.start("feedback_import", kept.id, {"file_id": kept.id}, project_id=caller.project_id)
    return {"object": "noria.feedback.import", "job": job.id}


@router.get("", summary="List feedback")
async def list_feedback(wanted: Wanted, caller: Data, noria: NoriaDep, cursor: ListCursor) -> dict[str, Any]:
    return listing(await noria.feedback.list(wanted, cursor, caller.project_id), show_feedback)


@router.get("/stats", summary="Feedback by model over time")
async def feedback_stats(
    wanted: Wanted, caller: Data, noria: NoriaDep, interval: Literal["none", "hour", "day", "week"] = "none"
) -> dict[str, Any]:
    rows = await noria.feedback.stats(wanted, interval_s=_INTERVALS[interval], project_id=caller.project_id)
    return {"object": "list", "data": [_show_stats(row) for row in rows], "has_more": False}


def _show_stats(row: FeedbackStats) -> dict[str, Any]:
    return {"object": "noria.feedback.stats", **asdict(row), "up_share": row.up_share}


@router.get("/{feedback_id}", summary="Get a piece of feedback")
async def get_feedback(feedback_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    return show_feedback(await noria.feedback.get(feedback_id, caller.project_id))


@router.patch("/{feedback_id}", summary="Change a piece of feedback")
async def update_feedback(feedback_id: str, body: UpdateFeedbackBody, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    if "correction" in changes:
        changes["correction"] = _message(changes["correction"])
    if "metadata" in changes:
        changes["metadata"] = changes["metadata"] or {}
    return show_feedback(await noria.feedback.update(feedback_id, changes, caller.project_id))


@router.delete("/{feedback_id}", summary="Delete feedback, and what datasets made of it")
async def delete_feedback(feedback_id: str, caller: Data, noria: NoriaDep) -> dict[str, Any]:
    await noria.feedback.get(feedback_id, caller.project_id)
    await noria.forgetting.feedback(caller.project_id, feedback_id)
    return {"object": "noria.feedback.deleted", "id": feedback_id, "deleted": True}
