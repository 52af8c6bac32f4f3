"""Rows of a run: from the request itself, a file, stored completions, stored responses or a dataset, in an order that never
changes.

What may change while a run rests is pinned when it begins: a dataset's version when the run is made, the ids of stored
completions and responses in the run's plan. So a position means the same row after a crash. Knows nothing about models or
graders.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson
from sqlalchemy import Select, func, or_, select

from noria.errors import InvalidRequest, NotFound, PayloadTooLarge
from noria.messages import text_of, to_chat_messages
from noria.store import Blobs, Completion, Database, Dataset, DatasetRow, DatasetVersion, File, StoredResponse, has_entries

from ._specs import DatasetSource, FileContent, FileId, ResponsesSource, Source, StoredCompletions
from .datasets._content import MAX_ROW_BYTES
from .datasets._versions import held

__all__ = ["SourceRow", "Sources", "digest_of_item", "whole_lines"]

_PIECE_ROWS = 200
_MOST_BYTES = 64 * 2**20  # an export is parsed whole, into up to 24 times its bytes


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row. `messages` is what a model is asked where the run does not say; `sample` an output that is there already."""

    position: int
    row_id: str
    item: dict[str, Any]
    sample: dict[str, Any] = field(default_factory=dict[str, Any])
    messages: list[dict[str, Any]] | None = None


