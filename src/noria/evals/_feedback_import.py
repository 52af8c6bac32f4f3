"""Feedback from files: CSV or JSONL, one opinion a line. The same line again, in a mended file or after a crash, adds nothing.

A line without an `external_id` gets one from what it says and how often the file has said it before.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, cast

import orjson

from noria.errors import InvalidRequest, NoriaError

from ._feedback import FeedbackStore, Opinion, Rating, check_opinion
from ._feedback_targets import Target, parse_target
from ._wellformed import check_json
from .datasets import Line, read_lines

__all__ = ["ImportReport", "import_feedback", "read_opinion"]

_BATCH = 200
_MOST_ERRORS = 100
_TARGETS = ("target", "trace_id", "completion_id", "response_id")
_OWN = {*_TARGETS, "span_id", "rating", "score", "label", "correction", "comment", "author", "external_id", "metadata"}
_UP = {"up", "1", "+1", "true", "yes", "good", "positive", "thumbs_up", "👍"}
_DOWN = {"down", "-1", "0", "false", "no", "bad", "negative", "thumbs_down", "👎"}


@dataclass(slots=True)
class ImportReport:
    """What became of the lines; of `errors` the first hundred are kept, `failed` counts all."""

    lines: int = 0
    added: int = 0
    known: int = 0
    failed: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def fail(self, line: int, reason: str) -> None:
        self.failed += 1
        if len(self.errors) < _MOST_ERRORS:
            self.errors.append({"line": line, "message": reason})


async def import_feedback(
    store: FeedbackStore,
    project_id: str,
    source: IO[bytes],
    filename: str,
    *,
    progress: Callable[[ImportReport], Any] | None = None,
) -> ImportReport:
    """Adds a file's opinions. `progress` is awaited after each batch. Raises InvalidRequest where the file cannot be read."""
    report = ImportReport()
    seen: Counter[bytes] = Counter()
    lines = read_lines(source, filename)
    await store.targets.settle()
    while batch := await asyncio.to_thread(_next, lines):
        await _add(store, project_id, batch, seen, report)
        if progress is not None:
            await progress(report)
    return report


def _next(lines: Iterator[Line]) -> list[Line]:
    return [line for _, line in zip(range(_BATCH), lines, strict=False)]


async def _add(store: FeedbackStore, project_id: str, batch: list[Line], seen: Counter[bytes], report: ImportReport) -> None:
    given: list[tuple[Target, Opinion]] = []
    numbers: list[int] = []
    for line in batch:
        report.lines += 1
        if line.record is None:
            report.fail(line.number, line.problem or "unreadable")
            continue
        try:
            given.append(read_opinion(line.record, _external_id(line.record, seen)))
        except NoriaError as error:
            report.fail(line.number, str(error))
        else:
            numbers.append(line.number)
    made, problems = await store.create_all(project_id, given)
    report.added += len(made)
    for number, problem in zip(numbers, problems, strict=True):
        if problem is not None:
            report.fail(number, str(problem))
    report.known += len(given) - len(made) - sum(problem is not None for problem in problems)


def _external_id(record: Mapping[str, Any], seen: Counter[bytes]) -> str:
    """Raises InvalidRequest for a record that cannot be kept."""
    check_json(record, "The line")
    digest = hashlib.sha256(orjson.dumps(record, option=orjson.OPT_SORT_KEYS)).digest()[:16]
    seen[digest] += 1
    return f"import:{digest.hex()}:{seen[digest]}"


def read_opinion(record: Mapping[str, Any], external_id: str) -> tuple[Target, Opinion]:
    """One line. Fields that are not feedback's own become metadata. Raises InvalidRequest."""
    given = {key.strip(): value for key, value in record.items() if value not in (None, "")}
    named = [str(given[name]) for name in _TARGETS if name in given]
    if not named:
        raise InvalidRequest("The line names no target.", param="target", hint=f"Give one of {', '.join(_TARGETS)}.")
    # A table of traces may carry both ids; the more telling one is meant.
    target = parse_target(named[-1], str(given.get("span_id") or "") or None)
    metadata = _metadata(given.get("metadata"))
    extra = {key: value for key, value in given.items() if key not in _OWN}
    opinion = Opinion(
        rating=_rating(given.get("rating")),
        score=_score(given.get("score")),
        label=_short(given, "label"),
        correction=_correction(given.get("correction")),
        comment=str(given["comment"]) if "comment" in given else None,
        author=_short(given, "author"),
        external_id=_short(given, "external_id") or external_id,
        source="import",
        metadata={**extra, **metadata},
    )
    check_opinion(opinion)
    return target, opinion


def _metadata(given: Any) -> dict[str, Any]:
    """An object, or its JSON as a cell of a table holds it."""
    try:
        found = orjson.loads(given) if isinstance(given, str) else given or {}
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"metadata is not JSON: {error}.", param="metadata") from None
    if not isinstance(found, dict):
        raise InvalidRequest("metadata must be an object.", param="metadata")
    return cast("dict[str, Any]", found)


def _short(given: Mapping[str, Any], name: str) -> str | None:
    text = str(given[name]).strip() if name in given else None
    if text is not None and len(text) > 256:
        raise InvalidRequest(f"{name} is longer than 256 characters.", param=name)
    return text or None


def _rating(given: Any) -> Rating | None:
    if given is None:
        return None
    word = str(given).strip().lower()
    if word not in _UP | _DOWN:
        raise InvalidRequest(f"rating = {given!r} is neither up nor down.", param="rating")
    return "up" if word in _UP else "down"


def _score(given: Any) -> float | None:
    if given is None:
        return None
    try:
        return float(given)
    except (TypeError, ValueError):
        raise InvalidRequest(f"score = {given!r} is not a number.", param="score") from None


def _correction(given: Any) -> dict[str, Any] | None:
    if given is None:
        return None
    if isinstance(given, str) and given.startswith('{"'):
        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError:
            return {"role": "assistant", "content": given}
    return cast("dict[str, Any]", given) if isinstance(given, dict) else {"role": "assistant", "content": str(given)}
