"""Evals, runs, output items and stored completions out of an export of OpenAI's, kept under their own ids.

An export is JSON or JSON lines of the objects that OpenAI's API gives, told apart by their `object`; lists of them, and
objects that hold such lists, are looked into. What is here already is left as it is, so that an import may be repeated.
Imported runs have ended; their statistics are made anew from their items. Source:
https://platform.openai.com/docs/api-reference/evals
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import select

from noria.errors import InvalidRequest
from noria.store import Completion, Database, Eval, EvalItem, EvalRun

from ._sources import digest_of_item
from ._summary import summarise

__all__ = ["Imported", "import_objects", "objects_in"]

_ORDER = ("eval", "eval.run", "eval.run.output_item", "chat.completion")
_PIECE = 200
_MOST_PROBLEMS = 100
_ENDED = {"completed", "failed", "canceled"}


@dataclass(slots=True)
class Imported:
    """How many of each kind came in, how many were here already, and what could not be read."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_ORDER, 0))
    skipped: int = 0
    num_problems: int = 0
    problems: list[str] = field(default_factory=list[str])

    def problem(self, text: str) -> None:
        self.num_problems += 1
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(text)

    def to_dict(self) -> dict[str, Any]:
        return {
            "object": "noria.import",
            "evals": self.counts["eval"],
            "runs": self.counts["eval.run"],
            "output_items": self.counts["eval.run.output_item"],
            "completions": self.counts["chat.completion"],
            "skipped": self.skipped,
            "num_problems": self.num_problems,
            "problems": self.problems,
        }


def objects_in(text: bytes) -> Iterator[dict[str, Any]]:
    """Every object of OpenAI's in a JSON text or in JSON lines. Raises InvalidRequest naming the line that is neither."""
    text = text.removeprefix(b"\xef\xbb\xbf")
    try:
        yield from _walk(orjson.loads(text))
        return
    except orjson.JSONDecodeError:
        pass
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield from _walk(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"Line {number} is not JSON: {error}.", param="file_id", code="invalid_file") from None


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for each in value:
            yield from _walk(each)
    elif isinstance(value, dict) and value.get("object") in _ORDER:
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            if isinstance(each, (list, dict)):
                yield from _walk(each)


async def import_objects(database: Database, project_id: str, objects: list[dict[str, Any]]) -> Imported:
    """Stores what is new: evals before their runs before their items."""
    done = Imported()
    touched: set[str] = set()
    makers = {"eval": _eval, "eval.run": _run, "eval.run.output_item": _item, "chat.completion": _completion}
    tables = {"eval": Eval, "eval.run": EvalRun, "eval.run.output_item": EvalItem, "chat.completion": Completion}
    for kind in _ORDER:
        given = {str(each.get("id")): each for each in objects if each["object"] == kind}
        async for part in _pieces(database, tables[kind], given, done):
            rows = await _made(database, project_id, kind, makers[kind], part, done)
            async with database.write() as session:
                session.add_all(rows)
            done.counts[kind] += len(rows)
            touched |= {row.run_id for row in rows if kind == "eval.run.output_item"}
            touched |= {row.id for row in rows if kind == "eval.run"}
    for run_id in sorted(touched):
        await _summarise(database, run_id)
    return done


async def _pieces(
    database: Database, table: Any, given: Mapping[str, dict[str, Any]], done: Imported
) -> AsyncIterator[list[dict[str, Any]]]:
    """What is not here yet, some at a time."""
    ids = list(given)
    for start in range(0, len(ids), _PIECE):
        part = ids[start : start + _PIECE]
        async with database.read() as session:
            known = set(await session.scalars(select(table.id).where(table.id.in_(part))))
        done.skipped += len(known)
        yield [given[identity] for identity in part if identity not in known]


async def _made(
    database: Database, project_id: str, kind: str, make: Any, part: list[dict[str, Any]], done: Imported
) -> list[Any]:
    parents = await _parents(database, project_id, kind, part)
    rows: list[Any] = []
    for each in part:
        parent = {"eval.run": each.get("eval_id"), "eval.run.output_item": each.get("run_id")}.get(kind)
        if parent is not None and parent not in parents:
            done.problem(f"{kind} {each.get('id')}: {parent} is neither here nor in the export.")
            continue
        try:
            row = make(each, project_id)
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            done.problem(f"{kind} {each.get('id')}: {type(error).__name__} {error}")
            continue
        if kind == "eval.run.output_item":
            # Places are unique in a run here; OpenAI's numbers need not be.
            taken = parents[parent]
            row.position = next(n for n in (row.position, *range(len(taken) + 1)) if n not in taken)
            taken.add(row.position)
        rows.append(row)
    return rows


