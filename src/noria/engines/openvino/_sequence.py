"""One running answer: its tokens, its blocks, and how far they are computed.

Knows nothing about scheduling policy or text. `Sampling` is what the sampler obeys; `Sequence` is the scheduler's record.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from noria.engines.openvino._adapter import Adapter
from noria.engines.openvino._lookup import Lookup

__all__ = ["Constraint", "FinishReason", "Sampling", "Sequence", "TokenLogprobs", "Work"]

FinishReason = Literal["stop", "length", "cancelled", "error"]


class Constraint(Protocol):
    """A grammar that says which tokens may come next."""

    @property
    def error(self) -> str | None:
        """Why it can say nothing any more, if so."""
        ...

    def fill_mask(self, row: np.ndarray[Any, Any]) -> None:
        """Writes one bit a token (int32 words, lowest bit first) into `row`."""
        ...

    def accept(self, token: int) -> None: ...

    def finished(self) -> bool:
        """Whether nothing but the end may follow."""
        ...

    def forced(self) -> list[int]:
        """Tokens that must come next, as far as only one text may; often none."""
        ...

    def allowed(self, tokens: list[int]) -> int:
        """How many of these tokens may come next, one after the other."""
        ...


@dataclass(frozen=True)
class Sampling:
    """What OpenAI's parameters (and vLLM's `top_k`, `min_p`, `repetition_penalty`) say, defaults meaning "off".

    `seed` with the position in the answer decides every random number, so a request gives the same tokens whatever
    else is in the batch. `top_logprobs` None: no log-probabilities; 0: the chosen token's only.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    top_logprobs: int | None = None

    @cached_property
    def bias_arrays(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """`logit_bias` as token ids and float32 biases; no token comes twice."""
        return np.array([t for t, _ in self.logit_bias], np.int64), np.array([b for _, b in self.logit_bias], np.float32)

    @property
    def counts_tokens(self) -> bool:
        return bool(self.frequency_penalty or self.presence_penalty or self.repetition_penalty != 1.0)


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural logarithms of a token's probability and of the likeliest tokens at its place."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class Work(NamedTuple):
    """What an engine has done since its start: steps, and the sequences of all its steps added up."""

    steps: int = 0
    planned: int = 0


_ids = itertools.count()


@dataclass(eq=False)
class Sequence:
    """Invariant: `num_computed` ≤ len(tokens), and `blocks` covers at least `num_computed` tokens."""

    tokens: list[int]
    sampling: Sampling
    adapter: Adapter | None = None
    salt: bytes = b""  # part of every block's digest: the adapter's digest
    constraint: Constraint | None = None
    wants_prompt_logprobs: bool = False
    waits_for: Sequence | None = None  # n > 1: start when that sibling's prompt is computed, then share its blocks
    id: int = field(default_factory=lambda: next(_ids))
    num_prompt: int = 0
    num_computed: int = 0
    num_cached: int = 0  # prompt tokens found in the prefix cache at first admission
    num_preempted: int = 0
    blocks: list[int] = field(default_factory=list[int])
    digests: list[bytes] = field(default_factory=list[bytes])  # of the full blocks of `tokens`, as far as known
    finish: FinishReason | None = None
    counts: np.ndarray[Any, Any] | None = None  # int32 [V] of generated tokens, only when a penalty needs it
    seen: np.ndarray[Any, Any] | None = None  # bool [V] of prompt and generated tokens, likewise
    lookup: Lookup | None = None  # made when the sequence first runs alone
    arrived_s: float = 0.0
    admitted_s: float = 0.0
    first_token_s: float = 0.0
    first_token_work: Work = Work()  # noqa: RUF009  immutable

    def __post_init__(self) -> None:
        self.num_prompt = len(self.tokens)

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def num_missing(self) -> int:
        """Tokens whose keys and values are still to be computed; 1 while decoding."""
        return len(self.tokens) - self.num_computed
