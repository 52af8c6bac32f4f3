"""Entries of JSON objects are found by any key, on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from noria.store import DEFAULT_PROJECT, Completion, Database, has_entries

KEYS = ["plain", 'a"b', '"', "\\", '\\"', "a.b", "$", "[0]", "0", "'", "%s", ":x", "", "🙂", "a\nb"]


def completion(name: str, meta: dict[str, Any]) -> Completion:
    return Completion(id=name, project_id=DEFAULT_PROJECT, model="m", request={"metadata": meta}, response={}, meta=meta)


@pytest.mark.parametrize("nested", [False, True])
async def test_each_key_finds_its_own_row_and_no_other(database: Database, nested: bool) -> None:
    async with database.write() as session:
        session.add_all([completion(f"c-{number}", {key: "x", "shared": "y"}) for number, key in enumerate(KEYS)])
        session.add(completion("c-empty", {}))
    column = Completion.request["metadata"] if nested else Completion.meta
    async with database.read() as session:

        async def found(wanted: dict[str, str] | None) -> list[str]:
            return list(await session.scalars(select(Completion.id).where(*has_entries(column, wanted))))

        for number, key in enumerate(KEYS):
            assert await found({key: "x"}) == [f"c-{number}"], key
            assert await found({key: "x", "shared": "y"}) == [f"c-{number}"], key
            assert await found({key: "z"}) == []
        assert len(await found({"shared": "y"})) == len(KEYS)
        assert len(await found(None)) == len(KEYS) + 1
