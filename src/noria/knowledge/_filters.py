"""Filters on files' attributes: OpenAI's comparison and compound filters, checked strictly, answered as AllowedFiles.

A missing attribute satisfies only `ne` and `nin`. Values of different types are unequal and have no order; strings are
ordered by code point, so that ISO dates compare as dates.
Source: https://platform.openai.com/docs/guides/retrieval#attribute-filtering
"""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import orjson

from noria.errors import InvalidRequest
from noria.knowledge.index import AllowedFiles, Bools

__all__ = ["Attributes", "FileAttributes", "Filter", "parse_filter"]

Value = str | float | bool
Attributes = Mapping[str, Value]

_COMPARISONS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin")
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
_MAX_DEPTH = 16
_MAX_COMPARISONS = 256
_MAX_CACHED_FILTERS = 64


@dataclass(frozen=True, slots=True)
class Comparison:
    operation: str
    key: str
    value: Value | tuple[Value, ...]

    def matches(self, attributes: Attributes) -> bool:
        return self.accepts(attributes.get(self.key))

    def accepts(self, actual: Value | None) -> bool:
        """Whether a file whose attribute has this value (None: has none) passes."""
        if self.operation in ("ne", "nin"):
            return not any(_equal(actual, wanted) for wanted in self._wanted)
        if self.operation in ("eq", "in"):
            return any(_equal(actual, wanted) for wanted in self._wanted)
        return _comparable(actual, self.value) and _ORDER[self.operation](actual, self.value)

    @property
    def _wanted(self) -> tuple[Value, ...]:
        return self.value if isinstance(self.value, tuple) else (self.value,)


@dataclass(frozen=True, slots=True)
class Compound:
    operation: Literal["and", "or"]
    filters: tuple[Filter, ...]

    def matches(self, attributes: Attributes) -> bool:
        """The slow, obvious reference of FileAttributes.allowed."""
        return (all if self.operation == "and" else any)(part.matches(attributes) for part in self.filters)


Filter = Comparison | Compound


def parse_filter(body: object, *, param: str = "filters") -> Filter:
    """A filter as it came in JSON. Raises InvalidRequest naming the path of what is wrong (`filters.filters[1].value`)."""
    parsed = _parse(body, param, 0)
    if _size(parsed) > _MAX_COMPARISONS:
        raise InvalidRequest(f"`{param}` has more than {_MAX_COMPARISONS} comparisons.", param=param)
    return parsed


class FileAttributes:
    """The attributes of a store's files by ordinal, kept so that a filter is answered in well under a millisecond.

    Each key's values are numbered once (dictionary encoding): a comparison is then made per distinct value and spread
    over the files by one array look-up. Thread-safe.
    """

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self._present = np.zeros(0, dtype=np.bool_)
        self._cache: dict[bytes, AllowedFiles] = {}
        self._lock = threading.Lock()

    def set(self, ordinal: int, attributes: Attributes) -> None:
        """The attributes of one file, replacing what it had."""
        with self._lock:
            self._cache.clear()
            self._present = _grown(self._present, ordinal, False)
            self._present[ordinal] = True
            for key, column in self._columns.items():
                if key not in attributes:
                    column.clear(ordinal)
            for key, value in attributes.items():
                self._columns.setdefault(key, _Column()).set(ordinal, value)

    def drop(self, ordinal: int) -> None:
        """Forget a file: no filter, not even the empty one, allows it any more."""
        with self._lock:
            self._cache.clear()
            if ordinal < self._present.size:
                # A search may hold the old array: it keeps what it began with.
                self._present = self._present.copy()
                self._present[ordinal] = False

    def allowed(self, wanted: Filter | None) -> AllowedFiles:
        """The files that pass (all of them for None)."""
        key = b"" if wanted is None else orjson.dumps(wanted)
        with self._lock:
            found = self._cache.get(key)
            if found is None:
                mask = self._present if wanted is None else self._present & self._mask(wanted)
                share = np.count_nonzero(mask) / max(1, np.count_nonzero(self._present))
                found = AllowedFiles(mask.copy(), float(share))
                if len(self._cache) >= _MAX_CACHED_FILTERS:
                    self._cache.clear()
                self._cache[key] = found
            return found

    def _mask(self, wanted: Filter) -> Bools:
        if isinstance(wanted, Compound):
            masks = [self._mask(part) for part in wanted.filters]
            combine = np.logical_and if wanted.operation == "and" else np.logical_or
            return combine.reduce(masks)
        column = self._columns.get(wanted.key)
        if column is None:
            return np.full(self._present.size, wanted.accepts(None))
        return column.mask(wanted, self._present.size)


