"""The JSON schema that an eval's rows must fit: whether it can be held against rows at all, and whether one row fits.

A schema of a kilobyte can take longer than the universe is old: each of thirty definitions that names the one before it twice
doubles the work. So it is measured when it comes, with all it refers to written out, and each row has a budget of steps, for how
often a schema that refers to itself is gone through depends on the row. Slow for large schemas and rows: call it from a thread.
Source: https://json-schema.org/draft/2020-12/json-schema-core
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from noria.errors import InvalidRequest, UnsupportedField

__all__ = ["ItemSchema", "check_item_schema"]

_PARAM = "data_source_config.item_schema"
_MOST_PARTS = 10_000
_MOST_STEPS = 200_000
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_Rule = Callable[[Any, Any, Any, Any], Iterable[Any] | None]


def check_item_schema(schema: Any) -> None:
    """Raises InvalidRequest for what is no schema, or one that is too large with all its references written out."""
    from jsonschema import exceptions, validators  # slow to import, and few need it

    try:
        if keyword := _refused_keyword_in(schema):
            raise UnsupportedField(f"item_schema uses {keyword}.", param=_PARAM)
        parts = _Parts(schema).count(schema)
    except RecursionError:
        parts = _MOST_PARTS + 1
    if parts > _MOST_PARTS:
        raise InvalidRequest(
            f"item_schema is too large: with what it refers to written out it has more than {_MOST_PARTS:,} parts.",
            param=_PARAM,
            code="schema_too_large",
            hint="Refer to a definition from fewer places, or nest less.",
        )
    try:
        validators.validator_for(schema).check_schema(schema)
    except exceptions.SchemaError as error:
        raise InvalidRequest(f"item_schema is not a JSON schema: {error.message[:300]}.", param=_PARAM) from None


class ItemSchema:
    """Holds items against a schema. May be used by several threads."""

    def __init__(self, schema: Mapping[str, Any], *, most_steps: int = _MOST_STEPS) -> None:
        from jsonschema import validators
        from referencing import Registry

        kind = validators.validator_for(schema)
        rules: dict[str, Any] = {keyword: self._counted(keyword, rule) for keyword, rule in kind.VALIDATORS.items()}
        # Without its $schema: where a reference leads back to it, it would be taken for one whose steps nobody counts.
        bare = {key: value for key, value in schema.items() if key != "$schema"}
        # An empty registry: a schema must not make this server fetch what it refers to.
        self._validator: Any = validators.extend(kind, rules)(bare, registry=Registry())
        self._most_steps, self._steps = most_steps, threading.local()

    def check(self, item: Mapping[str, Any]) -> None:
        """Raises InvalidRequest that names what does not fit."""
        self._steps.left = self._most_steps
        try:
            errors = list(itertools.islice(self._validator.iter_errors(item), 1))
        except Exception as error:  # too many steps, or a reference that leads nowhere or round in a circle
            raise InvalidRequest(f"The row cannot be held against item_schema: {error}.", code="invalid_item") from None
        for error in errors:
            raise InvalidRequest(
                f"The row does not fit item_schema: {error.json_path}: {error.message[:300]}", code="invalid_item"
            )

    def _counted(self, keyword: str, rule: _Rule) -> _Rule:
        def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterable[Any] | None:
            self._steps.left -= _steps_of(keyword, value, instance)
            if self._steps.left < 0:
                raise _TooLong(f"it takes more than {self._most_steps:,} steps")
            return rule(validator, value, instance, schema)

        return counted


class _TooLong(Exception):
    pass


def _steps_of(keyword: str, value: Any, instance: Any) -> int:
    if keyword in _REFERENCES:  # many times as slow as other keywords
        return 4
    if keyword == "enum" and isinstance(value, list):
        return 1 + len(value)
    if keyword == "uniqueItems" and isinstance(instance, list):  # what has no order is compared each with each
        kinds = {type(each) for each in instance}
        return 1 + len(instance) if kinds in ({str}, {int}) else 1 + len(instance) ** 2 // 2
    return 1


class _Parts:
    """How many objects and lists a schema has, with each reference counted as what it leads to; a circle is gone once."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[int, int] = {}

    def count(self, part: Any) -> int:
        if not isinstance(part, (dict, list)):
            return 0
        if (known := self._known.get(id(part))) is not None:
            return known
        self._known[id(part)] = 0
        inside: list[Any] = list(part.values()) if isinstance(part, dict) else part
        if isinstance(part, dict):
            inside += [self._target(part.get(keyword)) for keyword in _REFERENCES]
        parts = 1 + sum(self.count(each) for each in inside)
        self._known[id(part)] = parts
        return parts

    def _target(self, reference: Any) -> Any:
        """What a pointer into this schema leads to; other references (by anchor or id) are left to the budget of each row."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        found = self._root
        for step in unquote(reference[1:]).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict):
                found = found.get(name)
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                return None
        return found


def _refused_keyword_in(schema: Any, *, root: bool = True) -> str | None:
    """The first keyword that is not taken, and why. A property may have its name: what that leads to is no text."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if (key == "pattern" and isinstance(value, str)) or key == "patternProperties":
                return f"{key}, which is not supported: a regular expression may take for ever"
            if key == "$schema" and isinstance(value, str) and not root:
                return "$schema inside, which is not supported: one draft holds for all of it"
            if found := _refused_keyword_in(value, root=False):
                return found
    if isinstance(schema, list):
        return next((found for each in schema if (found := _refused_keyword_in(each, root=False))), None)
    return None