async def _parents(database: Database, project_id: str, kind: str, part: list[dict[str, Any]]) -> dict[Any, set[int]]:
    """The parents that are here, and of a run the places that are taken."""
    if kind not in {"eval.run", "eval.run.output_item"}:
        return {}
    key, table = ("eval_id", Eval) if kind == "eval.run" else ("run_id", EvalRun)
    wanted = {each.get(key) for each in part}
    async with database.read() as session:
        query = select(table.id).where(table.id.in_(wanted), table.project_id == project_id)
        found: dict[Any, set[int]] = {identity: set() for identity in await session.scalars(query)}
        if table is EvalRun:
            taken = select(EvalItem.run_id, EvalItem.position).where(EvalItem.run_id.in_(list(found)))
            for run_id, position in (await session.execute(taken)).all():
                found[run_id].add(position)
    return found


async def _summarise(database: Database, run_id: str) -> None:
    async with database.read() as session:
        run = await session.get_one(EvalRun, run_id)
        owner = await session.get_one(Eval, run.eval_id)
        if await session.scalar(select(EvalItem.id).where(EvalItem.run_id == run_id).limit(1)) is None:
            return
    values = await summarise(database, run, owner.testing_criteria)
    values["usage"] = values["usage"] or run.usage
    async with database.write() as session:
        row = await session.get_one(EvalRun, run_id)
        for name, value in values.items():
            setattr(row, name, value)


def _text(value: Any, most: int) -> str:
    text = str(value or "")
    if len(text) > most:
        raise ValueError(f"{text[:40]}… is longer than {most} characters")
    return text


def _id(given: Mapping[str, Any]) -> str:
    if not isinstance(given["id"], str) or not given["id"]:
        raise ValueError("has no id")
    return _text(given["id"], 64)


def _when(given: Mapping[str, Any]) -> int:
    found = int(given.get("created_at") or given.get("created") or time.time())
    if not 0 <= found < 2**40:
        raise ValueError(f"{found} is no time in seconds")
    return found


def _eval(given: Mapping[str, Any], project_id: str) -> Eval:
    return Eval(
        id=_id(given),
        project_id=project_id,
        name=_text(given.get("name"), 256),
        data_source_config=dict(given["data_source_config"]),
        testing_criteria=list(given["testing_criteria"]),
        meta=dict(given.get("metadata") or {}),
        created_at=_when(given),
    )


def _run(given: Mapping[str, Any], project_id: str) -> EvalRun:
    counts = dict(given.get("result_counts") or {})
    status = str(given.get("status"))
    return EvalRun(
        id=_id(given),
        project_id=project_id,
        eval_id=given["eval_id"],
        name=_text(given.get("name"), 256),
        model=_text(given.get("model"), 256) or None,
        data_source=dict(given.get("data_source") or {}),
        status=status if status in _ENDED else "canceled",
        num_items=counts.get("total"),
        result_counts={name: int(counts.get(name) or 0) for name in ("total", "errored", "failed", "passed")},
        per_criterion=list(given.get("per_testing_criteria_results") or []),
        usage=list(given.get("per_model_usage") or []),
        statistics={},
        options={"imported": "openai"},
        error=given.get("error"),
        meta=dict(given.get("metadata") or {}),
        created_at=_when(given),
        finished_at=_when(given),
    )


def _item(given: Mapping[str, Any], project_id: str) -> EvalItem:
    item = dict(given.get("datasource_item") or {})
    # Exports hold the row itself, or the row under `item`.
    row = item["item"] if set(item) <= {"item", "sample"} and isinstance(item.get("item"), dict) else item
    results = [
        {**each, "name": str(each["name"]), "score": float(each.get("score") or 0.0), "passed": bool(each["passed"])}
        for each in given.get("results") or []
    ]
    status = str(given.get("status"))
    return EvalItem(
        id=_id(given),
        project_id=project_id,
        run_id=given["run_id"],
        position=min(max(int(given.get("datasource_item_id") or 0), 0), 2**31 - 1),
        row_id=digest_of_item(row),
        datasource_item=row,
        sample=given.get("sample"),
        results=results,
        status=status if status in {"pass", "fail"} else "error",
        created_at=_when(given),
    )


def _completion(given: Mapping[str, Any], project_id: str) -> Completion:
    kept = ("model", "messages", "tools", "tool_choice", "temperature", "top_p", "seed", "response_format")
    request = {name: given[name] for name in kept if given.get(name) is not None}
    request.setdefault("messages", given.get("input") or [])
    response = {name: value for name, value in given.items() if name not in {"messages", "input"}}
    if not isinstance(given["choices"], list):
        raise TypeError("choices is not a list")
    return Completion(
        id=_id(given),
        project_id=project_id,
        model=_text(given["model"], 256),
        request=request,
        response=response,
        meta={str(key): str(value) for key, value in (given.get("metadata") or {}).items()},
        created_at=_when(given),
    )
