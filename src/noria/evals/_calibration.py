"""Whether a model-as-judge may be trusted: its agreement with people on rows that people have labelled.

A judge counts as calibrated when it was measured on at least 30 rows and Cohen's kappa is at least 0.4 (moderate agreement,
Landis & Koch 1977, https://doi.org/10.2307/2529310) with an interval that excludes 0. Until then its results are marked and
cannot gate.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import select

from noria.errors import InvalidRequest, NoriaError
from noria.store import Database, JudgeAgreement, new_id

from ._sources import SourceRow
from ._specs import DatasetSource
from ._statistics import cohen_kappa, confusion
from ._templates import MissingVariable, fill
from .graders import GradeFailed, Grader, Row, Tools

__all__ = ["Labelled", "Templates", "asks_models", "digest_of", "judges_in", "keep", "measure", "parts_of", "standing"]

MIN_ROWS = 30
MIN_KAPPA = 0.4
_JUDGES = {"label_model", "score_model"}
_TRUE, _FALSE = (
    {"true", "yes", "pass", "passed", "1", "1.0", "good", "up"},
    {"false", "no", "fail", "failed", "0", "0.0", "bad", "down"},
)


@dataclass(frozen=True, slots=True)
class Templates:
    """Where a row says what people thought of it, and the text that is to be judged."""

    human: str
    output: str


@dataclass(frozen=True, slots=True)
class Labelled:
    """One row: what the person said, what the judge said; `error` where it could not be told."""

    row_id: str
    human: str | None
    judge: str | None
    error: str | None = None


def parts_of(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The graders that a criterion is made of: itself, or those inside a multi grader."""
    if spec.get("type") != "multi":
        return [spec]
    inner: Any = spec.get("graders")
    if isinstance(inner, dict):
        inner = [inner] if "type" in inner else list(inner.values())
    return [each for part in inner or () if isinstance(part, dict) for each in parts_of(part)]


def judges_in(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those of them that ask a model."""
    return [part for part in parts_of(spec) if part.get("type") in _JUDGES]


def asks_models(spec: Mapping[str, Any]) -> bool:
    """Whether grading by this calls a model: a judge, or the embedder."""
    return any(part.get("type") in _JUDGES or part.get("evaluation_metric") == "cosine" for part in parts_of(spec))


def digest_of(grader: Mapping[str, Any]) -> str:
    """Of the whole definition but its name: what it is called changes nothing of how it judges."""
    given = {key: value for key, value in grader.items() if key not in {"id", "name"} and value is not None}
    return hashlib.sha256(orjson.dumps(given, option=orjson.OPT_SORT_KEYS)).hexdigest()


async def standing(database: Database, project_id: str, criteria: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For each criterion that asks a model: whether it is calibrated, and the newest measurement."""
    found: dict[str, Any] = {}
    for criterion in criteria:
        judges = [await _newest(database, project_id, judge) for judge in judges_in(criterion)]
        if judges:
            worst = min(judges, key=lambda each: (each["calibrated"], each["kappa"] if each["kappa"] is not None else -2))
            found[str(criterion.get("name"))] = worst
    return found


async def _newest(database: Database, project_id: str, judge: Mapping[str, Any]) -> dict[str, Any]:
    query = (
        select(JudgeAgreement)
        .where(JudgeAgreement.project_id == project_id, JudgeAgreement.grader_digest == digest_of(judge))
        .order_by(JudgeAgreement.id.desc())
        .limit(1)
    )
    async with database.read() as session:
        row = await session.scalar(query)
    if row is None:
        return {"calibrated": False, "agreement_id": None, "kappa": None, "num_rows": 0}
    return {"calibrated": row.detail["calibrated"], "agreement_id": row.id, "kappa": row.kappa, "num_rows": row.num_rows}


async def measure(
    grader: Grader, rows: Sequence[SourceRow], templates: Templates, tools: Tools, concurrency: int
) -> list[Labelled]:
    """Asks the judge about every row, some at once, in the rows' order."""
    room = asyncio.Semaphore(concurrency)

    async def one(row: SourceRow) -> Labelled:
        async with room:
            return await _ask(grader, row, templates, tools)

    return list(await asyncio.gather(*(one(row) for row in rows)))


async def _ask(grader: Grader, row: SourceRow, templates: Templates, tools: Tools) -> Labelled:
    names = {"item": row.item, "sample": row.sample}
    try:
        human = fill(templates.human, names).strip()
        sample = {**row.sample, "output_text": fill(templates.output, names)}
        grade = await grader.grade(Row(row.item, sample), tools)
    except (MissingVariable, GradeFailed, NoriaError) as error:
        return Labelled(row.row_id, None, None, str(error)[:500])
    label = grade.detail.get("label")
    if isinstance(label, str) and human in getattr(grader, "labels", ()):
        return Labelled(row.row_id, human, label)
    verdict = _verdict(human)
    if verdict is None:
        return Labelled(row.row_id, None, None, f"{human[:80]!r} is neither one of the judge's labels nor pass or fail.")
    return Labelled(row.row_id, verdict, "pass" if grade.passed else "fail")


def _verdict(human: str) -> str | None:
    folded = human.casefold()
    return "pass" if folded in _TRUE else "fail" if folded in _FALSE else None


async def keep(
    database: Database, project_id: str, spec: Mapping[str, Any], labelled: Sequence[Labelled], source: Any
) -> JudgeAgreement:
    """Stores what was measured. Raises InvalidRequest when no row could be compared."""
    pairs = [(row.human, row.judge) for row in labelled if row.human is not None and row.judge is not None]
    errors = [row for row in labelled if row.error is not None]
    if not pairs:
        first = f" The first: {errors[0].error}" if errors else ""
        raise InvalidRequest(f"None of {len(labelled)} rows could be compared with a person's label.{first}", param="human")
    human, judge = [one for one, _ in pairs], [other for _, other in pairs]
    found = cohen_kappa(human, judge)
    kappa = found.kappa.estimate or 0.0
    calibrated = len(pairs) >= MIN_ROWS and kappa >= MIN_KAPPA and (found.kappa.low or 0.0) > 0
    detail = {
        "calibrated": calibrated,
        "agreement": found.agreement.to_dict(),
        "kappa": found.kappa.to_dict(),
        "confusion": confusion(human, judge),
        "errors": [{"row_id": row.row_id, "message": row.error} for row in errors[:100]],
        "num_errors": len(errors),
        "disagreements": [row.row_id for row in labelled if row.human is not None and row.human != row.judge][:100],
    }
    is_dataset = isinstance(source, DatasetSource)
    row = JudgeAgreement(
        id=new_id("agree_"),
        project_id=project_id,
        grader_digest=digest_of(spec),
        grader=dict(spec),
        dataset_id=source.dataset if is_dataset else None,
        dataset_version=source.version if is_dataset else None,
        num_rows=len(pairs),
        agreement=found.agreement.estimate or 0.0,
        kappa=kappa,
        detail=detail,
    )
    async with database.write() as session:
        session.add(row)
    return row