class _Column:
    """One attribute over all files: a code per file, 0 where it is missing."""

    def __init__(self) -> None:
        self._values: list[Value | None] = [None]
        self._codes_by_value: dict[tuple[type, Value], int] = {}
        self._codes = np.zeros(0, dtype=np.int32)

    def set(self, ordinal: int, value: Value) -> None:
        # True == 1 in Python: the type is part of what a value is.
        typed = (bool, value) if isinstance(value, bool) else (str, value) if isinstance(value, str) else (float, value)
        code = self._codes_by_value.get(typed)
        if code is None:
            code = self._codes_by_value[typed] = len(self._values)
            self._values.append(value)
        self._codes = _grown(self._codes, ordinal, 0)
        self._codes[ordinal] = code

    def clear(self, ordinal: int) -> None:
        if ordinal < self._codes.size:
            self._codes[ordinal] = 0

    def mask(self, comparison: Comparison, size: int) -> Bools:
        accepted = np.fromiter((comparison.accepts(value) for value in self._values), np.bool_, len(self._values))
        if self._codes.size >= size:
            return accepted[self._codes[:size]]
        return np.concatenate([accepted[self._codes], np.full(size - self._codes.size, accepted[0])])


def _grown(array: Any, ordinal: int, fill: Any) -> Any:
    """The array with room for `ordinal`; grown by half, so that adding files one by one stays cheap."""
    if ordinal < array.size:
        return array
    larger = np.full(max(ordinal + 1, array.size * 3 // 2), fill, dtype=array.dtype)
    larger[: array.size] = array
    return larger


def _equal(actual: Value | None, wanted: Value) -> bool:
    return _same_kind(actual, wanted) and actual == wanted


def _comparable(actual: Value | None, wanted: object) -> bool:
    return _same_kind(actual, wanted) and not isinstance(actual, bool)


def _same_kind(actual: object, wanted: object) -> bool:
    if actual is None or isinstance(actual, bool) != isinstance(wanted, bool):
        return False
    return isinstance(actual, str) == isinstance(wanted, str)


def _parse(body: object, path: str, depth: int) -> Filter:
    if depth > _MAX_DEPTH:
        raise InvalidRequest(f"`{path}` is nested deeper than {_MAX_DEPTH} levels.", param=path)
    if not isinstance(body, Mapping):
        raise InvalidRequest(f"`{path}` must be an object.", param=path)
    fields = cast("Mapping[str, object]", body)
    operation = fields.get("type")
    if operation in ("and", "or"):
        return _parse_compound(fields, operation, path, depth)
    if operation in _COMPARISONS:
        return _parse_comparison(fields, str(operation), path)
    raise InvalidRequest(
        f"`{path}.type` is {operation!r}.", param=f"{path}.type", hint=f"Use one of {', '.join((*_COMPARISONS, 'and', 'or'))}."
    )


def _parse_compound(fields: Mapping[str, object], operation: Literal["and", "or"], path: str, depth: int) -> Compound:
    _only(fields, ("type", "filters"), path)
    parts = fields.get("filters")
    if not isinstance(parts, list) or not parts:
        raise InvalidRequest(f"`{path}.filters` must be a list with at least one filter.", param=f"{path}.filters")
    return Compound(
        operation,
        tuple(_parse(part, f"{path}.filters[{number}]", depth + 1) for number, part in enumerate(cast("list[object]", parts))),
    )


def _parse_comparison(fields: Mapping[str, object], operation: str, path: str) -> Comparison:
    _only(fields, ("type", "key", "value"), path)
    key, value = fields.get("key"), fields.get("value")
    if not isinstance(key, str) or not key:
        raise InvalidRequest(f"`{path}.key` must be the name of an attribute.", param=f"{path}.key")
    if operation in ("in", "nin"):
        if not isinstance(value, list):
            raise InvalidRequest(f"`{path}.value` must be a list for {operation!r}.", param=f"{path}.value")
        return Comparison(operation, key, tuple(_scalar(item, f"{path}.value") for item in cast("list[object]", value)))
    scalar = _scalar(value, f"{path}.value")
    if operation in _ORDER and isinstance(scalar, bool):
        raise InvalidRequest(
            f"`{path}.value`: booleans have no order, {operation!r} needs a number or text.", param=f"{path}.value"
        )
    return Comparison(operation, key, scalar)


def _only(fields: Mapping[str, object], known: tuple[str, ...], path: str) -> None:
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise InvalidRequest(
            f"`{path}.{unknown[0]}` is not a field of this filter.",
            param=f"{path}.{unknown[0]}",
            hint=f"It has {', '.join(known)}.",
        )


def _scalar(value: object, path: str) -> Value:
    if isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise InvalidRequest(f"`{path}` must be text, a number or a boolean, not {type(value).__name__}.", param=path)


def _size(parsed: Filter) -> int:
    return sum(_size(part) for part in parsed.filters) if isinstance(parsed, Compound) else 1
