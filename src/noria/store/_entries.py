"""One entry of a JSON object by a key that a caller chose. Knows nothing about what the objects hold.

SQLAlchemy's own indexing writes the key into SQLite's JSON path unescaped, and before SQLite 3.48 a path cannot express a
quote in a key at all: hence a search among the entries. Source: https://www.sqlite.org/json1.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, SQLColumnExpression, String, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

__all__ = ["has_entries"]


class _Entry(FunctionElement[str]):
    """The entry's value as text; NULL where there is none."""

    type = String()
    inherit_cache = True


@compiles(_Entry)
def _postgresql(element: _Entry, compiler: Any, **options: Any) -> str:
    column, key = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(({column}) ->> {key})"


@compiles(_Entry, "sqlite")
def _sqlite(element: _Entry, compiler: Any, **options: Any) -> str:
    column, key = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(SELECT entry.value FROM json_each({column}) AS entry WHERE entry.key = {key})"  # noqa: S608  the key is bound


def has_entries(column: SQLColumnExpression[Any], wanted: Mapping[str, str] | None) -> list[ColumnElement[bool]]:
    """Conditions for `where(*…)`: the JSON object has all of `wanted`, whose keys may hold any character."""
    return [_Entry(column, literal(key, String())) == value for key, value in (wanted or {}).items()]