class Sources:
    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database, self._blobs = database, blobs

    async def pin(self, source: Source, project_id: str) -> dict[str, Any]:
        """The source as it is kept with the run. Raises NotFound for a file or a dataset that is not there."""
        kept = source.model_dump(exclude_none=True)
        match source:
            case FileContent():
                where = "data_source.source.content"
                if not source.content:
                    raise InvalidRequest("The data source has no rows.", param=where, code="empty_data")
                try:
                    orjson.dumps(kept)
                except TypeError:
                    raise InvalidRequest("A row nests too deeply.", param=where) from None
            case FileId():
                await self._file(source.id, project_id)
            case DatasetSource():
                dataset, version = await self._dataset(source, project_id)
                kept |= {"dataset": dataset.id, "version": version}
            case _:
                pass
        return kept

    async def plan(self, source: Source, project_id: str) -> list[str] | None:
        """The ids of the logged calls that the source selects now, oldest first; None for other sources."""
        match source:
            case StoredCompletions():
                query: Select[Any] = select(Completion.id).where(Completion.project_id == project_id)
                if source.model is not None:
                    query = query.where(Completion.model == source.model)
                query = query.where(*has_entries(Completion.meta, source.metadata))
                query = _between(query, Completion.created_at, source).order_by(Completion.id)
                if source.limit is not None:
                    query = query.limit(source.limit)
                async with self._database.read() as session:
                    return list(await session.scalars(query))
            case ResponsesSource():
                return await self._plan_responses(source, project_id)
            case _:
                return None

    async def _plan_responses(self, source: ResponsesSource, project_id: str) -> list[str]:
        body = StoredResponse.body
        query: Select[Any] = select(StoredResponse.id).where(StoredResponse.project_id == project_id)
        if source.model is not None:
            query = query.where(body["model"].as_string() == source.model)
        query = query.where(*has_entries(body["metadata"], source.metadata))
        if source.instructions_search is not None:
            query = query.where(body["instructions"].as_string().icontains(source.instructions_search, autoescape=True))
        for name in ("temperature", "top_p"):
            if (wanted := getattr(source, name)) is not None:
                query = query.where(body[name].as_float() == wanted)
        async with self._database.read() as session:
            return list(await session.scalars(_between(query, StoredResponse.created_at, source).order_by(StoredResponse.id)))

    async def count(self, source: Source, plan: Sequence[str] | None, project_id: str) -> int:
        """How many rows there are."""
        match source:
            case FileContent():
                return len(source.content)
            case FileId():
                return sum([1 async for _ in self._lines(source.id, project_id)])
            case DatasetSource():
                async with self._database.read() as session:
                    query = select(func.count()).select_from(_dataset_rows(source).subquery())
                    found = await session.scalar(query) or 0
                return found if source.limit is None else min(found, source.limit)
            case _:
                return len(plan or ())

    async def rows(self, source: Source, plan: Sequence[str] | None, project_id: str) -> AsyncIterator[SourceRow]:
        """All rows, in order. A row that was deleted since is left out; the others keep their places."""
        match source:
            case FileContent():
                for position, given in enumerate(source.content):
                    yield _file_row(position, given.item, given.sample)
            case FileId():
                async for row in self._file_rows(source.id, project_id):
                    yield row
            case DatasetSource():
                async for row in self._dataset_rows(source):
                    yield row
            case StoredCompletions():
                async for row in self._logged(plan or (), Completion, _completion_row):
                    yield row
            case ResponsesSource():
                async for row in self._logged(plan or (), StoredResponse, _response_row):
                    yield row

    async def _logged(self, plan: Sequence[str], table: Any, make: Any) -> AsyncIterator[SourceRow]:
        for start in range(0, len(plan), _PIECE_ROWS):
            part = plan[start : start + _PIECE_ROWS]
            async with self._database.read() as session:
                found = {row.id: row for row in await session.scalars(select(table).where(table.id.in_(part)))}
            for offset, identity in enumerate(part):
                if identity in found:
                    yield make(start + offset, found[identity])

    # --- files ---------------------------------------------------------------------------------------------------------

    async def _file(self, file_id: str, project_id: str) -> File:
        async with self._database.read() as session:
            row = await session.get(File, file_id)
        if row is None or row.project_id != project_id or not await self._blobs.exists(row.sha256):
            raise NotFound(f"No file {file_id!r}.", param="data_source.source.id", hint="Upload it with purpose=evals.")
        return row

    async def read(self, file_id: str, project_id: str) -> bytes:
        """A whole file. Raises PayloadTooLarge above what is read at once."""
        row = await self._file(file_id, project_id)
        if row.bytes > _MOST_BYTES:
            hint = "Split it; an import may be repeated."
            raise PayloadTooLarge(f"{file_id} has {row.bytes:,} bytes; {_MOST_BYTES:,} are read at once.", hint=hint)
        return await asyncio.to_thread(lambda: b"".join(self._blobs.pieces(row.sha256)))

    async def _lines(self, file_id: str, project_id: str) -> AsyncIterator[tuple[int, bytes]]:
        """The lines that are not empty, with their numbers from 1."""
        row, number = await self._file(file_id, project_id), 0
        lines = whole_lines(self._blobs.pieces(row.sha256), MAX_ROW_BYTES)
        while read := await asyncio.to_thread(lambda: list(islice(lines, _PIECE_ROWS))):
            for line in read:
                number += 1
                if len(line) > MAX_ROW_BYTES:
                    raise InvalidRequest(
                        f"Line {number} of {file_id} is longer than {MAX_ROW_BYTES:,} bytes.", code="invalid_file"
                    )
                if line.strip():
                    yield number, line

    async def _file_rows(self, file_id: str, project_id: str) -> AsyncIterator[SourceRow]:
        position = 0
        async for number, line in self._lines(file_id, project_id):
            try:
                given: Any = orjson.loads(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
            except orjson.JSONDecodeError as error:
                raise InvalidRequest(f"Line {number} of {file_id} is not JSON: {error}.", code="invalid_file") from None
            if not isinstance(given, dict) or not isinstance(given.get("item"), dict):
                hint = 'Each line is an object such as {"item": {"question": "…", "answer": "…"}}.'
                raise InvalidRequest(f"Line {number} of {file_id} has no item.", code="invalid_file", hint=hint)
            sample = given.get("sample")
            try:
                row = _file_row(position, given["item"], sample if isinstance(sample, dict) else None)
            except TypeError:
                raise InvalidRequest(f"Line {number} of {file_id} nests too deeply.", code="invalid_file") from None
            yield row
            position += 1

    # --- datasets ------------------------------------------------------------------------------------------------------

    async def _dataset(self, source: DatasetSource, project_id: str) -> tuple[Dataset, int]:
        query = select(Dataset).where(
            Dataset.project_id == project_id, or_(Dataset.id == source.dataset, Dataset.name == source.dataset)
        )
        async with self._database.read() as session:
            dataset = await session.scalar(query)
            if dataset is None:
                raise NotFound(f"No dataset {source.dataset!r}.", param="data_source.source.dataset")
            version = dataset.head if source.version is None else source.version
            if await session.get(DatasetVersion, (dataset.id, version)) is None:
                raise NotFound(f"The dataset {dataset.name!r} has no version {version}.", param="data_source.source.version")
        return dataset, version

    async def _dataset_rows(self, source: DatasetSource) -> AsyncIterator[SourceRow]:
        position, key = 0, _dataset_order(source)
        after: Any = None
        while True:
            query = _dataset_rows(source).limit(_PIECE_ROWS)
            query = query if after is None else query.where(key > after)
            async with self._database.read() as session:
                found = list(await session.scalars(query))
            for row in found:
                if source.limit is not None and position >= source.limit:
                    return
                if row.content is not None:  # erased since: its place stays empty
                    yield _dataset_row(position, row)
                position += 1
            if len(found) < _PIECE_ROWS:
                return
            after = getattr(found[-1], key.key)


def whole_lines(pieces: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """The lines that pieces make. A line that is longer than `max_bytes` ends there, one byte too long, and is the last."""
    begun: list[bytes] = []
    size = 0
    for piece in pieces:
        *lines, rest = piece.split(b"\n")
        for line in lines:
            size += len(line)
            yield (b"".join((*begun, line)) if begun else line)[: max_bytes + 1]
            if size > max_bytes:
                return
            begun.clear()
            size = 0
        if rest:
            begun.append(rest)
            size += len(rest)
        if size > max_bytes:
            break
    if begun:
        yield b"".join(begun)[: max_bytes + 1]


def _between(query: Select[Any], column: Any, source: StoredCompletions | ResponsesSource) -> Select[Any]:
    if source.created_after is not None:
        query = query.where(column >= source.created_after)
    return query if source.created_before is None else query.where(column <= source.created_before)


def _dataset_rows(source: DatasetSource) -> Select[DatasetRow]:
    """The rows of a version, erased ones included, so that an erasure moves no other row."""
    query = select(DatasetRow).where(DatasetRow.dataset_id == source.dataset, held(source.version or 0))
    if source.split is not None:
        query = query.where(DatasetRow.split == source.split)
    return query.order_by(_dataset_order(source))


def _dataset_order(source: DatasetSource) -> Any:
    """A limited run takes a sample that is the same each time and favours no age: the rows with the least hashes."""
    return DatasetRow.ordinal if source.limit is None else DatasetRow.row_id


def digest_of_item(item: Mapping[str, Any]) -> str:
    """What a row without an id of its own is known by, in every run."""
    return hashlib.sha256(orjson.dumps(item, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _file_row(position: int, item: dict[str, Any], sample: dict[str, Any] | None) -> SourceRow:
    return SourceRow(position, digest_of_item(item), item, sample or {})


def _dataset_row(position: int, row: DatasetRow) -> SourceRow:
    content = row.content or {}
    messages = list(content.get("messages") or [])
    asked = next((text_of(each.get("content")) for each in reversed(messages) if each.get("role") == "user"), "")
    item = {
        "messages": messages,
        "input": asked,
        "expected": text_of((content.get("expected") or {}).get("content")),
        "row_id": row.row_id,
        "split": row.split,
        "metadata": content.get("metadata") or {},
    }
    if content.get("tools"):
        item["tools"] = content["tools"]
    for name in ("chosen", "rejected"):
        if content.get(name) is not None:
            item[name] = text_of(content[name].get("content"))
    return SourceRow(position, row.row_id, item, messages=messages)


def _completion_row(position: int, row: Completion) -> SourceRow:
    messages = list(row.request.get("messages") or [])
    choice: dict[str, Any] = (row.response.get("choices") or [{}])[0]
    message: dict[str, Any] = choice.get("message") or {}
    text = text_of(message.get("content"))
    item = {"id": row.id, "input": messages, "output": text, "model": row.model, "metadata": row.meta}
    if row.request.get("tools"):
        item["tools"] = row.request["tools"]
    sample = {
        "output_text": text,
        "output_tools": message.get("tool_calls") or [],
        "model": row.model,
        "finish_reason": choice.get("finish_reason") or "stop",
        "input": messages,
    }
    return SourceRow(position, row.id, item, sample, messages)


def _response_row(position: int, row: StoredResponse) -> SourceRow:
    from pydantic import TypeAdapter

    from noria.messages import InputItem

    body = row.body
    items: Any = TypeAdapter(list[InputItem]).validate_python(row.input_items)
    instructions = body.get("instructions")
    messages = ([{"role": "system", "content": instructions}] if isinstance(instructions, str) else []) + to_chat_messages(items)
    said = [part for item in body.get("output") or [] if item.get("type") == "message" for part in item.get("content") or []]
    text = "".join(str(part.get("text") or "") for part in said)
    model = str(body.get("model") or "")
    item = {"id": row.id, "input": messages, "output": text, "model": model, "metadata": body.get("metadata") or {}}
    sample = {
        "output_text": text,
        "output_tools": [item for item in body.get("output") or [] if item.get("type") == "function_call"],
        "model": model,
        "finish_reason": "stop" if body.get("status") == "completed" else str(body.get("status")),
        "input": messages,
    }
    return SourceRow(position, row.id, item, sample, messages)
