"""multi: several graders and a formula over their scores. Source: https://platform.openai.com/docs/api-reference/graders/multi

The formula is read as a Python expression tree and walked; nothing is ever evaluated as code.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field

from noria.errors import InvalidRequest
from noria.evals._parsing import Spec
from noria.evals._templates import Variables
from noria.fields import Many

from ._contract import Grade, GradeFailed, Grader, Row, Tools

__all__ = ["Multi", "calculate", "names_of"]

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[float], float]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: dict[str, Any] = {
    "min": min, "max": max, "abs": abs, "floor": math.floor, "ceil": math.ceil,
    "exp": math.exp, "sqrt": math.sqrt, "log": math.log,
}  # fmt: skip


class Multi(Spec):
    """`graders` by the names that `calculate_output` uses: a list (their own names) or an object (its keys)."""

    type: Literal["multi"]
    name: str = Field(min_length=1, max_length=256)
    graders: Many[dict[str, Any]] | dict[str, dict[str, Any]]
    calculate_output: str = Field(min_length=1, max_length=2000)
    pass_threshold: float = Field(default=0.5, allow_inf_nan=False)

    @functools.cached_property
    def _parts(self) -> dict[str, Grader]:
        return self._read("grader")

    def _read(self, param: str) -> dict[str, Grader]:
        """The graders by name. OpenAI's description shows one grader alone where a list is meant; that works too."""
        from ._registry import parse_grader

        given = self.graders
        if isinstance(given, dict) and "type" in given:
            given = [given]
        entries = enumerate(given) if isinstance(given, list) else given.items()
        found: dict[str, Grader] = {}
        for key, spec in entries:
            where = f"{param}.graders[{key}]" if isinstance(key, int) else f"{param}.graders.{key}"
            grader = parse_grader(spec, where)
            if isinstance(grader, Multi):
                raise InvalidRequest(f"{where} is a multi grader inside one.", param=where)
            name = grader.name if isinstance(key, int) else key
            if name in found:
                raise InvalidRequest(f"{where}: there are two graders named {name!r}.", param=where)
            found[name] = grader
        return found

    def check(self, variables: Variables, param: str) -> None:
        parts = self._read(param)
        if not parts:
            raise InvalidRequest(f"{param}.graders is empty.", param=f"{param}.graders")
        for name, grader in parts.items():
            grader.check(variables, f"{param}.graders.{name}")
        where = f"{param}.calculate_output"
        for name in names_of(self.calculate_output, where):
            if name not in _scores(dict.fromkeys(parts, 0.0), parts):
                raise InvalidRequest(f"{where} names {name!r}, which is none of: {', '.join(parts)}.", param=where)

    async def grade(self, row: Row, tools: Tools) -> Grade:
        parts = self._parts
        grades = await asyncio.gather(*(grader.grade(row, tools) for grader in parts.values()))
        scores = {name: grade.score for name, grade in zip(parts, grades, strict=True)}
        try:
            score = calculate(self.calculate_output, _scores(scores, parts))
        except (ArithmeticError, ValueError) as error:
            raise GradeFailed("formula_parse_error", f"{self.calculate_output} cannot be calculated: {error}.") from None
        samples = {name: dict(grade.sample) for name, grade in zip(parts, grades, strict=True) if grade.sample is not None}
        return Grade(score, score >= self.pass_threshold, {"scores": scores}, {"graders": samples} if samples else None, scores)


def _scores(scores: Mapping[str, float], parts: Mapping[str, Grader]) -> dict[str, float]:
    """Names of the formula: each grader's name with blanks as `_`, and `<type>_score` where one grader has that type."""
    found: dict[str, float] = {}
    kinds = [grader.type for grader in parts.values()]
    for name, score in scores.items():
        kind = parts[name].type
        if kinds.count(kind) == 1:
            found[f"{kind}_score"] = score
    for name, score in scores.items():
        found["".join(character if character.isalnum() else "_" for character in name)] = score
    return found


def _parse(formula: str, param: str) -> ast.expr:
    try:
        return ast.parse(formula.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InvalidRequest(f"{param} = {formula[:200]!r} is not a formula.", param=param, code="invalid_formula") from None


def names_of(formula: str, param: str) -> list[str]:
    """The variables of a formula. Raises InvalidRequest for anything in it that is not arithmetic."""
    names: list[str] = []

    def visit(node: ast.expr) -> None:
        match node:
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                pass
            case ast.Name():
                names.append(node.id)
            case ast.BinOp() if type(node.op) in _BINARY:
                visit(node.left)
                visit(node.right)
            case ast.UnaryOp() if type(node.op) in _UNARY:
                visit(node.operand)
            case ast.Call(func=ast.Name(id=function), keywords=[]) if function in _FUNCTIONS and node.args:
                for argument in node.args:
                    visit(argument)
            case _:
                shown = ast.unparse(node)[:100]
                raise InvalidRequest(
                    f"{param}: {shown!r} is not arithmetic over the graders' names.",
                    param=param,
                    code="invalid_formula",
                    hint=f"It may have + - * / **, numbers, names and {', '.join(_FUNCTIONS)}.",
                )

    try:
        visit(_parse(formula, param))
    except RecursionError:
        raise InvalidRequest(f"{param} is nested too deeply.", param=param, code="invalid_formula") from None
    return names


def calculate(formula: str, values: Mapping[str, float]) -> float:
    """The value of a checked formula. Raises ArithmeticError or ValueError where it has none."""

    def value(node: ast.expr) -> float:
        match node:
            case ast.Constant():
                return float(node.value)  # pyright: ignore[reportArgumentType]
            case ast.Name():
                return values[node.id]
            case ast.BinOp():
                return _BINARY[type(node.op)](value(node.left), value(node.right))
            case ast.UnaryOp():
                return _UNARY[type(node.op)](value(node.operand))
            case ast.Call(func=ast.Name(id=function)):
                return float(_FUNCTIONS[function](*map(value, node.args)))
            case _:
                raise AssertionError("checked before")

    try:
        result = value(_parse(formula, "calculate_output"))
    except TypeError as error:  # a function with a wrong number of arguments
        raise ValueError(str(error)) from None
    if not math.isfinite(result):
        raise ValueError(f"it is {result}")
    return result
