"""Stored prompts: their versions, the labels that point at versions, and how a label came to point there.

A version never changes. What runs in production is the version under the label `production`; moving a label is the release,
moving it back the rollback. Knows nothing about HTTP or models.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from noria.errors import Conflict, InvalidRequest, NotFound
from noria.prompts import PromptReference, RenderedPrompt, Template
from noria.store import Cursor, Database, Page, Prompt, PromptVersion, new_id, page
from noria.tracing import semconv

__all__ = ["PRODUCTION", "PromptStore", "mark_trace"]

PRODUCTION = "production"
LATEST = "latest"
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_NAME = re.compile(r"[^\s/][^/\n]{0,127}")
_MOST_MOVES = 500


class PromptStore:
    """A prompt is found by id or by name, a version by number or label."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- prompts ------------------------------------------------------------------------------------------------------

    async def create(self, project_id: str, name: str, template: Template, *, description: str = "", note: str = "") -> Prompt:
        """A new prompt with its first version. Raises Conflict when the name is taken."""
        if not _NAME.fullmatch(name) or name.startswith("pmpt_"):
            raise InvalidRequest(
                f"{name!r} is not a name for a prompt.", param="name", hint="One line without a slash, not beginning with pmpt_."
            )
        template.check()
        row = Prompt(
            id=new_id("pmpt_"), project_id=project_id, name=name, description=description, labels={}, label_moves=[], head=1
        )
        try:
            async with self._database.write() as session:
                session.add(row)
                await session.flush()
                session.add(_version(row.id, 1, template, note))
        except IntegrityError:
            raise Conflict(
                f"There is a prompt called {name!r}.", param="name", hint="Add a version to it, or choose another name."
            ) from None
        return row

    async def get(self, project_id: str, prompt: str) -> Prompt:
        async with self._database.read() as session:
            return await _find(session, project_id, prompt)

    async def list(self, project_id: str, cursor: Cursor) -> Page[Prompt]:
        async with self._database.read() as session:
            return await page(session, select(Prompt).where(Prompt.project_id == project_id), Prompt.id, cursor)

    async def describe(self, project_id: str, prompt: str, description: str) -> Prompt:
        async with self._database.write() as session:
            row = await _find(session, project_id, prompt, lock=True)
            row.description = description
            return row

    async def delete(self, project_id: str, prompt: str) -> Prompt:
        """Removes it with all versions; traces keep its id."""
        async with self._database.write() as session:
            row = await _find(session, project_id, prompt, lock=True)
            await session.execute(delete(PromptVersion).where(PromptVersion.prompt_id == row.id))
            await session.execute(delete(Prompt).where(Prompt.id == row.id))
            return row

    # --- versions -----------------------------------------------------------------------------------------------------

    async def add_version(self, project_id: str, prompt: str, template: Template, *, note: str = "") -> PromptVersion:
        """The next version; the newest one itself where the template is the same (a deploy may be run twice)."""
        template.check()
        async with self._database.write() as session:
            row = await _find(session, project_id, prompt, lock=True)
            newest = await session.get_one(PromptVersion, (row.id, row.head))
            if Template.model_validate(newest.template) == template:
                return newest
            row.head += 1
            made = _version(row.id, row.head, template, note)
            session.add(made)
            return made

    async def version(self, project_id: str, prompt: str, wanted: str | None = None) -> tuple[Prompt, PromptVersion]:
        """The version of that number or label; without one what `production` points at, else the newest."""
        async with self._database.read() as session:
            row = await _find(session, project_id, prompt)
            return row, await _version_of(session, row, wanted)

    async def versions(self, project_id: str, prompt: str, cursor: Cursor) -> Page[PromptVersion]:
        """Pages by number; the cursor's `after` and `before` are numbers."""
        number = PromptVersion.number
        async with self._database.read() as session:
            row = await _find(session, project_id, prompt)
            query = select(PromptVersion).where(PromptVersion.prompt_id == row.id)
            if cursor.after is not None:
                after = _number(cursor.after, "after")
                query = query.where(number < after if cursor.order == "desc" else number > after)
            if cursor.before is not None:
                before = _number(cursor.before, "before")
                query = query.where(number > before if cursor.order == "desc" else number < before)
            query = query.order_by(number.desc() if cursor.order == "desc" else number).limit(cursor.limit + 1)
            rows = list((await session.scalars(query)).all())
        return Page(rows[: cursor.limit], len(rows) > cursor.limit)

    # --- labels -------------------------------------------------------------------------------------------------------

    async def move_label(self, project_id: str, prompt: str, label: str, wanted: str) -> Prompt:
        """Points a label at a version, given by number or by another label."""
        if not _LABEL.fullmatch(label) or label == LATEST:
            raise InvalidRequest(
                f"{label!r} is not a label.",
                param="label",
                hint="Letters, digits, _, . and -, a letter first; not latest.",
            )
        async with self._database.write() as session:
            row = await _find(session, project_id, prompt, lock=True)
            _move(row, label, (await _version_of(session, row, wanted)).number)
            return row

    async def remove_label(self, project_id: str, prompt: str, label: str) -> Prompt:
        async with self._database.write() as session:
            row = await _find(session, project_id, prompt, lock=True)
            _pointed(row, label)
            _move(row, label, None)
            return row

    async def roll_back(self, project_id: str, prompt: str, label: str) -> Prompt:
        """Points a label at the version it pointed at before. Raises Conflict where there was none."""
        async with self._database.write() as session:
            row = await _find(session, project_id, prompt, lock=True)
            before = _before(row.label_moves, label, _pointed(row, label))
            if before is None:
                raise Conflict(
                    f"The label {label!r} of {row.name!r} has pointed at nothing else.",
                    param="label",
                    hint="Point it at a version instead.",
                )
            _move(row, label, before, undo=True)
            return row

    # --- using them ---------------------------------------------------------------------------------------------------

    async def render(self, project_id: str, reference: PromptReference) -> RenderedPrompt:
        """`noria.prompts.PromptResolver`: the messages that a reference stands for."""
        row, version = await self.version(project_id, reference.id, reference.version)
        template = Template.model_validate(version.template)
        messages = template.render(reference.variables, param="prompt.variables")
        return RenderedPrompt(row.id, row.name, version.number, messages, template.model)


