"""Constrained generation: JSON schemas, regular expressions, choices and Lark grammars, through llguidance.

Knows nothing about HTTP or scheduling. JSON is written the way Python's `json.dumps` writes it (", " and ": ", no other
whitespace): what a small model has seen most, and it leaves no room for looping in whitespace for ever.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from noria.engines.openvino._tokenizer import Tokenizer
from noria.errors import InvalidRequest

__all__ = ["JSON_STYLE", "Grammar", "GrammarConstraint", "Grammars", "bounded"]

JSON_STYLE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


_LARGEST = 2**53 - 1
"""Integers beyond this are not interoperable (RFC 7493); the bound also stops a model that repeats a digit for ever."""


def bounded(schema: Any) -> Any:
    """The schema with every unbounded integer bounded to ±(2⁵³ - 1)."""
    if isinstance(schema, list):
        return [bounded(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # Values that are data and not schemas stay as they are.
    result = {k: v if k in ("const", "enum", "default", "examples", "required") else bounded(v) for k, v in schema.items()}
    if result.get("type") == "integer":
        if not {"minimum", "exclusiveMinimum"} & result.keys():
            result["minimum"] = -_LARGEST
        if not {"maximum", "exclusiveMaximum"} & result.keys():
            result["maximum"] = _LARGEST
    return result


@dataclass(frozen=True)
class Grammar:
    """A compiled grammar; each answer walks a copy of its own."""

    matcher: LLMatcher

    def start(self) -> GrammarConstraint:
        return GrammarConstraint(self.matcher.deep_copy())


class GrammarConstraint:
    """One answer's walk through a grammar (the engine's `Constraint`)."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    @property
    def error(self) -> str | None:
        return self._matcher.get_error() if self._matcher.is_error() else None

    def fill_mask(self, row: np.ndarray[Any, Any]) -> None:
        self._matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)

    def finished(self) -> bool:
        return self._matcher.is_stopped()

    def forced(self) -> list[int]:
        return self._matcher.compute_ff_tokens()

    def allowed(self, tokens: list[int]) -> int:
        return self._matcher.validate_tokens(tokens)


class Grammars:
    """Compiles grammars for one tokenizer. Building it takes about half a second."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_tokens: Sequence[int]) -> None:
        self._tokenizer = LLTokenizer(tokenizer.json, n_vocab=vocab_size, eos_token=list(end_tokens))

    def json_schema(self, schema: dict[str, Any] | bool, param: str) -> Grammar:
        schema = bounded(schema)
        return self._compiled(LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=JSON_STYLE), param)

    def regex(self, pattern: str, param: str) -> Grammar:
        return self._compiled(LLMatcher.grammar_from_regex(pattern), param)

    def choice(self, choices: Sequence[str], param: str) -> Grammar:
        return self.lark("start: " + " | ".join(json.dumps(c, ensure_ascii=False) for c in choices), param)

    def lark(self, text: str, param: str) -> Grammar:
        return self._compiled(LLMatcher.grammar_from_lark(text), param)

    def _compiled(self, grammar: str, param: str) -> Grammar:
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if not matcher.is_error():
            return Grammar(matcher)
        said = matcher.get_error().strip().splitlines()
        raise InvalidRequest(
            f"{param} cannot be honoured: {said[0] if said else 'the grammar is not valid'}.",
            param=param,
            code="unsupported_grammar",
            hint="Remove what is named, or check the result yourself.",
        )
