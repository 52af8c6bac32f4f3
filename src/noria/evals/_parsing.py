"""Reading a specification that came from outside into its model; what is wrong is said with the path of the field."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from noria.errors import InvalidRequest
from noria.fields import faults, shorten

__all__ = ["Spec", "parse"]

T = TypeVar("T")


class Spec(BaseModel):
    """A part of a request that is kept as given: a field that is not listed is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse(shape: type[T] | TypeAdapter[T], value: Any, param: str) -> T:
    """`value` as `shape`. Raises InvalidRequest that names the first thing wrong below `param`."""
    adapter: TypeAdapter[T] = shape if isinstance(shape, TypeAdapter) else TypeAdapter(shape)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        # Of a union's many complaints an unknown field says most, then the deepest.
        first = max(faults(error), key=lambda each: (each["type"] == "extra_forbidden", len(each["loc"])))
        path = _path(param, first["loc"], value, missing=first["type"] == "missing")
        if first["type"] == "extra_forbidden":
            raise InvalidRequest(f"Unknown field: {path}.", param=path, code="unknown_parameter") from None
        if first["type"] == "missing":
            raise InvalidRequest(f"{path} is missing.", param=path, code="missing_required_parameter") from None
        raise InvalidRequest(f"{path} = {shorten(first['input'])}: {first['msg']}.", param=path, code="invalid_value") from None


def _path(param: str, location: tuple[int | str, ...], value: Any, *, missing: bool) -> str:
    """Where it is wrong, in the caller's words: what pydantic adds (the branch of a union) is no key of the value."""
    text = param
    for place, part in enumerate(location):
        if isinstance(part, int):
            text += f"[{part}]"
            value = value[part] if isinstance(value, list) and part < len(value) else None
        elif isinstance(value, dict) and part in value:
            text += f".{part}" if text else part
            value = value[part]
        elif missing and place == len(location) - 1:
            text += f".{part}" if text else part
    return text