def mark_trace(rendered: RenderedPrompt) -> None:
    """Says on the current span which prompt ran."""
    span = trace.get_current_span()
    span.set_attributes({semconv.PROMPT_ID: rendered.prompt_id, semconv.PROMPT_NAME: rendered.name})
    span.set_attribute(semconv.PROMPT_VERSION, str(rendered.version))


def _version(prompt_id: str, number: int, template: Template, note: str) -> PromptVersion:
    return PromptVersion(prompt_id=prompt_id, number=number, template=template.model_dump(mode="json"), note=note)


async def _find(session: AsyncSession, project_id: str, prompt: str, *, lock: bool = False) -> Prompt:
    by = Prompt.id == prompt if prompt.startswith("pmpt_") else Prompt.name == prompt
    if lock:  # taken before it is read, so that two who count on from `head` count one after the other
        await session.execute(update(Prompt).where(Prompt.project_id == project_id, by).values(head=Prompt.head))
    row = (await session.scalars(select(Prompt).where(Prompt.project_id == project_id, by))).one_or_none()
    if row is None:
        raise NotFound(f"No prompt {prompt!r}.", param="prompt.id", hint="List them: noria prompts list")
    return row


async def _version_of(session: AsyncSession, row: Prompt, wanted: str | None) -> PromptVersion:
    if wanted is None:
        number = row.labels.get(PRODUCTION, row.head)
    elif wanted == LATEST:
        number = row.head
    elif wanted.isascii() and wanted.isdigit():
        number = int(wanted[:9])
    else:
        number = _pointed(row, wanted, param="prompt.version")
    found = await session.get(PromptVersion, (row.id, number))
    if found is None:
        raise NotFound(
            f"The prompt {row.name!r} has no version {wanted}.", param="prompt.version", hint=f"Its newest is {row.head}."
        )
    return found


def _pointed(row: Prompt, label: str, *, param: str = "label") -> int:
    number = row.labels.get(label)
    if number is None:
        known = ", ".join(sorted(row.labels)) or "none"
        raise NotFound(f"The prompt {row.name!r} has no label {label!r}.", param=param, hint=f"Its labels: {known}.")
    return number


def _number(given: str, param: str) -> int:
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise InvalidRequest(f"{given!r} is not a version's number.", param=param)
    return int(given)


def _move(row: Prompt, label: str, number: int | None, *, undo: bool = False) -> None:
    if row.labels.get(label) == number:
        return
    move = {"label": label, "from": row.labels.get(label), "to": number, "at": int(time.time()), "undo": undo}
    kept: Mapping[str, Any] = {name: value for name, value in row.labels.items() if name != label}
    row.labels = {**kept, label: number} if number is not None else dict(kept)
    row.label_moves = [*row.label_moves, move][-_MOST_MOVES:]


def _before(moves: list[Any], label: str, now: int) -> int | None:
    """Where the label pointed before, a rollback undone included: back and back again goes further back, not forth."""
    stack: list[int] = []
    for move in moves:
        if move["label"] != label:
            continue
        if move["undo"]:
            if stack:
                stack.pop()
        elif move["from"] is not None:
            stack.append(move["from"])
    while stack and stack[-1] == now:
        stack.pop()
    return stack[-1] if stack else None
